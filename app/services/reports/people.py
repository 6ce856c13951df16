"""What do the period's verdicts tell of reviewers and of the model?"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import RowMapping

from app.domain.clock import rfc3339
from app.domain.decision import Category, Decision
from app.domain.sampling import ReviewMode
from app.store.reviews import Backlog

EDGES_AT_MOST = 50


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from claim to verdict; reviews that nobody claimed have no such time."""

    n: int
    median_s: float | None


def is_override(row: RowMapping) -> bool:
    return row["llm_decision"] is not None and row["llm_decision"] != row["decision"]


def category_of(row: RowMapping) -> Category:
    """How an override differs: by the person's word, else by which answer is the stricter."""
    if row["category"] in (Category.MODEL_TOO_STRICT, Category.MODEL_TOO_PERMISSIVE, Category.UNCLEAR):
        return Category(row["category"])
    milder = Decision(row["llm_decision"]).severity < Decision(row["decision"]).severity
    return Category.MODEL_TOO_PERMISSIVE if milder else Category.MODEL_TOO_STRICT


def decision_times(verdicts: Sequence[RowMapping]) -> dict[ReviewMode, Times]:
    """How long people took, blind and with the advisory before them."""
    found = {}
    for mode in ReviewMode:
        spans = [
            (row["created_us"] - row["claimed_us"]) / 1e6
            for row in verdicts
            if row["mode"] == mode and row["source"] == "review" and row["claimed_us"] is not None
        ]
        found[mode] = Times(len(spans), median(spans) if spans else None)
    return found


def reviewers(verdicts: Sequence[RowMapping], backlog: Mapping[str, Backlog]) -> dict[str, Any]:
    """Times and agreement with the model, blind and assisted apart, and what still waits."""
    by_mode = {}
    for mode, times in decision_times(verdicts).items():
        judged = [
            row
            for row in verdicts  # a second verdict is blind whatever the review was
            if row["mode"] == mode and row["source"] == "review" and row["llm_decision"] is not None
        ]
        agreed = sum(not is_override(row) for row in judged)
        by_mode[mode.value] = {
            "judged": len(judged),
            "agreement": agreed / len(judged) if judged else None,
            "timed": times.n,
            "median_s": times.median_s,
        }
    waiting = [
        {"rollout": name, "n": seen.open, "late": seen.late, "since": rfc3339(seen.oldest_us)}
        for name, seen in backlog.items()
    ]
    return {"by_mode": by_mode, "backlog": waiting}


def edge_cases(verdicts: Sequence[RowMapping]) -> list[dict[str, Any]]:
    """Judged decisions that a suite could learn from: people overrode the model, or decided between it and the
    rules. Newest first. What a second person still judges blind is left out.
    """
    found = []
    for row in verdicts:
        model, legacy, verdict = row["llm_decision"], row["legacy_decision"], row["decision"]
        if model is None or row["second_status"] == "open":
            continue
        if model != verdict or (model != legacy and verdict in (model, legacy)):
            told = {"model": model, "legacy": legacy, "verdict": verdict, "category": row["category"]}
            found.append({"decision_id": row["decision_id"], "rollout": row["rollout"], **told})
    return found[:EDGES_AT_MOST]


def suite_lines(
    cases: Sequence[Mapping[str, Any]], bodies: Mapping[str, str], known: Collection[str]
) -> list[dict[str, Any]]:
    """The cases as lines of a suite file, but for those whose situation was erased or a suite has already.

    `bodies` and `known` are canonical JSON.
    """
    lines = []
    for case in cases:
        body = bodies.get(case["decision_id"])
        if body is None or body in known:
            continue
        why = f"the model said {case['model']}, the rules {case['legacy']}; a person said {case['verdict']}"
        lines.append(
            {
                "id": f"edge-{case['decision_id']}",
                "tags": ["edge"],
                "situation": json.loads(body),
                "expected": case["verdict"],
                "why": why,
            }
        )
    return lines
