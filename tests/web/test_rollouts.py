"""What do rollouts look like over HTTP, and how do the levers refuse?"""

from typing import Any

import pytest

from app.domain.limits import Guardrail
from app.domain.phase import Phase
from app.store import tables as t
from app.store.transaction import CounterKey, Transaction
from tests.services.plane import Stage
from tests.services.test_levers import with_evidence

ROLLOUT = {
    "name", "actions", "when", "risk", "phase", "exposure", "ceiling", "revision", "epoch_started_at", "version",
    "candidate", "previous", "held", "kill_switch", "investigation", "status",
}  # fmt: skip
CONDITION = {"name", "outcome", "value", "bound", "limit", "n", "needed", "eta", "sentence"}
GUARDRAIL = {
    "name", "outcome", "action", "dry_run", "e_value", "threshold", "rate", "limit", "n", "trail", "pending", "sentence",
}  # fmt: skip
EVIDENCE = {
    "rollout", "version", "epoch_started_at", "decisions", "observed", "agreement", "confusion", "overrides",
    "errors", "latency_ms", "distribution", "fallbacks",
}  # fmt: skip
TRANSITION = {
    "id",
    "actor_name",
    "sentence",
    "rollout",
    "at",
    "kind",
    "from",
    "to",
    "actor",
    "automatic",
    "reason",
    "evidence",
    "revision",
}
GATE = {"rollout", "to", "outcome", "sentence", "conditions"}


async def get(stage: Stage, path: str) -> dict[str, Any]:
    response = await stage.call("GET", path, who="auditor")
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def turn(stage: Stage, lever: str, *, who: str = "operator", **body: object) -> Any:
    return await stage.call("POST", f"/v1/rollouts/read/{lever}", {"reason": "a drill", **body}, who=who)


async def test_a_rollout_has_every_member(stage: Stage) -> None:
    listed = (await get(stage, "/v1/rollouts"))["rollouts"]
    assert [one["name"] for one in listed] == ["read", "write", "deploy", "admin", "other"]
    one = await get(stage, "/v1/rollouts/read")
    for document in (*listed, one):
        assert document.keys() >= ROLLOUT
        assert document["status"].keys() == {"state", "sentence", "brief", "more"}
    assert one["revision"] == 1
    assert one["gate"].keys() == GATE
    assert len(one["guardrails"]) == len(Guardrail)


@pytest.mark.parametrize(("judged", "suggests"), [(49, False), (50, True)])
async def test_verdicts_enough_to_learn_from_are_pointed_out(
    stage: Stage, judged: int, *, suggests: bool
) -> None:
    state, minute = stage.state("read"), stage.services.now_us() // 60_000_000

    def work(tx: Transaction) -> None:
        for metric in ("drawn", "reviewed"):
            key = CounterKey("read", state.version, state.epoch, minute, metric, "agreement:0")
            tx.count(key, judged)

    await stage.ledger.run(work)
    suggestion = (await get(stage, "/v1/rollouts/read"))["suggestion"]
    assert (suggestion is not None and "phasegate learn read" in suggestion) is suggests


async def test_an_investigation_has_every_member(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    document = (await turn(stage, "rollback")).json()
    assert document["investigation"].keys() >= {"id", "opened_at", "cause", "closed_at"}
    assert document["transition"].keys() == TRANSITION


@pytest.mark.parametrize("observed", [False, True])
async def test_a_gate_and_its_conditions_have_every_member(stage: Stage, *, observed: bool) -> None:
    if observed:
        await with_evidence(stage)
    gate = await get(stage, "/v1/rollouts/read/gate?to=advisory")
    assert gate.keys() == GATE
    assert gate["outcome"] == ("pass" if observed else "insufficient")
    assert all(one.keys() == CONDITION and one["sentence"] for one in gate["conditions"])


async def test_a_gate_is_the_next_one_where_none_is_named(stage: Stage) -> None:
    assert (await get(stage, "/v1/rollouts/read/gate"))["to"] == "advisory"
    await stage.enter("read", Phase.ADVISORY)
    assert (await get(stage, "/v1/rollouts/read/gate"))["to"] == "enforced"


async def test_a_gate_above_the_ceiling_never_opens(stage: Stage) -> None:
    gate = await get(stage, "/v1/rollouts/admin/gate?to=enforced")
    assert (gate["outcome"], gate["sentence"]) == ("fail", "admin never goes past advisory")


async def test_there_is_no_gate_to_shadow(stage: Stage) -> None:
    assert (await stage.call("GET", "/v1/rollouts/read/gate?to=shadow")).status_code == 422


async def test_guardrails_have_every_member_before_and_after_they_were_judged(stage: Stage) -> None:
    for rollout in ("read", "deploy"):
        await stage.enter(rollout, Phase.ENFORCED)
    for _ in range(2):
        document = await get(stage, "/v1/rollouts/deploy/guardrails")
        assert document.keys() == {"rollout", "guardrails"}
        assert all(one.keys() == GUARDRAIL and one["sentence"] for one in document["guardrails"])
        await stage.decide("deploy")
        await stage.looks()


@pytest.mark.parametrize("observed", [False, True])
async def test_evidence_has_every_member(stage: Stage, *, observed: bool) -> None:
    if observed:
        await with_evidence(stage)
    evidence = await get(stage, "/v1/rollouts/read/evidence")
    assert evidence.keys() >= EVIDENCE
    assert evidence["agreement"].keys() >= {"n", "agreed", "rate", "lower"}
    assert evidence["overrides"].keys() >= {"reviewed", "overridden", "rate", "upper"}
    assert evidence["errors"].keys() >= {"n", "bad", "rate", "by_outcome"}
    assert evidence["latency_ms"].keys() == {"p50", "p95", "p99"}
    assert evidence["confusion"] == ({"allow>allow": 12} if observed else {})
    assert evidence["decisions"] == (12 if observed else 0)
    assert evidence["epoch_started_at"] == "2027-01-15T09:00:00.000000Z"


async def test_a_transition_has_every_member(stage: Stage) -> None:
    await turn(stage, "hold")
    (transition,) = (await get(stage, "/v1/rollouts/read/transitions"))["transitions"]
    assert transition.keys() == TRANSITION
    assert (transition["kind"], transition["from"]["held"], transition["to"]["held"]) == ("hold", False, True)
    assert transition["actor"] == stage.principal("operator").key_id
    assert (await get(stage, "/v1/audit"))["transitions"] == [transition]


async def test_a_promotion_answers_with_the_rollout_as_it_is_now(stage: Stage) -> None:
    await with_evidence(stage)
    response = await turn(stage, "promote", to="advisory", expected_revision=1, who="approver")
    document = response.json()
    assert response.status_code == 200, response.text
    assert (document["phase"], document["exposure"], document["revision"]) == ("advisory", 0.5, 2)
    assert document["transition"]["evidence"].keys() == GATE


async def test_a_gate_that_is_not_met_is_409_with_the_whole_gate(stage: Stage) -> None:
    response = await turn(stage, "promote", to="advisory", expected_revision=1)
    problem = response.json()
    assert (response.status_code, problem["type"]) == (409, "gate-not-met")
    assert problem["gate"].keys() == GATE
    assert problem["gate"] == await get(stage, "/v1/rollouts/read/gate?to=advisory")
    assert problem["detail"] == problem["gate"]["sentence"]
    assert stage.rows(t.transitions) == 0


@pytest.mark.parametrize("lever", ["promote", "exposure"])
async def test_a_revision_that_moved_is_409_and_says_which_it_is(stage: Stage, lever: str) -> None:
    body = {"to": "advisory"} if lever == "promote" else {"exposure": 0.1}
    response = await turn(stage, lever, expected_revision=9, **body)
    problem = response.json()
    assert (response.status_code, problem["type"]) == (409, "revision-conflict")
    assert (problem["expected_revision"], problem["revision"]) == (9, 1)


async def test_a_ceiling_is_403(stage: Stage) -> None:
    await stage.enter("admin", Phase.ADVISORY)
    body = {"to": "enforced", "reason": "please", "expected_revision": 2}
    response = await stage.call("POST", "/v1/rollouts/admin/promote", body)
    problem = response.json()
    assert (response.status_code, problem["type"]) == (403, "ceiling")
    assert (problem["rollout"], problem["ceiling"]) == ("admin", "advisory")


@pytest.mark.parametrize(
    ("lever", "body", "fields"),
    [
        ("promote", {"to": "up", "expected_revision": 1}, ["to"]),
        ("promote", {"to": "advisory"}, ["expected_revision"]),
        ("promote", {"to": "advisory", "expected_revision": 1, "force": True}, ["force"]),
        ("promote", {"to": "advisory", "expected_revision": "one"}, ["expected_revision"]),
        ("hold", {"reason": " "}, ["reason"]),
        ("hold", {"reason": "a\x00b"}, ["reason"]),
        ("rollback", {"reason": None}, ["reason"]),
        ("rollback", {"expected_revision": 1}, ["expected_revision"]),
        ("exposure", {"exposure": 2}, ["exposure"]),
        ("exposure", {"exposure": "all"}, ["exposure"]),
        ("ramp", {"action": "start"}, ["expected_revision"]),
        ("ramp", {"action": "pause"}, ["action"]),
        ("investigation", {"cause": "model"}, ["reason"]),
    ],
)
async def test_a_lever_names_what_is_wrong(
    stage: Stage, lever: str, body: dict[str, object], fields: list[str]
) -> None:
    response = await stage.call("POST", f"/v1/rollouts/read/{lever}", {"reason": "a drill", **body})
    assert (response.status_code, response.json()["type"]) == (422, "invalid-input"), response.text
    assert [error["field"] for error in response.json()["errors"]] == fields
    assert response.json()["detail"].startswith(f"{fields[0]}: ")


@pytest.mark.parametrize(("cause", "fix"), [("model", " "), ("model", "a\x00b"), ("rain", "umbrella")])
async def test_an_investigation_is_closed_with_words_that_can_be_kept(
    stage: Stage, cause: str, fix: str
) -> None:
    response = await stage.call("POST", "/v1/rollouts/read/investigation", {"cause": cause, "fix": fix})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == ("cause" if cause == "rain" else "fix")


async def test_a_ramp_is_started_shown_and_stopped(stage: Stage) -> None:
    entered = await stage.enter("read", Phase.ENFORCED, exposure=0.5)
    started = await turn(stage, "ramp", action="start", expected_revision=entered.revision)
    ramp = started.json()["ramp"]
    assert (started.status_code, ramp["state"], ramp["step"], ramp["next"]) == (200, "running", 0.5, 1.0)
    assert {condition["name"] for condition in ramp["conditions"]} >= {
        "served",
        "observations",
        "sample_ratio",
    }
    assert all(condition.keys() == CONDITION for condition in ramp["conditions"])
    again = await turn(stage, "ramp", action="start", expected_revision=entered.revision + 1)
    assert (again.status_code, again.json()["type"]) == (409, "ramp-running")
    stopped = await turn(stage, "ramp", action="stop")
    assert (stopped.json()["ramp"]["state"], stopped.json()["exposure"]) == ("stopped", 0.5)


async def test_an_investigation_is_closed_once(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await turn(stage, "rollback")
    body = {"cause": "model", "fix": "retrained"}
    closed = await stage.call("POST", "/v1/rollouts/read/investigation", body)
    assert (closed.status_code, closed.json()["investigation"]["cause"]) == (200, "model")
    again = await stage.call("POST", "/v1/rollouts/read/investigation", body)
    assert (again.status_code, again.json()["type"]) == (409, "no-investigation")


async def test_the_kill_switch_shows_in_every_rollout(stage: Stage) -> None:
    before = [one["status"]["brief"] for one in (await get(stage, "/v1/rollouts"))["rollouts"]]
    response = await stage.call(
        "POST", "/v1/kill-switch", {"engaged": True, "reason": "fire"}, who="operator"
    )
    assert response.json()["transition"].keys() == TRANSITION
    after = (await get(stage, "/v1/rollouts"))["rollouts"]
    assert all(one["kill_switch"] for one in after)
    assert [one["status"]["brief"] for one in after] == before
    refused = await stage.call("POST", "/v1/kill-switch", {"engaged": False, "reason": "out"}, who="operator")
    assert (refused.status_code, refused.json()["type"]) == (403, "role")


@pytest.mark.parametrize("path", ["", "/gate", "/guardrails", "/evidence", "/transitions"])
async def test_an_unknown_rollout_is_404(stage: Stage, path: str) -> None:
    response = await stage.call("GET", f"/v1/rollouts/nowhere{path}")
    assert (response.status_code, response.json()["type"]) == (404, "not-found")


async def test_the_states_of_a_rollout_are_told_in_one_sentence(stage: Stage) -> None:
    async def status(name: str) -> tuple[str, str]:
        said = (await get(stage, f"/v1/rollouts/{name}"))["status"]
        return said["state"], said["sentence"]

    state, sentence = await status("read")
    assert (state, sentence.startswith("not yet ready for advisory: agreement")) == ("not_yet", True)
    await with_evidence(stage)
    assert (await status("read"))[0] == "ready"
    await turn(stage, "hold")
    assert await status("read") == ("held", "held: a drill")
    await stage.enter("admin", Phase.ADVISORY)
    assert await status("admin") == ("at_ceiling", "at its ceiling: advisory")


async def test_policies_are_diffed_and_applied_by_two_people(stage: Stage) -> None:
    path = stage.files.policies_dir / "rollouts.yaml"
    path.write_text(path.read_text().replace("agreement_above: 0.5, soak_days: 2", "agreement_above: 0.4"))
    plan = await get(stage, "/v1/policies/diff")
    assert {(one["rollout"], one["loosens"]) for one in plan["changes"]} == {("write", True)}
    assert (await stage.call("POST", "/v1/policies/apply", who="admin")).json()["status"] == "proposed"
    own = await stage.call("POST", "/v1/policies/apply", who="admin")
    assert (own.status_code, own.json()["type"]) == (403, "own-request")
    assert (await stage.call("POST", "/v1/policies/apply", who="approver")).json()["status"] == "applied"


async def test_a_policy_file_with_a_typo_is_422_with_its_place(stage: Stage) -> None:
    path = stage.files.policies_dir / "rollouts.yaml"
    path.write_text(path.read_text().replace("risk: medium", "rsik: medium"))
    response = await stage.call("GET", "/v1/policies/diff")
    assert (response.status_code, response.json()["type"]) == (422, "policy-error")
    assert "rollouts.yaml:" in response.json()["detail"]


async def test_versions_say_which_one_is_loaded(stage: Stage) -> None:
    (version,) = (await get(stage, "/v1/versions"))["versions"]
    assert version.keys() >= {
        "id", "state", "model", "model_sha256", "prompt", "prompt_sha256", "adapter", "settings", "calibration",
        "parent", "created_at",
    }  # fmt: skip
    assert (version["id"], version["state"]) == ("fake-1", "active")


async def test_the_chain_is_verified_over_http(stage: Stage) -> None:
    await stage.decide()
    assert (await get(stage, "/v1/audit/verify"))["ok"] is True


async def test_a_drill_reaches_the_model(stage: Stage) -> None:
    response = await stage.call("POST", "/v1/drills/fault", {"fault": "hang"})
    assert (response.status_code, stage.model.faults) == (200, ["hang"])


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"reason": "x", "expected_revision": 1}, "to", "is required"),
        (
            {"to": "advisory", "reason": 5, "expected_revision": 1},
            "reason",
            "must be text, not a whole number",
        ),
        (
            {"to": "advisory", "reason": "x", "expected_revision": 1, "force": True},
            "force",
            "is not a member here",
        ),
    ],
)
async def test_a_wrong_body_is_told_in_plain_words(
    stage: Stage, body: dict[str, object], field: str, message: str
) -> None:
    response = await stage.call("POST", "/v1/rollouts/read/promote", body)
    [error] = response.json()["errors"]
    assert (response.status_code, error["field"], error["message"]) == (422, field, message)


@pytest.mark.parametrize("fault", ["bogus", "slow:abc"])
async def test_a_fault_that_there_is_none_of_is_refused_by_name(stage: Stage, fault: str) -> None:
    response = await stage.call("POST", "/v1/drills/fault", {"fault": fault})
    assert (response.status_code, stage.model.faults) == (422, [])
    assert response.json()["errors"][0]["field"] == "fault"


async def test_transitions_are_followed_as_events(stage: Stage) -> None:
    news = await stage.told(stage.services.notices.follow(), 1)
    await turn(stage, "hold")
    ((kind, body),) = await news
    assert (kind, body["kind"], body["rollout"]) == ("transition", "hold", "read")
