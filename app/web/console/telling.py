"""How did the answer that is in force come about, in words?"""

from collections.abc import Iterator, Mapping
from typing import Any

from app.domain.advisory import Outcome
from app.domain.decision import AnsweredBy, Decision
from app.domain.phase import Phase
from app.domain.rollout import Combine
from app.domain.routing import FallbackReason, combined
from app.web.console.wording import moment, percent, words

Story = Mapping[str, Any]

WHY = {
    FallbackReason.TIMEOUT: "the model did not answer within the deadline",
    FallbackReason.MALFORMED: "the model's answer could not be read",
    FallbackReason.UNSURE: "the model was less sure than the policy asks for",
    FallbackReason.UNAVAILABLE: "the model was not there to be asked",
    FallbackReason.OVERLOADED: "the model had more to do than it could",
    FallbackReason.CIRCUIT_OPEN: "the model had failed several times in a row and was left alone for a while",
    FallbackReason.KILL_SWITCH: "the kill switch was engaged",
    FallbackReason.STALE_STATE: "this server could not be sure how the rollout stood",
    FallbackReason.OVERSIZE: "the situation was too long for the model",
}


def told(story: Story) -> list[str]:
    """Sentences in the order in which things happened; what is withheld from the reader is not told."""
    return list(_told(story))


def _told(story: Story) -> Iterator[str]:
    legacy, first = story["legacy"], story["first_answer"]
    if not story["exposed"]:
        yield f"The rollout was one phase higher, but not for this actor yet: {story['phase']} applied."
    if legacy is not None:
        yield _legacy_said(legacy)
    if first is None:
        yield "What the model said, and what the caller got, is shown once you have judged it."
        return
    if story["hidden"]:
        yield "What the model said is shown once you have judged it."
    elif story["advisory"] is not None:
        yield _model_said(story["advisory"])
    yield _routed(story)
    if _is_raised(story):
        yield "The policy asks for a person here, so that allow became require attestation."
    yield from _judged(story)


def _legacy_said(legacy: Mapping[str, Any]) -> str:
    if legacy["error"]:
        return f"The legacy engine failed ({legacy['error']}), which counts as deny."
    by = f" by its rule {legacy['rule']}" if legacy["rule"] else ", as no rule of it matched"
    return f"The legacy engine said {words(legacy['decision'])}{by}."


def _model_said(advisory: Mapping[str, Any]) -> str:
    if advisory["decision"] is None:
        return f"The model gave no answer: {words(advisory['outcome'])}."
    how = "said" if advisory["outcome"] == Outcome.OK else "was unsure, leaning to"
    sure = "" if advisory["confidence"] is None else f" at {percent(advisory['confidence'], 0)}"
    return f"The model {how} {words(advisory['decision'])}{sure}."


def _routed(story: Story) -> str:
    """Whose answer the caller got, and by what rule."""
    if story["phase"] != Phase.ENFORCED:
        return f"In {story['phase']} the legacy engine's answer counts; the model only looks on."
    if story["fallback_reason"] is not None:
        return f"The model should have answered, but {WHY[FallbackReason(story['fallback_reason'])]}: the legacy engine's answer counts."
    if story["first_answer"]["answered_by"] == AnsweredBy.FAIL_SAFE:
        return "Without the legacy engine nothing is permitted, whatever the model says."
    if story["combine"] == Combine.STRICTER:
        return "Enforced with combine: stricter, the more severe of both answers counts."
    if _raw(story) is Decision.REQUIRE_ATTESTATION and story["advisory"]["decision"] == Decision.ALLOW:
        return "Enforced with combine: model, its allow over a legacy deny becomes require attestation."
    return "Enforced with combine: model, the model's answer counts."


def _is_raised(story: Story) -> bool:
    """Whether a person has to confirm an allow: by `approval: human`, or as a fallback on high risk."""
    return story["first_answer"]["decision"] == Decision.REQUIRE_ATTESTATION and _raw(story) is Decision.ALLOW


def _raw(story: Story) -> Decision | None:
    """What the engines' answers alone come to."""
    legacy, advisory = story["legacy"], story["advisory"]
    if legacy is None or legacy["error"]:
        return None
    rules = Decision(legacy["decision"])
    by_rules = story["phase"] != Phase.ENFORCED or story["fallback_reason"] is not None
    if by_rules or advisory is None or advisory["decision"] is None:
        return rules
    return combined(Combine(story["combine"]), rules, Decision(advisory["decision"])).decision


def _judged(story: Story) -> Iterator[str]:
    review = story["review"]
    if review is None or review["kind"] != "binding":
        return
    if review["status"] == "open":
        yield f"It waits for a person until {moment(review['expires_at'])} UTC; after that it is denied."
    elif review["status"] == "expired":
        yield "Nobody judged it in time, so it is denied."
    elif story["decision"] is not None:
        until = f", valid until {moment(story['valid_until'])} UTC" if "valid_until" in story else ""
        yield f"A reviewer then said {words(story['decision'])}, which is in force{until}."


def verdicts_of(story: Story) -> list[dict[str, Any]]:
    """Its verdicts oldest first, each with who gave it and, in `gone`, what became of it since."""
    verdicts = story["verdicts"]
    after = {
        each["supersedes"]: "taken back" if each["decision"] is None else "superseded" for each in verdicts
    }
    return [
        {**each, "who": each["judge_name"] or each["judge"], "gone": after.get(each["id"])}
        for each in verdicts
    ]
