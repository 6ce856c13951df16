"""Are the plane's rollbacks neither false nor late, and those of other rules?

`python -m tests.bench.guardrails [--quick] [--seed N]` prints and writes docs/guardrails.md and .svg; the exit
code is 1 where a figure does not hold.
"""

import argparse
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import structlog

from tests.bench.guardrails import acceptance, service
from tests.bench.guardrails.acceptance import Check
from tests.bench.guardrails.chart import svg
from tests.bench.guardrails.table import CHANGED, Row, rows

_DOCS = Path(__file__).parents[3] / "docs"
_SHOWN = (1_000, "2x")  # in the picture


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.bench.guardrails")
    asked.add_argument("--quick", action="store_true", help="fewer streams, about a minute; writes nothing")
    asked.add_argument("--seed", type=int, default=1)
    options = asked.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started, chance = time.monotonic(), np.random.default_rng(options.seed)
    judged = list(_said(acceptance.checks(chance, streams=500 if options.quick else 4_000)))
    judged += _said(service.checks(chance, rollouts=60 if options.quick else 300))
    found = list(rows(chance, streams=200 if options.quick else 1_000))
    table = [*_table(found)]
    print("\n".join(table))
    if not options.quick:
        _write(
            found,
            ["## The figures", "", *_figures(judged), "", "## Every rule", "", *table],
            seed=options.seed,
        )
    failed = [check.name for check in judged if not check.holds]
    print(
        f"\nseed {options.seed}, {time.monotonic() - started:.0f} s: {', '.join(failed) or 'every figure holds'}"
    )
    return 1 if failed else 0


def _said(checks: Iterable[Check]) -> Iterator[Check]:
    for check in checks:
        print(
            f"{'ok  ' if check.holds else 'FAIL'}  {check.name}: {_plain(check.value)} ({_limit(check)})",
            flush=True,
        )
        yield check


def _limit(check: Check) -> str:
    return f"{'at least' if check.at_least else 'at most'} {_plain(check.limit)}"


def _plain(value: float) -> str:
    return f"{value:.2%}" if 0 < value < 1 else f"{value:,.0f}"


def _figures(judged: Sequence[Check]) -> Iterator[str]:
    yield "| figure | found | must be | |"
    yield "| --- | --- | --- | --- |"
    for check in judged:
        yield f"| {check.name} | {_plain(check.value)} | {_limit(check)} | {'holds' if check.holds else '**fails**'} |"


def _table(found: Sequence[Row]) -> Iterator[str]:
    yield f"| a day | look each | rule | false at half | false at limit | {' | '.join(CHANGED)} |"
    yield f"|{' --- |' * (5 + len(CHANGED))}"
    for row in found:
        false = " | ".join(f"{share:.1%}" for share in row.false.values())
        delays = " | ".join(_hours(row.delay[effect]) for effect in CHANGED)
        yield f"| {row.volume:,} | {row.looks} | {row.rule} | {false} | {delays} |"


def _hours(delay: tuple[float, float] | None) -> str:
    """Median and 95th percentile; `never` is not within the horizon."""
    if delay is None:
        return "gone before"
    return " / ".join("never" if math.isinf(hours) else f"{hours:.2g} h" for hours in delay)


def _write(found: Sequence[Row], lines: Sequence[str], *, seed: int) -> None:
    """The figures go between the page's markers; what people wrote stays."""
    page, begin, end = _DOCS / "guardrails.md", "<!-- measured -->", "<!-- end -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    command = f"Written by `make bench-guardrails` (`python -m tests.bench.guardrails --seed {seed}`)."
    page.write_text("\n".join([f"{before}{begin}", command, "", *lines, f"{end}{after}"]), encoding="utf-8")
    volume, effect = _SHOWN
    (_DOCS / "guardrails.svg").write_text(svg(found, volume=volume, effect=effect), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
