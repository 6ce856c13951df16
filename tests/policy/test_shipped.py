from pathlib import Path

import pytest

from app.domain.limits import Risk
from app.domain.phase import Phase
from app.domain.rollout import Approval
from app.domain.situation import Situation, Trust
from app.policy.rollouts import load_rollouts

POLICIES = Path(__file__).parents[2] / "policies"
BOTH = pytest.mark.parametrize("file", ["rollouts.yaml", "demo/rollouts.yaml"])


@BOTH
def test_the_shipped_rollouts_are_those_of_the_design(file: str) -> None:
    book = load_rollouts(POLICIES / file)
    assert {policy.name: policy.risk for policy in book.policies} == {
        "read": Risk.LOW,
        "write": Risk.MEDIUM,
        "commit": Risk.MEDIUM,
        "deploy-nonproduction": Risk.HIGH,
        "deploy-production": Risk.HIGH,
        "admin": Risk.CRITICAL,
        "other": Risk.HIGH,
    }


@BOTH
def test_administration_stays_advisory_for_ever_and_asks_a_human(file: str) -> None:
    book = load_rollouts(POLICIES / file)
    for action in ("admin_action", "delete_team", "grant_role"):
        policy = book.match(Situation(action, "admin", "ada", Trust(1, 1, 1)))
        assert (policy.name, policy.ceiling, policy.approval) == ("admin", Phase.ADVISORY, Approval.HUMAN)


@pytest.mark.parametrize(
    ("resource", "rollout"),
    [
        ("env:staging", "deploy-nonproduction"),
        ("env:test-3", "deploy-nonproduction"),
        ("env:dev/ada", "deploy-nonproduction"),
        ("env:production", "deploy-production"),
        ("production-env:dev", "deploy-production"),
        ("ENV:DEV", "deploy-production"),
        ("", "deploy-production"),
        (None, "deploy-production"),
    ],
)
def test_a_deployment_is_nonproduction_only_where_it_says_so(resource: str | None, rollout: str) -> None:
    book = load_rollouts(POLICIES / "rollouts.yaml")
    assert book.match(Situation("deploy", "x", "y", Trust(1, 1, 1), resource=resource)).name == rollout


def test_the_demo_skips_no_condition_of_the_real_gates() -> None:
    real, demo = (
        load_rollouts(POLICIES / file).get("read") for file in ("rollouts.yaml", "demo/rollouts.yaml")
    )
    for phase, limits in real.gates.items():
        for name in ("agreement_above", "override_below", "error_below", "p95_below_ms"):
            asked, shown = getattr(limits, name), getattr(demo.gates[phase], name)
            assert (asked is None) == (shown is None), name
        assert demo.gates[phase].soak_days > 0
