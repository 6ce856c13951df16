from pathlib import Path

import pytest

from app.engines.legacy.build import build_legacy_engine, legacy_source
from app.errors import PolicyError, SettingsError

POLICIES = Path(__file__).parents[3] / "policies"
REMOTE = (
    "opa:http://127.0.0.1:8181/v1/data/phasegate/decision",
    "authzen:https://pdp.test/access/v1/evaluation",
)


@pytest.mark.parametrize("spec", ["rules", "cedar", *REMOTE])
async def test_a_setting_names_its_engine_and_its_source(spec: str) -> None:
    engine = build_legacy_engine(spec, source=legacy_source(spec, policies_dir=POLICIES))
    assert engine.name == spec.partition(":")[0]
    await engine.close()


@pytest.mark.parametrize(
    "spec",
    ["", "rule", "opa", "opa:", "opa:file:///etc/passwd", "authzen:pdp.test", "cedar:x", "opa:http://"],
)
def test_a_setting_that_names_no_engine_is_refused(spec: str) -> None:
    with pytest.raises(SettingsError, match="PHASEGATE_LEGACY"):
        build_legacy_engine(spec, source=spec)


def test_another_policy_has_another_hash() -> None:
    texts = [
        "rules:\n- {name: a, actions: [x], decision: deny}",
        "rules:\n- {name: a, actions: [y], decision: deny}",
    ]
    hashes = {build_legacy_engine("rules", source=text).sha256 for text in (*texts, texts[0])}
    assert len(hashes) == 2
    assert len({build_legacy_engine(spec, source=spec).sha256 for spec in (*REMOTE, REMOTE[0] + "2")}) == 3


def test_a_missing_file_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"legacy.yaml: cannot be read"):
        legacy_source("rules", policies_dir=tmp_path)
