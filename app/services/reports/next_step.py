"""What should a person do next with a rollout?"""

from app.domain.counters import Metric
from app.learning.corrections import EXAMPLES_AT_LEAST
from app.services.reports.facts import RolloutFacts

REVIEW_THE_PROMPT = 0.15  # overrides above this
_JUDGED_AT_LEAST = 30


def next_step(one: RolloutFacts) -> str:
    """One sentence: harm before all, then what waits for a person, then what the evidence carries."""
    document, name = one.document, one.name
    if document["kill_switch"]:
        return "find why the kill switch was engaged, then release it: phasegate kill release"
    if one.state.investigation is not None and one.state.investigation.is_open:
        return f"close the investigation: phasegate investigation {name} --cause … --fix …"
    for guardrail in document["guardrails"]:
        if guardrail["outcome"] in ("breach", "error"):
            return f"look into the guardrail {guardrail['name']}: {guardrail['sentence']}"
    if one.state.held:
        return f"end the hold when its reason is gone ({one.state.hold_reason}): phasegate resume {name}"
    return _learning(one) or _promotion(one)


def _learning(one: RolloutFacts) -> str | None:
    rate, judged = one.now.override_rate, one.now.n(Metric.REVIEWED)
    if rate is not None and judged >= _JUDGED_AT_LEAST and rate > REVIEW_THE_PROMPT:
        return f"review the prompt or add examples: overrides {rate:.0%} of {judged} judged"
    corrections = one.now.n(Metric.OVERRIDDEN)
    if corrections >= EXAMPLES_AT_LEAST:
        return f"train: {corrections} corrections (phasegate learn {one.name})"
    return None


def _promotion(one: RolloutFacts) -> str:
    gate = one.document["gate"]
    if one.state.exposure < 1:
        return f"widen the exposure from {one.state.exposure:.0%} when it has been quiet: phasegate exposure {one.name}"
    if gate is None:
        return f"nothing: {one.document['status']['sentence']}"
    if gate["outcome"] == "pass":
        return f"promote {one.name} to {gate['to']}: all conditions hold"
    missing = [each["sentence"] for each in gate["conditions"] if each["outcome"] == gate["outcome"]]
    others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    if gate["outcome"] == "insufficient":
        return f"wait for evidence for {gate['to']}: {missing[0]}{others}"
    return f"mend what speaks against {gate['to']}: {missing[0]}{others}"
