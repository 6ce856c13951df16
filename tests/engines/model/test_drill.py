import pytest

from app.engines.model.drill import Fault, Kind, parse_fault
from app.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, None),
        ("", None),
        ("hang", Fault(Kind.HANG)),
        ("crash", Fault(Kind.CRASH)),
        ("garbage", Fault(Kind.GARBAGE)),
        ("slow:250", Fault(Kind.SLOW, 0.25)),
    ],
)
def test_each_fault_is_understood(text: str | None, fault: Fault | None) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize("text", ["slow", "slow:", "slow:-1", "slow:1.5", "hang:3", "explode"])
def test_any_other_fault_is_refused_by_the_name_of_its_setting(text: str) -> None:
    with pytest.raises(SettingsError, match="PHASEGATE_MODEL_FAULT"):
        parse_fault(text)
