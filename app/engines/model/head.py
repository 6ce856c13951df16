"""What does a head, learned from verdicts, make of a situation's lines and of what the model saw in them?

Multinomial logistic regression on the legacy engine's answer, the structured fields, the model's own odds
of the labels and its hidden state at the decision position. The file is JSON that a person can read;
nothing in it is executed.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from app.domain.advisory import Probabilities
from app.domain.decision import Decision
from app.engines.model.prompt import Line
from app.engines.model.version import ModelVersion, Sha256, Share
from app.errors import PolicyError

Hidden = NDArray[np.float32]
Positive = Annotated[float, Meta(gt=0)]

CLASSES = (Decision.DENY, Decision.REQUIRE_ATTESTATION, Decision.ALLOW)
LEGACY_BLOCK, OWN_BLOCK = "legacy=", "own."
_LEAST_SHARE = 1e-6  # below it, one share is as good as another
_MEND = "learn it again: `phasegate learn`"


class Basis(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the hidden states came from; on anything else the weights mean nothing.

    `layout` says how the model's numbers were laid out: its format, whether the adapter was merged, and
    whether situations were decoded alone.
    """

    model_sha256: Sha256
    adapter_sha256: Sha256 | None
    prompt_sha256: Sha256
    layout: str


class Weight(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One structured feature: standardised by `mean` and `scale`, then one weight for each of `CLASSES`."""

    name: str
    mean: float
    scale: Positive
    weights: tuple[float, float, float]


class HiddenWeights(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same for the hidden state, one entry a coordinate."""

    mean: tuple[float, ...]
    scale: tuple[Positive, ...]
    weights: tuple[tuple[float, float, float], ...]


class Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Weights and where they hold. `c` is the inverse strength of the L2 penalty.

    `threshold` is the confidence from which held-out answers were right often enough; the version repeats
    it as `limits.confidence_at_least`.
    """

    format: Literal["phasegate-head-1"] = "phasegate-head-1"
    classes: tuple[Decision, ...] = CLASSES
    basis: Basis
    examples: Annotated[int, Meta(ge=1)]
    c: Positive
    temperature: Positive
    threshold: Share
    intercept: tuple[float, float, float]
    fields: tuple[Weight, ...]
    hidden: HiddenWeights

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a head's file. Raises `PolicyError` where it is none, `OSError` where it cannot be read."""
        try:
            head = msgspec.json.decode(path.read_bytes(), type=cls)
        except msgspec.MsgspecError as error:
            raise PolicyError(str(path), None, "", f"is no head: {error}; {_MEND}") from error
        hidden = head.hidden
        if head.classes != CLASSES or not len(hidden.mean) == len(hidden.scale) == len(hidden.weights):
            raise PolicyError(str(path), None, "", f"is no head: its parts do not fit together; {_MEND}")
        return head

    def require_basis(self, version: ModelVersion, *, model_sha256: str, adapter_sha256: str | None) -> None:
        """Raises `PolicyError` where the version's model, adapter, layout or prompt is another."""
        found = basis(version, model_sha256=model_sha256, adapter_sha256=adapter_sha256)
        for name in Basis.__struct_fields__:
            if getattr(found, name) != getattr(self.basis, name):
                message = f"was learned on another {name}: {getattr(self.basis, name)}; {_MEND}"
                raise PolicyError(version.origin, None, "head.file", message)

    def read(self, lines: Sequence[Line], hidden: Hidden, own: Probabilities) -> Probabilities:
        """The probabilities of one situation, from its prompt's lines and what the model made of them.

        `hidden` is (width,); `own` are the model's own probabilities, not calibrated. What it would allow
        though the legacy engine denies becomes require_attestation: a head alone never lifts a denial.
        Without the legacy engine's line that answer is unknown, not a denial.
        """
        named = features(lines, own)
        given = np.array([value_of(named, field.name, absent=field.mean) for field in self.fields])
        means, scales, weights = self._arrays
        state = (np.concatenate([given, hidden]) - means) / scales
        logits = (np.asarray(self.intercept) + state @ weights) / self.temperature
        share = np.exp(logits - logits.max())
        return without_lifting(share / share.sum(), denied=f"{LEGACY_BLOCK}{Decision.DENY}" in named)

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Means, scales and weights of the fields and, after them, of the hidden state."""
        fields, hidden = self.fields, self.hidden
        return (
            np.array([*(field.mean for field in fields), *hidden.mean]),
            np.array([*(field.scale for field in fields), *hidden.scale]),
            np.array([*(field.weights for field in fields), *hidden.weights]),
        )


def basis(version: ModelVersion, *, model_sha256: str, adapter_sha256: str | None) -> Basis:
    """What a head of this version rests on."""
    merged = ", adapter merged" if version.adapter is not None and version.adapter.merge else ""
    together = version.decoding.shadow_batch
    how = "alone" if together == 1 else f"up to {together} together"
    layout = f"{version.model.requantise or 'as published'}{merged}, decoded {how}"
    return Basis(
        model_sha256=model_sha256,
        adapter_sha256=adapter_sha256,
        prompt_sha256=version.prompt_sha256,
        layout=layout,
    )


def without_lifting(shares: NDArray[np.float64], *, denied: bool) -> Probabilities:
    """Shares by `CLASSES`, with the mass of an allow over a legacy denial given to require_attestation."""
    deny, attest, allow = (float(share) for share in shares)
    return Probabilities(0.0, attest + allow, deny) if denied else Probabilities(allow, attest, deny)


def features(lines: Sequence[Line], own: Probabilities) -> dict[str, float]:
    """All features but the hidden state, by name; a field that is left out has none.

    `action=deploy`, `has=details` are 1 where they hold; `trust.lowest`, `identity.coherence` are shares,
    0..1; `own.allow` is the model's log-odds of an allow against a deny.
    """
    named = {name: value for line in lines for name, value in _of(line)}
    for label in CLASSES[1:]:
        named[f"{OWN_BLOCK}{label}"] = _logarithm(own.of(label)) - _logarithm(own.deny)
    return named


def value_of(named: Mapping[str, float], name: str, *, absent: float) -> float:
    """A feature's value: what does not hold is 0, a number that was not given is `absent`."""
    return named.get(name, 0.0 if "=" in name else absent)


def _logarithm(share: float) -> float:
    return math.log(max(share, _LEAST_SHARE))


def _of(line: Line) -> Iterator[tuple[str, float]]:
    match line.field:
        case "rules_say":
            yield f"{LEGACY_BLOCK}{line.text}", 1.0
        case "action_type" | "actor_role":
            yield f"{line.label}={line.text.casefold()}", 1.0
        case "t3_tensor":
            yield from ((f"trust.{name}", float(figure) / 100) for name, figure in _pairs(line.text))
        case "identity_metrics":
            yield "has=identity_metrics", 1.0
            yield from _metrics(line.text)
        case "resource":
            yield "has=resource", 1.0
            yield from _resource(line.text.casefold())
        case "timestamp":
            yield "has=timestamp", 1.0
            yield from _hour(line.text)
        case "team_context" | "recent_history" | "details":
            yield f"has={line.field}", 1.0
        case _:
            yield "has=extra", 1.0


def _resource(text: str) -> Iterator[tuple[str, float]]:
    """Its first part and its first two: `env:production/payments` is of `env` and of `env:production`."""
    parts = re.split(r"([:/])", text, maxsplit=2)
    yield f"resource={parts[0]}", 1.0
    if len(parts) > 2:
        yield f"resource={''.join(parts[:3])}", 1.0


def _metrics(text: str) -> Iterator[tuple[str, float]]:
    for name, value in _pairs(text):
        number = re.fullmatch(r"[01](?:\.\d+)?", value)
        if name == "coherence" and number:
            yield "identity.coherence", min(float(value), 1.0)
        elif name != "coherence":  # behind a prefix: the caller chose the name
            yield f"identity.{name}={value.casefold()}", 1.0


def _hour(text: str) -> Iterator[tuple[str, float]]:
    try:
        hour = datetime.fromisoformat(text).hour
    except ValueError:
        return
    yield f"hours={('night', 'morning', 'afternoon', 'evening')[hour // 6]}", 1.0


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """`competence 81, reliability 92` as pairs of words."""
    for part in text.split(", "):
        name, _, value = part.partition(" ")
        if value:
            yield name, value
