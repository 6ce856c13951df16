"""Do two people who judge the same decisions say the same?"""

from collections.abc import Mapping

from app.domain.decision import Decision

Pairs = Mapping[tuple[Decision, Decision], int]  # how often a first and a second verdict met


def raw_agreement(pairs: Pairs) -> float | None:
    """The share of pairs that are alike, 0..1, or None without pairs."""
    n = sum(pairs.values())
    return sum(pairs.get((decision, decision), 0) for decision in Decision) / n if n else None


def ac1(pairs: Pairs) -> float | None:
    """Gwet's first-order agreement coefficient, -1/2..1, or None without pairs.

    Gwet (2008), "Computing inter-rater reliability and its variance in the presence of high agreement",
    British Journal of Mathematical and Statistical Psychology 61, for two raters and q = 3 categories:
    (p_a - p_e) / (1 - p_e) with p_e = sum over k of pi_k (1 - pi_k) / (q - 1), where pi_k is the mean
    share of category k. Unlike Cohen's kappa it does not collapse where one category is rare. Assumes that
    chance alone decides only on decisions that are hard to judge.
    """
    agreed = raw_agreement(pairs)
    if agreed is None:
        return None
    shares = [_share(pairs, decision) for decision in Decision]
    chance = sum(share * (1 - share) for share in shares) / (len(shares) - 1)
    return (agreed - chance) / (1 - chance)


def _share(pairs: Pairs, decision: Decision) -> float:
    """How many of all verdicts, first and second, say so."""
    said = sum(n * (first is decision) + n * (second is decision) for (first, second), n in pairs.items())
    return said / (2 * sum(pairs.values()))
