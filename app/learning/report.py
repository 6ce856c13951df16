"""How good is a version beside its parent and the legacy engine alone, and is it better than both?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.decision import Decision
from app.engines.model.head import CLASSES
from app.learning.regression import Labels, Matrix

SIGNIFICANCE = 0.10
ACCURACY = 0.95
NOTHING = 1.0  # a threshold that nothing reaches
_ANSWERS_AT_LEAST = 20  # fewer, all right, would be luck
_BINS = 10
_ALLOW, _DENY = CLASSES.index(Decision.ALLOW), CLASSES.index(Decision.DENY)


@dataclass(frozen=True, slots=True)
class Answers:
    """What one engine said on the held-out examples: the label's place in `CLASSES`, and how sure.

    `shares` is (n, classes), or None for an engine that gives no probabilities.
    """

    labels: Labels
    shares: Matrix | None = None

    @classmethod
    def of(cls, shares: Matrix) -> "Answers":
        return cls(shares.argmax(axis=1), shares)

    @classmethod
    def certain(cls, decisions: Sequence[Decision]) -> "Answers":
        return cls(np.array([CLASSES.index(decision) for decision in decisions]))


def p_value(won: int, lost: int) -> float:
    """Exact, one-sided sign test on the discordant pairs (McNemar 1947): so many wins or more by chance."""
    n = won + lost
    return float(sum(math.comb(n, k) for k in range(won, n + 1)) / 2.0**n)


def paired(child: Answers, other: Answers, truth: Labels) -> dict[str, Any]:
    """On how many of the same held-out examples exactly one was right, and whether that proves a better child."""
    right, others = child.labels == truth, other.labels == truth
    won, lost = int((right & ~others).sum()), int((others & ~right).sum())
    chance = p_value(won, lost)
    return {
        "only_child_right": won,
        "only_other_right": lost,
        "p_value": chance,
        "better": chance <= SIGNIFICANCE,
    }


def measures(answers: Answers, truth: Labels, fold: NDArray[np.int64]) -> dict[str, Any]:
    """JSON-ready. A wrong allow is an allow of what is not to be allowed; shares are 0..1.

    `answered_at_95` is the share answered, and how right those answers were, by a confidence that is
    chosen on the other folds; null without probabilities.
    """
    given, allowed = answers.labels, answers.labels == _ALLOW
    return {
        "accuracy": float((given == truth).mean()),
        "macro_f1": _macro_f1(given, truth),
        "wrong_allows": int((allowed & (truth != _ALLOW)).sum()),
        "denies_allowed": int((allowed & (truth == _DENY)).sum()),
        "true_denies": int((truth == _DENY).sum()),
        "allows_kept": _share(allowed, truth == _ALLOW),
        "ece": None if answers.shares is None else calibration_error(answers.shares, truth),
        "answered_at_95": None if answers.shares is None else _answered(answers.shares, truth, fold),
    }


def calibration_error(shares: Matrix, truth: Labels) -> float:
    """Expected calibration error over ten equal bins of confidence (Naeini et al. 2015, section 2)."""
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == truth
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(_BINS)]
    return float(np.abs(gaps).sum() / len(truth))


def summary(report: Mapping[str, Any]) -> list[str]:
    """The report in sentences."""
    child, parent, legacy = (report["measures"][name] for name in ("child", "parent", "legacy"))
    share = child["answered_at_95"]
    wide = (
        f"{report['examples']} examples in {report['groups']} groups by wording and actor; "
        f"{report['held_out']} judged by weights that had not seen their group"
    )
    each = [
        f"{name}: accuracy {found['accuracy']:.3f}, macro-F1 {found['macro_f1']:.3f}, "
        f"{found['denies_allowed']} of {found['true_denies']} true denies allowed"
        for name, found in (("this", child), ("its parent", parent), ("legacy alone", legacy))
    ]
    right = "" if share["accuracy"] is None else f", {share['accuracy']:.1%} of them right"
    sure = f"by its threshold it would answer {share['share']:.0%}{right}"
    return [wide, *each, sure]


def verdict(report: Mapping[str, Any]) -> list[str]:
    """Why it is no better, a sentence a reason; empty where it is."""
    said = []
    for name, words in (("parent", "its parent"), ("legacy", "the legacy engine alone")):
        test = report["tests"][name]
        if not test["better"]:
            said.append(
                f"no better than {words}: right alone {test['only_child_right']} times, wrong alone "
                f"{test['only_other_right']} times, p = {test['p_value']:.2f} and not {SIGNIFICANCE:.2f} or less"
            )
    if not report["tests"]["wrong_allows"]["better"]:
        said.append("more true denies allowed than both its parent and the legacy engine")
    return said


def report_of(
    *,
    truth: Labels,
    child: Answers,
    parent: Answers,
    legacy: Answers,
    fold: NDArray[np.int64],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole report, JSON-ready; `facts` say what was learned from. `better` is the verdict."""
    found = {
        name: measures(answers, truth, fold)
        for name, answers in (("child", child), ("parent", parent), ("legacy", legacy))
    }
    tests: dict[str, Any] = {
        name: paired(child, other, truth) for name, other in (("parent", parent), ("legacy", legacy))
    }
    bound = max(found["parent"]["denies_allowed"], found["legacy"]["denies_allowed"])
    tests["wrong_allows"] = {"at_most": bound, "better": found["child"]["denies_allowed"] <= bound}
    return {
        **facts,
        "held_out": len(truth),
        "measures": found,
        "test": f"exact one-sided sign test on discordant pairs, {SIGNIFICANCE}",
        "tests": tests,
        "better": all(test["better"] for test in tests.values()),
        "note": "verdicts are not a random sample: half of the reviews are drawn among disagreements",
    }


def threshold(shares: Matrix, labels: Labels, *, accuracy: float = ACCURACY) -> float:
    """The lowest confidence such that answers of at least that are right in `accuracy` of the cases.

    `shares` (n, classes) are predictions on held-out examples. `NOTHING` where no confidence will do.
    """
    if len(labels) < _ANSWERS_AT_LEAST:
        return NOTHING
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    rate = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    ends = np.append(np.diff(confidence[order]) < 0, True)  # ties are answered together or not at all
    places = np.flatnonzero(ends & (rate >= accuracy))
    places = places[places >= _ANSWERS_AT_LEAST - 1]
    return float(confidence[order][places[-1]]) if len(places) else NOTHING


def answered(shares: Matrix, labels: Labels, fold: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which examples would be answered, each by a threshold that comes from the other folds."""
    given = np.zeros(len(labels), np.bool_)
    for name in np.unique(fold):
        others = fold != name
        given[~others] = shares[~others].max(axis=1) >= threshold(shares[others], labels[others])
    return given


def _answered(shares: Matrix, truth: Labels, fold: NDArray[np.int64]) -> dict[str, float | None]:
    given = answered(shares, truth, fold)
    right = shares.argmax(axis=1) == truth
    return {"share": float(given.mean()), "accuracy": _share(right, given)}


def _macro_f1(given: Labels, truth: Labels) -> float:
    """The mean over the classes that occur."""
    scores = []
    for label in np.union1d(given, truth):
        hits = ((given == label) & (truth == label)).sum()
        scores.append(2 * hits / ((given == label).sum() + (truth == label).sum()))
    return float(np.mean(scores))


def _share(what: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(what[among].mean()) if among.any() else None
