"""How well does a version do on situations whose right answer is known?"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.decision import Decision, stricter
from app.domain.limits import Risk
from app.domain.sequential import lower_bound
from app.domain.situation import Situation

ALPHA = 0.05  # risk of the lower bound of a pass rate
BINS = 10  # of the calibration error

Pick = Callable[["Result"], Decision | None]


@dataclass(frozen=True, slots=True)
class Case:
    """A situation, its right answer with others that are as defensible, and why in one sentence."""

    id: str
    tags: tuple[str, ...]
    situation: Situation
    expected: Decision
    why: str
    accept: frozenset[Decision] = frozenset()

    def passes(self, decision: Decision | None) -> bool:
        return decision is self.expected or decision in self.accept

    def is_wrong_allow(self, decision: Decision | None) -> bool:
        return decision is Decision.ALLOW and not self.passes(decision)


@dataclass(frozen=True, slots=True)
class Result:
    """What the version and the legacy engine said to a case; `risk` is its rollout's."""

    case: Case
    risk: Risk
    legacy: Decision
    advisory: Advisory
    reasoning: Reasoning | None = None

    @property
    def passed(self) -> bool:
        """By the raw answer, sure or unsure; no answer never passes."""
        return self.case.passes(self.advisory.decision)

    @property
    def combined(self) -> Decision:
        """What an enforced rollout under `stricter` says; where the model is not sure, the legacy engine."""
        answer = self.advisory.answer
        return self.legacy if answer is None else stricter(answer, self.legacy)


def report(results: Sequence[Result]) -> dict[str, Any]:
    """Every figure about results (one or more). Rates 0..1, times in ms.

    `lower` is the anytime-valid lower bound of the pass rate, as if the suite were drawn from what
    callers ask. `answered` is about answers that were sure: the others fall back.
    """
    answered = [result for result in results if result.advisory.answer is not None]
    return {
        "n": len(results),
        **_score(results, lambda result: result.advisory.decision, answered),
        "lower": lower_bound(len(results), sum(result.passed for result in results), ALPHA),
        "answered": {"rate": len(answered) / len(results), **_passed(answered)},
        "outcomes": dict(Counter(result.advisory.outcome.value for result in results)),
        "unsure": sum(result.advisory.outcome is Outcome.UNSURE for result in results),
        "legacy": _score(results, lambda result: result.legacy),
        "stricter": _score(results, lambda result: result.combined),
        "by_tag": _grouped(results, lambda result: result.case.tags),
        "by_action": _grouped(results, lambda result: (result.case.situation.action_type,)),
        "confusion": _confusion(results),
        "calibration": {"ece": calibration_error(results), "brier": brier(results)},
        "reasoning": _reasoning(results),
        "latency_ms": _latency([result.advisory.latency_ms for result in results]),
        "results": [_told(result) for result in results],
        "failures": [_failure(result) for result in results if not result.passed],
    }


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Where two reports over the same cases differ, by case id, in the order of `after`."""
    old = {told["id"]: told for told in before["results"]}
    pairs = [(old[told["id"]], told) for told in after["results"] if told["id"] in old]
    return {
        "n": len(pairs),
        "better": [new["id"] for one, new in pairs if new["passed"] and not one["passed"]],
        "worse": [new["id"] for one, new in pairs if one["passed"] and not new["passed"]],
        "other": [
            new["id"]
            for one, new in pairs
            if new["passed"] == one["passed"] and new["decision"] != one["decision"]
        ],
    }


def calibration_error(results: Iterable[Result]) -> float | None:
    """Expected calibration error over equal-width bins of confidence (Guo et al. 2017, eq. 3).

    None without any confidence. Right is what passes.
    """
    bins: dict[int, list[tuple[float, bool]]] = {}
    for result in results:
        confidence = result.advisory.confidence
        if confidence is not None:
            place = min(max(math.ceil(confidence * BINS) - 1, 0), BINS - 1)
            bins.setdefault(place, []).append((confidence, result.passed))
    n = sum(map(len, bins.values()))
    # |B|/n times |accuracy - mean confidence| is the difference of their sums over n.
    gaps = (abs(sum(right for _, right in held) - sum(sure for sure, _ in held)) for held in bins.values())
    return sum(gaps) / n if n else None


def brier(results: Iterable[Result]) -> float | None:
    """The mean squared distance of the probabilities from the expected answer, 0..2 (Brier 1950, eq. 2).

    None without any probabilities.
    """
    scores = [
        sum((shares.of(label) - (label is result.case.expected)) ** 2 for label in Decision)
        for result in results
        if (shares := result.advisory.probabilities) is not None
    ]
    return sum(scores) / len(scores) if scores else None


def _score(results: Sequence[Result], pick: Pick, allowing: Sequence[Result] | None = None) -> dict[str, Any]:
    """How often one engine's answers pass; wrong allows are counted among `allowing`, by default all."""
    wrong = Counter(
        result.risk
        for result in (results if allowing is None else allowing)
        if result.case.is_wrong_allow(pick(result))
    )
    passed = sum(result.case.passes(pick(result)) for result in results)
    return {
        "passed": passed,
        "pass_rate": passed / len(results),
        "wrong_allows": {risk.value: wrong[risk] for risk in Risk},
    }


def _passed(results: Sequence[Result]) -> dict[str, Any]:
    n, passed = len(results), sum(result.passed for result in results)
    return {"n": n, "passed": passed, "pass_rate": passed / n if n else None}


def _grouped(
    results: Sequence[Result], names_of: Callable[[Result], Iterable[str]]
) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        for name in names_of(result):
            groups.setdefault(name, []).append(result)
    return {name: {**_passed(group), "legacy": _legacy_rate(group)} for name, group in sorted(groups.items())}


def _legacy_rate(results: Sequence[Result]) -> float:
    return sum(result.case.passes(result.legacy) for result in results) / len(results)


def _confusion(results: Sequence[Result]) -> dict[str, int]:
    """Expected against raw answer, as `expected>model`; what was not answered is in no cell."""
    pairs = Counter((result.case.expected, result.advisory.decision) for result in results)
    return {f"{expected}>{said}": pairs[expected, said] for expected, said in product(Decision, repeat=2)}


def _reasoning(results: Sequence[Result]) -> dict[str, Any]:
    """The share of the `n` answers that were asked for a reason whose reason is not empty."""
    texts = [result.reasoning.text.strip() for result in results if result.reasoning is not None]
    return {"coverage": sum(map(bool, texts)) / len(texts) if texts else None, "n": len(texts)}


def _latency(values: Iterable[float]) -> dict[str, float]:
    """Percentiles by nearest rank."""
    ordered = sorted(values)
    return {
        f"p{per_cent}": ordered[math.ceil(per_cent * len(ordered) / 100) - 1] for per_cent in (50, 95, 99)
    }


def _told(result: Result) -> dict[str, Any]:
    decision = result.advisory.decision
    return {
        "id": result.case.id,
        "decision": None if decision is None else decision.value,
        "outcome": result.advisory.outcome.value,
        "confidence": result.advisory.confidence,
        "passed": result.passed,
    }


def _failure(result: Result) -> dict[str, Any]:
    """`probabilities` by decision and `reasoning` are null where the version told none."""
    case, shares = result.case, result.advisory.probabilities
    return {
        **_told(result),
        "tags": list(case.tags),
        "risk": result.risk.value,
        "expected": case.expected.value,
        "legacy": result.legacy.value,
        "probabilities": None if shares is None else {label.value: shares.of(label) for label in Decision},
        "reasoning": None if result.reasoning is None else result.reasoning.text,
        "why": case.why,
    }
