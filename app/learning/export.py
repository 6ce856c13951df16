"""What leaves the plane for others to read, training data and proposals, without saying whose it is?"""

import hmac
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select

from app.domain.decision import Decision
from app.domain.situation import Situation, parse_situation, to_document
from app.engines.model.prompt import Prompt, situation_text, write
from app.learning.corrections import Example
from app.learning.folds import groups
from app.store.tables import plane

CLUSTER_AT_LEAST = 3
_BOILERPLATE = 0.5  # of the overrides: what many of them share is what is looked for
_DOMAIN = b"learning:"
_NOBODYS = ("action_type", "actor_role", "timestamp")  # hold no id, and an id may be a word in them
_SITUATION, _LABEL = "\x00situation\x00", "\x00label\x00"
# How chat templates mark who speaks, and where that ends.
_TURN = re.compile(
    r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\s*|\Z)|<\|(system|user|assistant)\|>(.*?)(?:<\|end\|>\s*|\Z)",
    re.DOTALL,
)
_MARK = re.compile("\x00\\d+\x00")


@dataclass(frozen=True, slots=True)
class Redactor:
    """Gives an actor the same pseudonym each time; who it is, only this plane's secret can tell."""

    secret: bytes

    @classmethod
    def of(cls, connection: Connection) -> "Redactor":
        return cls(bytes(connection.execute(select(plane.c.actor_secret)).scalar_one()))

    def pseudonym(self, actor_id: str) -> str:
        digest = hmac.digest(self.secret, _DOMAIN + actor_id.encode("utf-8", "surrogatepass"), "sha256")
        return f"actor-{digest.hex()[:12]}"

    def situation(self, situation: Situation, *, texts: bool) -> Situation:
        """With the pseudonym wherever the actor's id stands; without `texts`, without what people wrote."""
        if not texts:
            situation = replace(situation, team_context=None, recent_history=None, details=None, extra=None)
        document = to_document(situation)
        told = {key: value for key, value in document.items() if key not in _NOBODYS}
        return parse_situation({**document, **self._redacted(told, situation.actor_id)})

    def text(self, text: str, actor_id: str) -> str:
        """Only where the id stands alone: that of actor 7 is not in every number."""
        alone = re.compile(rf"(?<![^\W_]){re.escape(actor_id)}(?![^\W_])", re.IGNORECASE)
        return alone.sub(self.pseudonym(actor_id), text)

    def _redacted(self, value: Any, actor_id: str) -> Any:
        match value:
            case str():
                return self.text(value, actor_id)
            case dict():
                return {key: self._redacted(each, actor_id) for key, each in value.items()}
            case list() | tuple():
                return [self._redacted(each, actor_id) for each in value]
            case _:
                return value


def chat(
    examples: Iterable[Example], prompt: Prompt, redactor: Redactor, *, show_legacy: bool, texts: bool
) -> Iterator[dict[str, Any]]:
    """One `{messages, actor, legacy}` an example, the messages as the version's prompt renders them.

    Actor ids are pseudonyms wherever they stand. Without `texts`, what people wrote is left out.
    """
    turns = _turns(prompt)
    for example in examples:
        situation = redactor.situation(example.situation, texts=texts)
        lines = write(situation, legacy=example.legacy if show_legacy else None)
        yield {
            "messages": _filled(turns, situation_text(lines), example.decision),
            "actor": situation.actor_id,
            "legacy": example.legacy,
        }


def _turns(prompt: Prompt) -> list[tuple[str, str]]:
    """Who says what, with marks where the situation and the label belong.

    Only the template's own text says who speaks: what it quotes is put back afterwards.
    """
    quoted = {f"\x00{place}\x00": piece.text for place, piece in enumerate(prompt.pieces) if not piece.ours}
    prefix = "".join(
        piece.text if piece.ours else f"\x00{place}\x00" for place, piece in enumerate(prompt.pieces)
    )
    whole = f"{prefix}{_SITUATION}{prompt.suffix} {_LABEL}"
    found = [(one or other, first or second) for one, first, other, second in _TURN.findall(whole)]
    turns = found or [("user", whole.removesuffix(f" {_LABEL}")), ("assistant", _LABEL)]
    return [(role, _MARK.sub(lambda mark: quoted[mark[0]], text)) for role, text in turns]


def _filled(turns: list[tuple[str, str]], situation: str, decision: Decision) -> list[dict[str, str]]:
    """The label first: the situation is the caller's and might spell its mark."""
    return [
        {"role": role, "content": text.replace(_LABEL, decision).replace(_SITUATION, situation)}
        for role, text in turns
    ]


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
    found: dict[tuple[int, str, str, str], list[Example]] = defaultdict(list)
    for group, each in zip(group_of, overrides, strict=True):
        found[(group, str(each.category), str(each.model), str(each.decision))].append(each)
    large = [cluster for cluster in found.values() if len(cluster) >= CLUSTER_AT_LEAST]
    return sorted(large, key=len, reverse=True)


def _reason(cluster: Sequence[Example]) -> str:
    model, decision = cluster[-1].model, cluster[-1].decision
    return (
        f"people said {decision} where the model said {model}, {len(cluster)} times in situations like this"
    )
