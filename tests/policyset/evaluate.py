"""How well does an adapter decide situations in wording that no training has seen?

`python -m tests.policyset.evaluate ADAPTER --n 500` asks the embedded version with that adapter, without
and with the rules' line, through the product's own scoring; the report is JSON.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from app.domain.advisory import Outcome
from app.domain.decision import stricter
from app.domain.situation import parse_situation
from app.engines.model.head import CLASSES
from app.engines.model.local import LocalModel
from app.engines.model.version import AdapterFile, ModelVersion, choose_version, load_versions
from app.learning.report import Answers, measures
from tests.policyset.generator import POLICIES, Labelled, generate

_ANY_COVERAGE = 1e-12  # what the version would call malformed is counted, and scored like the rest


def report(adapter: Path, examples: Sequence[Labelled], *, cache_dir: Path) -> dict[str, Any]:
    """Measures of the rules alone, and of the model alone and combined with them, by mode."""
    embedded = choose_version(load_versions(POLICIES))
    asked = structs.replace(
        embedded,
        adapter=AdapterFile(file=str(adapter.resolve())),
        head=None,
        calibration=None,
        limits=structs.replace(embedded.limits, coverage_at_least=_ANY_COVERAGE),
    )
    limit = embedded.limits.coverage_at_least
    found = {"rules alone": _measured(Answers.certain([each.legacy for each in examples]), examples)}
    for mode, shown in (("without the rules' line", False), ("with the rules' line", True)):
        found |= _of_version(mode, structs.replace(asked, show_legacy=shown), examples, cache_dir, limit)
    return {"examples": len(examples), "kinds": _kinds(examples), "measures": found}


def _of_version(
    mode: str, version: ModelVersion, examples: Sequence[Labelled], cache_dir: Path, limit: float
) -> dict[str, Any]:
    with LocalModel.open(version, policies_dir=POLICIES, cache_dir=cache_dir) as model:
        said = [model.advise(parse_situation(each.situation), legacy=each.legacy) for each in examples]
    shares = np.array(
        [[each.probabilities.of(label) for label in CLASSES] for each in said if each.probabilities]
    )
    answers = Answers.of(shares)
    combined = [
        stricter(CLASSES[label], each.legacy) for label, each in zip(answers.labels, examples, strict=True)
    ]
    unsure = sum(each.outcome is Outcome.UNSURE for each in said) / len(said)
    malformed = sum((each.coverage or 0.0) < limit for each in said) / len(said)
    return {
        mode: {**_measured(answers, examples), "unsure": unsure, "malformed": malformed},
        f"{mode}, stricter of both": _measured(Answers.certain(combined), examples),
    }


def _measured(answers: Answers, examples: Sequence[Labelled]) -> dict[str, Any]:
    truth = Answers.certain([each.decision for each in examples]).labels
    return measures(answers, truth, np.arange(len(examples)) % 5)


def _kinds(examples: Sequence[Labelled]) -> dict[str, int]:
    names = [each.kind or "nothing" for each in examples]
    return {name: names.count(name) for name in sorted(set(names))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.policyset.evaluate", description=__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache-dir", type=Path, default=Path.home() / ".cache" / "phasegate")
    asked = parser.parse_args()
    examples = list(generate("test", n=asked.n, seed=asked.seed))
    json.dump(report(asked.adapter, examples, cache_dir=asked.cache_dir), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
