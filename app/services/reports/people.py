"""What do the period's verdicts tell of reviewers and of the model?"""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import Any

from sqlalchemy import RowMapping

from app.domain.clock import rfc3339
from app.domain.decision import Category, Decision, difference
from app.domain.reliability import ac1, raw_agreement
from app.domain.sampling import ReviewMode
from app.store.reviews import Backlog

EDGES_AT_MOST = 50


def is_override(row: RowMapping) -> bool:
    return row["llm_decision"] is not None and row["llm_decision"] != row["decision"]


def category_of(row: RowMapping) -> Category:
    """How an override differs: by the person's word, else by which answer is the stricter."""
    if row["category"] in (Category.MODEL_TOO_STRICT, Category.MODEL_TOO_PERMISSIVE, Category.UNCLEAR):
        return Category(row["category"])
    return difference(Decision(row["llm_decision"]), Decision(row["decision"]))


def by_mode(verdicts: Sequence[RowMapping]) -> dict[str, dict[str, Any]]:
    """Agreement with the model and seconds from claim to verdict, blind and with the advisory before one's eyes.

    A second verdict is blind whatever the review was, and left out; reviews that nobody claimed have no time.
    """
    found = {}
    for mode in ReviewMode:
        own = [row for row in verdicts if row["mode"] == mode and row["source"] == "review"]
        judged = [row for row in own if row["llm_decision"] is not None]
        spans = [
            (row["created_us"] - row["claimed_us"]) / 1e6 for row in own if row["claimed_us"] is not None
        ]
        agreed = sum(not is_override(row) for row in judged)
        found[mode.value] = {
            "judged": len(judged),
            "agreement": agreed / len(judged) if judged else None,
            "timed": len(spans),
            "median_s": median(spans) if spans else None,
        }
    return found


def doubles(counted: Mapping[str, int]) -> dict[str, Any]:
    """How two people who judged the same blind agree, by how often each `first>second` was said."""
    pairs = {}
    for label, n in counted.items():
        first, second = label.split(">")
        pairs[Decision(first), Decision(second)] = max(n, 0)  # what was undone may lie before the period
    return {"n": sum(pairs.values()), "agreement": raw_agreement(pairs), "ac1": ac1(pairs)}


def waiting(backlog: Mapping[str, Backlog]) -> list[dict[str, Any]]:
    return [
        {"rollout": name, "n": seen.open, "late": seen.late, "since": rfc3339(seen.oldest_us)}
        for name, seen in backlog.items()
    ]


def edge_cases(verdicts: Sequence[RowMapping]) -> list[dict[str, Any]]:
    """Judged decisions that a suite could learn from: people overrode the model, or decided between it and the
    rules. Newest first. What another person still judges blind is left out, and what people disagree on.
    """
    said: defaultdict[str, set[str]] = defaultdict(set)
    for row in verdicts:
        said[row["decision_id"]].add(row["decision"])
    found = {}
    for row in verdicts:
        decision_id, model, legacy = row["decision_id"], row["llm_decision"], row["legacy_decision"]
        verdict = row["decision"]
        waits = "open" in (row["second_status"], row["third_status"])
        if model is None or waits or len(said[decision_id]) > 1:
            continue
        if model != verdict or (model != legacy and verdict in (model, legacy)):
            told = {"model": model, "legacy": legacy, "verdict": verdict, "category": row["category"]}
            found[decision_id] = {"decision_id": decision_id, "rollout": row["rollout"], **told}
    return list(found.values())[:EDGES_AT_MOST]


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
