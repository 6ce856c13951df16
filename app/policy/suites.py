"""Which situations, with their right answers, is a version validated on?"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from app.domain.decision import Decision
from app.domain.situation import canonical, parse_situation
from app.domain.validation import Case
from app.errors import InvalidSituation, NotFound, PolicyError
from app.policy.files import read_text

Word = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,79}$")]


class _Line(Struct, frozen=True, forbid_unknown_fields=True):
    id: Word
    tags: Annotated[tuple[Word, ...], Meta(min_length=1)]
    situation: dict[str, Any]
    expected: Decision
    why: Annotated[str, Meta(min_length=1)]
    accept: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True)
class Suites:
    """The cases of one or more files. `sha256` is of the files' texts, in any order."""

    names: tuple[str, ...]
    cases: tuple[Case, ...]
    sha256: str


def find_suites(policies_dir: Path, names: Sequence[str] = ()) -> list[Path]:
    """The files of `policies/suites`, all of them where no name is given.

    Raises `NotFound` for a name, `PolicyError` where there is no suite at all.
    """
    known = {path.stem: path for path in sorted((policies_dir / "suites").glob("*.jsonl"))}
    if not known:
        raise PolicyError(str(policies_dir / "suites"), None, "", "holds no suite, a file such as core.jsonl")
    for name in names:
        if name not in known:
            raise NotFound("suite", name, known=known)
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def load_suites(paths: Sequence[Path]) -> Suites:
    """Read and check files. Raises `PolicyError` with file, line and field."""
    texts = {path: read_text(path) for path in paths}
    cases: dict[str, Case] = {}
    seen: dict[str, str] = {}
    for path, text in texts.items():
        for line, case in _cases(text, str(path)):
            wording = canonical(case.situation)
            if case.id in cases:
                raise PolicyError(str(path), line, "id", f"{case.id!r} stands here twice")
            if wording in seen:
                raise PolicyError(str(path), line, "situation", f"is that of {seen[wording]!r}")
            cases[case.id], seen[wording] = case, case.id
    if not cases:
        raise PolicyError(", ".join(map(str, paths)), None, "", "holds no situation")
    return Suites(tuple(path.stem for path in paths), tuple(cases.values()), _digest(texts.values()))


def fingerprint(policies_dir: Path, names: Sequence[str] = ()) -> str:
    """What `load_suites` would call these suite files, or all, as they are now.

    Raises what `find_suites` does, and `PolicyError` for a file that cannot be read.
    """
    return _digest(map(read_text, find_suites(policies_dir, names)))


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256(
        b"".join(sorted(hashlib.sha256(text.encode()).digest() for text in texts))
    ).hexdigest()


def _cases(text: str, path: str) -> Iterator[tuple[int, Case]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _case(line, path, number)


def _case(text: str, path: str, number: int) -> Case:
    try:
        line = msgspec.json.decode(text, type=_Line)
        situation = parse_situation(line.situation)
    except InvalidSituation as error:
        field, what = error.fields[0]
        raise PolicyError(path, number, f"situation.{field}".rstrip("."), what) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise PolicyError(path, number, *_place(str(error))) from error
    if line.expected in line.accept:
        raise PolicyError(path, number, "accept", "holds the expected decision, which passes anyway")
    return Case(line.id, line.tags, situation, line.expected, line.why, frozenset(line.accept))


def _place(message: str) -> tuple[str, str]:
    """The field that msgspec's message is about, and the rest of it."""
    what, _, place = message.partition(" - at `$")
    field = place.strip("`.") or "".join(re.findall(r"field `([^`]+)`", what))
    return field, what[:1].lower() + what[1:]
