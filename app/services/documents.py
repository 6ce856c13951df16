"""What does a decision look like on the wire, fresh or remembered?"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, RowMapping

from app.domain.advisory import Advisory, Reasoning
from app.domain.clock import rfc3339, rfc3339_or_none
from app.domain.decision import AnsweredBy, Decision
from app.domain.phase import Phase
from app.domain.sampling import ReviewMode
from app.store.decisions import advisory_wire, find, verdicts_of
from app.store.reviews import Judge, asked_as, asked_until_us

# What the wire has as a row or a value has it.
_DECISION = (
    *("id", "decision", "rollout", "phase", "exposed", "answered_by", "fallback_reason", "combine"),
    *("version", "revision", "latency_ms"),
)
_LEGACY = ("engine", "decision", "rule", "latency_ms")
_ADVISORY = (
    "version",
    "outcome",
    "decision",
    "confidence",
    "coverage",
    "latency_ms",
    "prompt_tokens",
    "cached",
)
_REVIEW = ("id", "decision_id", "rollout", "phase", "version", "kind", "claimed_by")


def decision_document(
    row: Mapping[Any, Any], *, advisory: dict[str, Any] | None, review: dict[str, Any] | None
) -> dict[str, Any]:
    """The `decision` shape from a row of `decisions`, its first answer in force."""
    legacy = None
    if row["legacy_engine"] is not None:
        legacy = {name: row[f"legacy_{name}"] for name in (*_LEGACY, "error")}
    return {
        **{name: row[name] for name in _DECISION},
        "created_at": rfc3339(row["created_us"]),
        "final": review is None or review["kind"] != "binding" or review["status"] != "open",
        "legacy": legacy,
        "advisory": advisory,
        "review": review,
    }


def remembered_decision(row: Mapping[Any, Any], *, now_us: int) -> dict[str, Any]:
    """The `decision` shape of a stored decision, with the answer that is in force now."""
    review = None
    if row["review_id"] is not None:
        review = {"id": row["review_id"], "status": row["review_status"], "kind": row["review_kind"]}
    document = decision_document(row, advisory=advisory_wire(row), review=review)
    if review is None or review["kind"] != "binding":
        return document
    expires_at = rfc3339(row["review_due_us"])
    if review["status"] == "judged":
        document.update(decision=row["review_verdict"], answered_by=AnsweredBy.REVIEWER)
        if row["review_verdict"] == Decision.ALLOW:
            document["valid_until"] = rfc3339(
                row["review_judged_us"] + row["review_due_us"] - row["created_us"]
            )
    elif review["status"] == "expired" or row["review_due_us"] <= now_us:
        review["status"] = "expired"
        document.update(decision=Decision.DENY, answered_by=AnsweredBy.FAIL_SAFE, final=True)
    else:
        review["expires_at"] = expires_at
    return document


def fresh_advisory(advisory: Advisory, reasoning: Reasoning | None) -> dict[str, Any]:
    """The `advisory` member of a decision that was just made."""
    p = advisory.probabilities
    return {
        **{name: getattr(advisory, name) for name in _ADVISORY},
        "probabilities": None if p is None else asdict(p),
        "reasoning": None if reasoning is None else reasoning.text,
        "generated": None if reasoning is None else reasoning.generated,
        "attributions": None if reasoning is None else attributions(reasoning),
    }


def attributions(reasoning: Reasoning) -> list[dict[str, Any]] | None:
    return None if reasoning.attributions is None else [asdict(each) for each in reasoning.attributions]


def reasoning_body(reasoning: Reasoning) -> str:
    """What the `reasonings` table keeps."""
    return json.dumps(asdict(reasoning))


def situation_document(row: Mapping[Any, Any]) -> dict[str, Any] | None:
    """What the caller asked, or None where it was erased."""
    body = row["situation"]
    return None if body is None else dict(json.loads(body))


def review_document(connection: Connection, row: RowMapping, judge: Judge) -> dict[str, Any]:
    """The `review` shape; a review that waits shows no verdict, and a blind one not the model's opinion.

    To those who may be its second or third judge a review is open, and blind.
    """
    wide = find(connection, row["decision_id"])
    assert wide is not None
    asked = asked_as(connection, row, judge)
    waits = asked is not None or row["status"] == "open"
    blind = asked is not None or (waits and row["mode"] == ReviewMode.BLIND)
    return {
        **{name: row[name] for name in _REVIEW},
        "created_at": rfc3339(row["created_us"]),
        "status": "open" if asked else row["status"],
        "mode": ReviewMode.BLIND if asked else row["mode"],
        "asked_as": asked or "first",
        "conflict": row["third_status"] is not None,
        "situation": situation_document(row),
        "legacy": {name: row[f"legacy_{name}"] for name in _LEGACY},
        # How likely it was to be drawn depends on whether model and rules agree.
        "inclusion_probability": None if blind else row["inclusion_probability"],
        # Enforced, what the caller was told is the model's opinion or tells it.
        "decision": None if blind and row["phase"] == Phase.ENFORCED else row["first_decision"],
        "advisory": None if blind else advisory_wire(wide),
        "verdicts": [] if waits else verdicts_of(connection, row["decision_id"]),
        "claimed_by_me": row["claimed_by"] == judge.key_id,
        "claim_expires_at": rfc3339_or_none(row["claim_expires_us"]),
        "expires_at": rfc3339(asked_until_us(connection, row, asked) if asked else row["due_us"]),
    }
