"""Write generated examples as JSON lines."""

import argparse
import json
import sys

from tests.policyset.generator import generate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.policyset", description=__doc__)
    parser.add_argument("--split", choices=("train", "test"), required=True)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--changed", type=float, default=0.156, help="share on which free text overrules")
    asked = parser.parse_args()
    for example in generate(asked.split, n=asked.n, seed=asked.seed, changed=asked.changed):
        line = {
            "id": example.id,
            "situation": example.situation,
            "decision": example.decision,
            "legacy": example.legacy,
            "wording": example.wording,
            "why": example.why,
        }
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")


main()
