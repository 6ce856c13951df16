"""What do the validation suites ask, and how did each version last do on each of them?"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.clock import rfc3339
from app.domain.decision import Decision
from app.domain.situation import to_document
from app.domain.validation import Case
from app.errors import NotFound, PolicyError
from app.policy.suites import find_suites, fingerprint, load_suites
from app.store import validations as stored
from app.store.database import Database

_RUNS = 100  # the newest, of whatever version, that the scores are taken from


@dataclass(frozen=True, slots=True)
class SuiteBook:
    """The suites as their files are now, and the newest validation of every version on each."""

    database: Database
    policies_dir: Path

    def all(self) -> list[dict[str, Any]]:
        """Every suite by name: `cases`, and how many there are by `tags` and by `expected` decision.

        A file that cannot be read has a `problem` instead of cases.
        """
        try:
            paths = find_suites(self.policies_dir)
        except PolicyError:
            return []
        return [self._read(path) for path in paths]

    def one(self, name: str) -> dict[str, Any]:
        """Raises `NotFound`."""
        suites = {suite["name"]: suite for suite in self.all()}
        if name not in suites:
            raise NotFound("suite", name, known=suites)
        return suites[name]

    def scores(self) -> list[dict[str, Any]]:
        """How each version last did on each suite, newest first.

        `{version, suite, validation, at, n, passed, wrong_allows, is_current, answers}`: `n` counts the cases
        that the suite still has, `answers` holds what was said by case id, `is_current` that no file of that
        validation has changed since.
        """
        cases = {suite["name"]: {case["id"] for case in suite["cases"]} for suite in self.all()}
        found: dict[tuple[str, str], dict[str, Any]] = {}
        with self.database.read() as connection:
            rows = stored.newest(connection, limit=_RUNS)
        for row in rows:
            run = json.loads(row["report"])
            for suite in run["suites"]:
                key = row["version"], suite
                if suite in cases and key not in found:
                    found[key] = {
                        "version": row["version"],
                        "suite": suite,
                        "validation": row["id"],
                        "at": rfc3339(row["created_us"]),
                        "is_current": self._is_current(run),
                        **_score(run, cases[suite]),
                    }
        return list(found.values())

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            cases = load_suites([path]).cases
        except PolicyError as error:
            return {"name": path.stem, "problem": str(error), "cases": [], "tags": {}, "expected": {}}
        expected = Counter(case.expected.value for case in cases)
        return {
            "name": path.stem,
            "problem": None,
            "cases": [_document(case) for case in cases],
            "tags": dict(Counter(tag for case in cases for tag in case.tags).most_common()),
            "expected": {decision.value: expected[decision] for decision in Decision},
        }

    def _is_current(self, run: Mapping[str, Any]) -> bool:
        try:
            return bool(fingerprint(self.policies_dir, run["suites"]) == run["suite_sha256"])
        except (PolicyError, NotFound):
            return False


def _score(run: Mapping[str, Any], ids: set[str]) -> dict[str, Any]:
    """A wrong allow is one that was sure: an unsure one falls back."""
    told = {each["id"]: each for each in run["results"] if each["id"] in ids}
    wrong = sum(
        each["decision"] == Decision.ALLOW and each["outcome"] == "ok" and not each["passed"]
        for each in told.values()
    )
    passed = sum(each["passed"] for each in told.values())
    return {"n": len(told), "passed": passed, "wrong_allows": wrong, "answers": told}


def _document(case: Case) -> dict[str, Any]:
    situation = to_document(case.situation)
    return {
        "id": case.id,
        "tags": list(case.tags),
        "situation": situation,
        "text": json.dumps(situation, indent=1, ensure_ascii=False),
        "expected": case.expected.value,
        "accept": sorted(case.accept),
        "why": case.why,
    }
