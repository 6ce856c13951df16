"""How does a program ask the policy model in its own process, without a server?

from app.advisor import PolicyAdvisor

with PolicyAdvisor() as advisor:
    advice = advisor.advise({"action_type": "read", "actor_role": "member", "actor_id": "ann"})
    if advice.allowed: ...
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from app.domain.advisory import Advisory, Outcome
from app.domain.decision import Decision
from app.domain.situation import Situation, parse_situation
from app.engines.model.local import LocalModel
from app.engines.model.runtime import ModelError
from app.engines.model.version import ModelVersion, choose_version, load_versions
from app.engines.model.weights import verify
from app.errors import InvalidInput, PolicyError, SettingsError
from app.settings import load_settings

_T = TypeVar("_T")
_SHIPPED = Path(__file__).parents[1] / "policies"


@dataclass(frozen=True, slots=True)
class Advice:
    """The model's answer. Only where `outcome` is `ok` may anybody rely on `decision`.

    `unsure` leaves the most probable label in `decision`, for people to look at; every other outcome
    leaves None. `probabilities` are over the three labels and sum to 1, `confidence` is the decision's.
    """

    decision: Decision | None
    reasoning: str
    confidence: float | None
    probabilities: Mapping[Decision, float] | None
    version: str
    outcome: Outcome

    @property
    def allowed(self) -> bool:
        """The model says allow, and is sure: the only case in which a caller may go on."""
        return self.outcome is Outcome.OK and self.decision is Decision.ALLOW


class PolicyAdvisor:
    """Answers situations as the service does: the same version files, prompt and scoring.

    May be used from any thread. Advisors of one version share one model, which is loaded by the first
    question (seconds) and freed with the last of them. A process that forks must do so before that. What
    the model does may end the process: a service that others rely on runs `phasegate serve` instead.
    """

    def __init__(
        self,
        version: str | None = None,
        *,
        policies_dir: Path | str | None = None,
        cache_dir: Path | str | None = None,
        model_path: Path | str | None = None,
    ) -> None:
        """What is not given is as PHASEGATE_* says, or as shipped. Raises `PolicyError`, `SettingsError`."""
        settings = load_settings()
        place = Path(policies_dir or settings.policies_dir)
        if policies_dir is None and not place.is_dir():
            place = _SHIPPED
        if not place.is_dir():
            raise SettingsError("PHASEGATE_POLICIES_DIR", f"there is no directory {place}")
        path = Path(model_path) if model_path else settings.model_path
        cache = Path(cache_dir or settings.cache_dir)
        declared = choose_version(
            load_versions(place),
            model_path=path,
            wanted=version or settings.model_version,
            sha256=partial(verify, cache_dir=cache),
        )
        if declared.model.remote is not None:
            what = f"{declared.id} is answered by another server: ask it through `phasegate serve`"
            raise PolicyError(declared.origin, None, "model.remote", what)
        self.version = declared.id
        self._shared = _take(_Files(declared, place, cache, path))
        self._closing = threading.Lock()
        self._open = True

    def advise(
        self,
        situation: Situation | Mapping[str, Any],
        *,
        legacy: Decision | str | None = None,
        reasons: bool = True,
    ) -> Advice:
        """Answer one situation, in the form of `POST /v1/decisions` or already parsed.

        `legacy` is what the legacy rules say; it reaches the model only where the version shows it.
        Without `reasons` the reasoning is the decision alone, and the answer several times faster.
        Raises `InvalidSituation`, `InvalidInput`, and by the first question what loading raises.
        """
        if not self._open:
            raise RuntimeError("this advisor is closed")
        asked = situation if isinstance(situation, Situation) else parse_situation(situation)
        said = _decision(legacy)
        return self._shared.run(lambda model: _answer(model, asked, said, reasons=reasons))

    def close(self) -> None:
        """Give up the model; the last advisor of a version frees it."""
        with self._closing:
            was_open, self._open = self._open, False
        if was_open:
            _give_back(self._shared)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Files(NamedTuple):
    """What two advisors must have in common to share a model."""

    version: ModelVersion
    policies_dir: Path
    cache_dir: Path
    model_path: Path | None


class _SharedModel:
    """One model and the one thread that it belongs to."""

    def __init__(self, files: _Files) -> None:
        self.files = files
        self.users = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy-advisor")
        self._model: LocalModel | None = None

    def run(self, work: Callable[[LocalModel], _T]) -> _T:
        return self._thread.submit(lambda: work(self._loaded())).result()

    def close(self) -> None:
        self._thread.submit(self._free)  # behind a question that may still be loading
        self._thread.shutdown()

    def _free(self) -> None:
        if self._model is not None:
            self._model.close()

    def _loaded(self) -> LocalModel:
        if self._model is None:
            version, policies_dir, cache_dir, model_path = self.files
            self._model = LocalModel.open(
                version, policies_dir=policies_dir, cache_dir=cache_dir, model_path=model_path
            )
        return self._model


_models: dict[_Files, _SharedModel] = {}
_taking = threading.Lock()


def _take(files: _Files) -> _SharedModel:
    with _taking:
        shared = _models.setdefault(files, _SharedModel(files))
        shared.users += 1
        return shared


def _give_back(shared: _SharedModel) -> None:
    with _taking:
        shared.users -= 1
        if shared.users > 0:
            return
        del _models[shared.files]
    shared.close()


def _answer(model: LocalModel, situation: Situation, legacy: Decision | None, *, reasons: bool) -> Advice:
    try:
        found = model.advise(situation, legacy=legacy)
        said = model.explain(situation, found, legacy=legacy).text if reasons else _in_short(found)
    except ModelError as error:  # whatever it was, it must not look like an answer
        return Advice(None, f"the model failed: {error}", None, None, model.version.id, Outcome.MALFORMED)
    shares = found.probabilities
    return Advice(
        decision=found.decision,
        reasoning=said,
        confidence=found.confidence,
        probabilities={label: shares.of(label) for label in Decision} if shares else None,
        version=found.version,
        outcome=found.outcome,
    )


def _in_short(found: Advisory) -> str:
    return f"no opinion ({found.outcome})" if found.decision is None else f"{found.outcome}: {found.decision}"


def _decision(legacy: Decision | str | None) -> Decision | None:
    try:
        return None if legacy is None else Decision(legacy)
    except ValueError:
        raise InvalidInput([("legacy", f"must be {', '.join(Decision)}")]) from None
