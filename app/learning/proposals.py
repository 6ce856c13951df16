"""Which overrides are so alike that an example of them might teach the prompt?"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from app.domain.situation import to_document
from app.learning.corrections import Example
from app.learning.folds import groups
from app.learning.redaction import Redactor

CLUSTER_AT_LEAST = 3
_BOILERPLATE = 0.5  # of the overrides: what many of them share is what is looked for

_Kind = tuple[int, str, str, str]


def proposals(examples: Sequence[Example], redactor: Redactor) -> Iterator[dict[str, Any]]:
    """One `{situation, decision, legacy, reason}` for each cluster of overrides, the largest first.

    A cluster is of one group by wording and actor, one category, and the model wrong the same way. Shown is
    its latest override, actor redacted; a person reads it and decides whether a version's `examples:` file
    gets it.
    """
    for cluster in clusters(examples):
        example = cluster[-1]
        situation = redactor.situation(example.situation, texts=True)
        reason = redactor.text(example.notes or _reason(cluster), example.situation.actor_id)
        yield {
            "situation": to_document(situation),
            "decision": example.decision,
            "legacy": example.legacy,
            "reason": reason,
        }


def clusters(examples: Sequence[Example]) -> list[list[Example]]:
    """Overrides that belong together, each oldest first."""
    overrides = [each for each in examples if each.model is not None and each.model is not each.decision]
    group_of = groups(
        [each.situation for each in overrides], [each.actor for each in overrides], boilerplate=_BOILERPLATE
    )
    found: dict[_Kind, list[Example]] = defaultdict(list)
    for group, each in zip(group_of, overrides, strict=True):
        found[(group, str(each.category), str(each.model), str(each.decision))].append(each)
    large = [cluster for cluster in found.values() if len(cluster) >= CLUSTER_AT_LEAST]
    return sorted(large, key=len, reverse=True)


def _reason(cluster: Sequence[Example]) -> str:
    model, decision = cluster[-1].model, cluster[-1].decision
    return (
        f"people said {decision} where the model said {model}, {len(cluster)} times in situations like this"
    )
