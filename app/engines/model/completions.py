"""How is a server asked over the OpenAI-compatible API, and what do its answers say of the labels?"""

import math
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import httpx
import msgspec
from msgspec import Struct

from app.domain.advisory import Outcome, Probabilities
from app.domain.decision import Decision
from app.engines.model.version import Calibration, Remote

_T = TypeVar("_T", bound=Struct)

_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_CONNECT_RETRIES = 1
_SAID = 200  # characters of a server's complaint that are worth keeping
_LONGEST_LABEL = 24  # tokens: a bound server may spell a label letter by letter
_FRAGMENT = 3  # characters of a label that are enough to know a strict one by
_STRICT_FIRST = sorted(Decision, key=lambda label: -label.severity)
_CHOICES = [f" {label}" for label in _STRICT_FIRST]
_CONSTRAINED = {
    "max_tokens": _LONGEST_LABEL,
    "stop": ["\n"],
    # Each server takes the form that it knows and leaves the others alone: llama-server, vLLM since
    # 0.11, vLLM before. A server that knows none answers freely, and is read as strictly.
    "grammar": "root ::= " + " | ".join(f'"{choice}"' for choice in _CHOICES),
    "structured_outputs": {"choice": _CHOICES},
    "guided_choice": _CHOICES,
}
# Whatever a vocabulary may hold as a control token: `<|im_end|>`, `</s>`, `<start_of_turn>`, `[INST]`.
_MARKER = re.compile(r"<(?=\S)|\[(?=/?[A-Za-z_]+[\]\d])")


class Failure(Exception):
    """No usable answer. `blame` is set where it was the server's fault, whatever the caller wrote."""

    def __init__(self, outcome: Outcome, said: str, *, started: bool = True, blame: bool = False) -> None:
        super().__init__(said)
        self.outcome, self.started, self.blame = outcome, started, blame


class Unreachable(Failure):
    """The question never left this machine."""


class _Listed(Struct):
    token: str
    logprob: float


class _Token(Struct):
    top_logprobs: list[_Listed] = []


class _Logprobs(Struct):
    """`top_logprobs` as vLLM and OpenAI give it, or `content` as llama-server does."""

    top_logprobs: list[dict[str, float] | None] | None = None
    content: list[_Token] | None = None


class _Choice(Struct):
    text: str = ""
    logprobs: _Logprobs | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None


class Completion(Struct):
    """A server's answer, as far as it is read."""

    choices: list[_Choice]
    usage: _Usage | None = None

    @property
    def prompt_tokens(self) -> int | None:
        return self.usage.prompt_tokens if self.usage else None

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def listed(self) -> list[tuple[str, float]]:
        """The most probable first tokens with their log-probabilities; empty where there are none."""
        found = self.choices[0].logprobs
        if found is not None and found.content:
            return [(one.token, one.logprob) for one in found.content[0].top_logprobs]
        if found is not None and found.top_logprobs and found.top_logprobs[0]:
            return list(found.top_logprobs[0].items())
        return []


class _ServedModel(Struct):
    id: str


class _Served(Struct):
    data: list[_ServedModel]


class CompletionServer:
    """One server and the model asked for there. Belongs to one event loop; deadlines are the caller's."""

    def __init__(self, remote: Remote, *, key: str | None, connections: int) -> None:
        self._remote = remote
        self._client = httpx.AsyncClient(
            base_url=remote.url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            transport=httpx.AsyncHTTPTransport(
                retries=_CONNECT_RETRIES, limits=httpx.Limits(max_connections=connections)
            ),
            timeout=None,  # noqa: S113 -- the callers' deadlines bound every request as a whole
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def look(self) -> None:
        """Whether it is up and serves the model. Raises `Failure`."""
        served = _decoded(await self._send("GET", "models"), _Served)
        names = sorted(model.id for model in served.data)
        if self._remote.model not in names:
            raise Failure(Outcome.UNAVAILABLE, f"it serves {', '.join(names) or 'nothing'}", blame=True)

    async def first_token(self, prompt: str) -> Completion:
        """The prompt with what may come next. Raises `Failure`."""
        return await self._complete(prompt, max_tokens=1, logprobs=self._remote.top_logprobs)

    async def one_label(self, prompt: str) -> Completion:
        """The prompt with one label, as far as the server can be bound to that. Raises `Failure`."""
        return await self._complete(prompt, **_CONSTRAINED)

    async def words(self, prompt: str, *, max_tokens: int) -> str:
        """One line of free text, possibly empty. Raises `Failure`."""
        return (await self._complete(prompt, max_tokens=max_tokens, stop=["\n"])).text

    async def _complete(self, prompt: str, **how: Any) -> Completion:
        # The template writes what begins a text, as it does for the local engine: nothing is to be added.
        body = {"model": self._remote.model, "prompt": prompt, "temperature": 0, "add_special_tokens": False}
        found = _decoded(await self._send("POST", "completions", {**body, **how}), Completion)
        if not found.choices:
            raise Failure(Outcome.MALFORMED, "it answers without a choice", blame=True)
        return found

    async def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        try:
            async with self._client.stream(method, path, json=body) as response:
                content = await _read(response)
        except (httpx.ConnectError, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise Unreachable(Outcome.UNAVAILABLE, f"cannot be reached: {error}", started=False) from error
        except httpx.HTTPError as error:
            said = f"broke off: {type(error).__name__}"
            raise Failure(Outcome.UNAVAILABLE, said, blame=True) from error
        if response.status_code != httpx.codes.OK:
            raise _refused(response.status_code, content)
        return content


def read_labels(
    listed: Sequence[tuple[str, float]], *, calibration: Calibration | None = None
) -> tuple[Probabilities, float]:
    """The labels' shares among themselves, and their share of everything that might have come next.

    A label is known by its longest listed beginning. `allow` counts as a whole word only: what merely
    begins like it may begin another word. A label that is not listed counts with as much as it can at
    most have, the least listed share or what all listed ones leave over: this never makes it the most
    probable one, and makes the winner look less sure than it is. Coverage counts listed labels alone.
    Raises `Failure`.
    """
    if any(not share <= 1e-3 for _, share in listed):  # also NaN
        raise Failure(Outcome.MALFORMED, "its log-probabilities are none", blame=True)
    shares = {label: found for label in _STRICT_FIRST if (found := _share_of(label, listed)) is not None}
    if not shares:
        raise Failure(Outcome.MALFORMED, f"no label is among {len(listed)} listed tokens")
    coverage = math.fsum(shares.values())
    listed_shares = [math.exp(share) for _, share in listed]
    most = max(min(*listed_shares, 1.0 - math.fsum(listed_shares)), 0.0)
    power = 1.0 / calibration.temperature if calibration else 1.0
    weights = {label: shares.get(label, most) ** power for label in _STRICT_FIRST}
    whole = math.fsum(weights.values())
    if whole <= 0:
        raise Failure(Outcome.MALFORMED, "its log-probabilities are none", blame=True)
    return Probabilities(**{label.value: weights[label] / whole for label in weights}), min(coverage, 1.0)


def read_one_label(text: str) -> Decision:
    """Exactly one label and nothing else. Raises `Failure`."""
    try:
        return Decision(text.strip())
    except ValueError:
        raise Failure(Outcome.MALFORMED, f"it answers {text[:40]!r} instead of a label") from None


def harmless(text: str) -> str:
    """A caller's text for a server that reads control tokens anywhere in a prompt: they are broken up."""
    return _MARKER.sub(lambda marker: f"{marker[0]} ", text)


def _share_of(label: Decision, listed: Sequence[tuple[str, float]]) -> float | None:
    # Some servers strip the space that a word begins with: then none of the tokens has one.
    space = " " if any(token.startswith(" ") for token, _ in listed) else ""
    word = f"{space}{label}"
    least = len(word) if label is Decision.ALLOW else len(space) + _FRAGMENT
    found = {token: share for token, share in listed if word.startswith(token) and len(token) >= least}
    return math.exp(found[max(found, key=len)]) if found else None


async def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            raise Failure(Outcome.MALFORMED, "its answer is too large", blame=True)
    return bytes(content)


def _decoded(content: bytes, wanted: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Failure(Outcome.MALFORMED, f"its answer is none: {error}", blame=True) from error


def _refused(status: int, content: bytes) -> Failure:
    words = content.decode("utf-8", "replace")
    said = f"answers {status}: {' '.join(words.split())[:_SAID]}"
    match status:
        case 429 | 503:
            return Failure(Outcome.OVERLOADED, said, started=False)
        case 413:
            return Failure(Outcome.OVERSIZE, said, started=False)
        case 400 | 422 if "context" in words.lower():  # llama-server and vLLM: too many tokens for it
            return Failure(Outcome.OVERSIZE, said, started=False)
        case 400 | 422:  # perhaps because of what the caller wrote: then it must not open the circuit
            return Failure(Outcome.MALFORMED, said)
        case _:
            return Failure(Outcome.UNAVAILABLE, said, blame=True)
