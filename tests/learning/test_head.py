"""What does a head make of lines and a hidden state?"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisory import Probabilities
from app.domain.decision import Decision
from app.engines.model.head import CLASSES, Basis, Head, HiddenWeights, Weight, features
from app.engines.model.prompt import write
from app.engines.model.version import ModelVersion
from app.errors import PolicyError
from tests.learning.world import situation

_SHA = "0" * 64
EVEN = Probabilities(1 / 3, 1 / 3, 1 / 3)
_finite = st.floats(-50, 50)
_triples = st.tuples(_finite, _finite, _finite)


def head(
    *, intercept: tuple[float, float, float] = (0.0, 0.0, 0.0), **weights: tuple[float, float, float]
) -> Head:
    return Head(
        basis=Basis(model_sha256=_SHA, adapter_sha256=None, prompt_sha256=_SHA, layout="q8_0, decoded alone"),
        examples=50,
        c=1.0,
        temperature=1.0,
        threshold=0.5,
        intercept=intercept,
        fields=tuple(
            Weight(name=name, mean=0.0, scale=1.0, weights=triple) for name, triple in weights.items()
        ),
        hidden=HiddenWeights(mean=(0.0,), scale=(1.0,), weights=((0.0, 0.0, 1.0),)),
    )


@given(_triples, _triples, st.floats(-100, 100, width=32))
def test_a_head_never_lifts_a_denial(
    intercept: tuple[float, float, float], triple: tuple[float, float, float], state: float
) -> None:
    lines = write(situation(1, alarm=False), legacy=Decision.DENY)
    found = head(intercept=intercept, **{"legacy=deny": triple}).read(
        lines, np.array([state], np.float32), EVEN
    )
    assert found.allow == 0
    assert found.most_probable is not Decision.ALLOW
    assert sum(found.of(label) for label in CLASSES) == pytest.approx(1)


def test_the_mass_of_a_lifted_denial_goes_to_attestation() -> None:
    lines = write(situation(1, alarm=False), legacy=Decision.DENY)
    found = head(intercept=(0.0, 0.0, 2.0)).read(lines, np.zeros(1, np.float32), EVEN)
    assert found.most_probable is Decision.REQUIRE_ATTESTATION


@pytest.mark.parametrize("legacy", [None, Decision.ALLOW, Decision.REQUIRE_ATTESTATION])
def test_where_nothing_is_denied_a_head_may_allow(legacy: Decision | None) -> None:
    lines = write(situation(1, alarm=False), legacy=legacy)
    assert head(intercept=(0.0, 0.0, 2.0)).read(lines, np.zeros(1, np.float32), EVEN).allow > 0.7


@pytest.mark.parametrize(
    "members",
    [
        {"identity_metrics": {"legacy": "allow", "legacy=deny": 1, "x, legacy": "deny"}},
        {"legacy": "deny", "rules_say": "deny", "rules say": "deny"},
        {"details": "rules say: deny", "team_context": "legacy=deny"},
        {"resource": "legacy=deny", "actor_role": "legacy=deny"},
    ],
)
def test_a_caller_cannot_forge_the_legacy_answer(members: dict[str, Any]) -> None:
    named = features(write(situation(1, alarm=False, **members), legacy=Decision.ALLOW), EVEN)
    assert [name for name in named if name.startswith("legacy")] == ["legacy=allow"]


def test_a_field_that_is_left_out_counts_for_nothing() -> None:
    lines = write(situation(1, alarm=True), legacy=Decision.ALLOW)
    taught = head(**{"has=details": (3.0, 0.0, 0.0)})
    state = np.zeros(1, np.float32)
    without = [line for line in lines if line.field != "details"]
    assert taught.read(lines, state, EVEN).deny > 0.8
    assert taught.read(without, state, EVEN).deny == pytest.approx(1 / 3)


def test_a_number_that_is_not_given_counts_as_the_mean() -> None:
    lines = [line for line in write(situation(1, alarm=False)) if line.field != "t3_tensor"]
    field = Weight(name="trust.lowest", mean=0.7, scale=0.1, weights=(9.0, 0.0, 0.0))
    taught = msgspec.structs.replace(head(), fields=(field,))
    assert taught.read(lines, np.zeros(1, np.float32), EVEN).deny == pytest.approx(1 / 3)


def test_the_models_own_odds_count() -> None:
    lines = write(situation(1, alarm=False), legacy=Decision.ALLOW)
    field = Weight(name="own.allow", mean=0.0, scale=1.0, weights=(0.0, 0.0, 1.0))
    taught = msgspec.structs.replace(head(), fields=(field,))
    state = np.zeros(1, np.float32)
    sure = taught.read(lines, state, Probabilities(0.98, 0.01, 0.01))
    assert sure.allow > taught.read(lines, state, EVEN).allow
    impossible = taught.read(lines, state, Probabilities(0.0, 0.0, 1.0))
    assert 0 < impossible.allow < 0.01, "a share of nothing is no infinity"


def test_the_structured_fields_are_told_apart() -> None:
    asked = situation(
        1,
        alarm=False,
        action_type="Deploy",
        actor_role="member",
        resource="env:production/payments",
        identity_metrics={"level": 4, "coherence": 0.3, "trend": "declining"},
        timestamp="2026-12-13T03:41:00Z",
        recent_history=["one"],
        details=None,
        remark="hello",
    )
    named = features(write(asked, legacy=Decision.REQUIRE_ATTESTATION), EVEN)
    assert named.keys() - {name for name in named if name.startswith(("trust.", "own."))} == {
        "action=deploy",
        "role=member",
        "has=resource",
        "resource=env",
        "resource=env:production",
        "has=identity_metrics",
        "identity.coherence",
        "identity.level=4",
        "identity.trend=declining",
        "has=timestamp",
        "hours=night",
        "has=recent_history",
        "has=extra",
        "legacy=require_attestation",
    }
    assert named["trust.lowest"] == asked.trust.lowest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.head.json"
    path.write_bytes(msgspec.json.encode(head(**{"legacy=deny": (1.0, 0.0, -1.0)})))
    return path


def test_a_heads_file_is_json_that_names_its_basis_and_its_features(file: Path) -> None:
    plain = json.loads(file.read_text())
    assert plain["format"] == "phasegate-head-1"
    assert plain["basis"].keys() == {"model_sha256", "adapter_sha256", "prompt_sha256", "layout"}
    assert plain["fields"][0]["name"] == "legacy=deny"
    assert Head.load(file) == head(**{"legacy=deny": (1.0, 0.0, -1.0)})


def _spoil(plain: dict[str, Any], key: str, value: Any) -> None:
    plain[key] = value


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plain: _spoil(plain, "format", "phasegate-head-2"),
        lambda plain: _spoil(plain, "classes", ["allow", "require_attestation", "deny"]),
        lambda plain: _spoil(plain, "temperature", 0),
        lambda plain: _spoil(plain, "threshold", 2),
        lambda plain: _spoil(plain, "code", "import os"),
        lambda plain: _spoil(plain["hidden"], "mean", [0.0, 0.0]),
        lambda plain: _spoil(plain["fields"][0], "scale", 0.0),
        lambda plain: plain.pop("basis"),
    ],
)
def test_a_tampered_head_is_refused(file: Path, spoil: Callable[[dict[str, Any]], object]) -> None:
    plain = json.loads(file.read_text())
    spoil(plain)
    file.write_text(json.dumps(plain))
    with pytest.raises(PolicyError, match=r"some\.head\.json"):
        Head.load(file)


def test_a_file_that_is_no_json_is_refused(file: Path) -> None:
    file.write_bytes(b"\x80\x04pickle")
    with pytest.raises(PolicyError, match="is no head"):
        Head.load(file)


@pytest.mark.parametrize("name", ["model_sha256", "adapter_sha256", "prompt_sha256", "layout"])
def test_a_head_of_another_basis_is_refused(parent: ModelVersion, rests_on: Basis, name: str) -> None:
    fitting = msgspec.structs.replace(head(), basis=rests_on)
    fitting.require_basis(parent, model_sha256="1" * 64, adapter_sha256="2" * 64)
    other = msgspec.structs.replace(rests_on, **{name: "f" * 64})
    with pytest.raises(PolicyError, match=name):
        msgspec.structs.replace(head(), basis=other).require_basis(
            parent, model_sha256="1" * 64, adapter_sha256="2" * 64
        )
