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
from tests.bench.guardrails.acceptance import Check, at_most
from tests.bench.guardrails.chart import svg
from tests.bench.guardrails.rules import ALPHA, OURS
from tests.bench.guardrails.table import CHANGED, HEALTHY, Delay, Row, rows

_DOCS = Path(__file__).parents[3] / "docs"
_USUAL = 1_000  # decisions a day
_LEGEND = (
    "Streams rolled back within 14 days whose rate was half of the limit, or exactly the limit; then how long it takes",
    "after a rise, on day 2, from half of the limit to a multiple of it: median / 95th percentile. `never`: not within",
    "the horizon. `gone before`: hardly a stream was left to become bad.",
)


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.bench.guardrails")
    asked.add_argument("--quick", action="store_true", help="fewer streams: about a minute")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--write", action="store_true", help="write also what the quick form found")
    options = asked.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started, chance = time.monotonic(), np.random.default_rng(options.seed)
    streams = 500 if options.quick else 4_000
    judged = list(_said(acceptance.checks(chance, streams=streams)))
    judged += _said(service.checks(chance, rollouts=60 if options.quick else 300))
    found = list(rows(chance, streams=200 if options.quick else 2_000))
    print("\n".join(_table(found)))
    judged += _said(_of_table(found, streams=200 if options.quick else 2_000))
    if options.write or not options.quick:
        command = f"python -m tests.bench.guardrails{' --quick' * options.quick} --seed {options.seed}"
        _write(
            found, [*_figures(judged), "", *_page(found, streams=200 if options.quick else 2_000)], command
        )
    failed = [check.name for check in judged if not check.holds]
    print(
        f"seed {options.seed}, {time.monotonic() - started:.0f} s: {', '.join(failed) or 'every figure holds'}"
    )
    return 1 if failed else 0


def _of_table(found: Sequence[Row], *, streams: int) -> Iterator[Check]:
    """Ours over all volumes and rhythms; what a mean of them has to keep, each has to keep."""
    own = [row.rolled_back for row in found if row.rule == OURS]
    half, limit = (sum(each[effect] for each in own) / len(own) for effect in HEALTHY)
    yield Check("false rollbacks at the limit, over all volumes and looks", limit, at_most(ALPHA, streams))
    yield Check("false rollbacks at half of it, over all volumes and looks", half, 0.002)


def _said(checks: Iterable[Check]) -> Iterator[Check]:
    for check in checks:
        print(
            f"{'ok  ' if check.holds else 'FAIL'}  {check.name}: {_plain(check.value, check)} ({_limit(check)})",
            flush=True,
        )
        yield check


def _limit(check: Check) -> str:
    return f"{'at least' if check.at_least else 'at most'} {_plain(check.limit, check)}"


def _plain(value: float, check: Check) -> str:
    is_share = 0 < check.limit < 1 or 0 < value < 1
    return f"{value:.2%}" if is_share else f"{value:,.0f}"


def _figures(judged: Sequence[Check]) -> Iterator[str]:
    yield "| figure | found | must be | |"
    yield "| --- | --- | --- | --- |"
    for check in judged:
        yield f"| {check.name} | {_plain(check.value, check)} | {_limit(check)} | {'holds' if check.holds else '**fails**'} |"


def _page(found: Sequence[Row], *, streams: int) -> Iterator[str]:
    """The usual volume for everybody to see, the others for whoever asks."""
    yield from ("## Every rule", "", *_LEGEND)
    yield f"{streams:,} streams a cell, {streams // 4:,} at 10,000 a day: one of them is {1 / streams:.2%} or {4 / streams:.2%}."
    yield from ("", *_table([row for row in found if row.volume == _USUAL]), "")
    yield from ("<details><summary>At 100 and 10,000 decisions a day</summary>", "")
    yield from (*_table([row for row in found if row.volume != _USUAL]), "", "</details>")


def _table(found: Sequence[Row]) -> Iterator[str]:
    yield f"| a day | look each | rule | false at half | false at limit | {' | '.join(CHANGED)} |"
    yield f"|{' --- |' * (5 + len(CHANGED))}"
    for row in found:
        false = " | ".join(f"{row.rolled_back[effect]:.1%}" for effect in HEALTHY)
        delays = " | ".join(_span(row.delay[effect]) for effect in CHANGED)
        yield f"| {row.volume:,} | {row.looks} | {row.rule} | {false} | {delays} |"


def _span(delay: Delay) -> str:
    return "gone before" if delay is None else " / ".join(map(_time, delay))


def _time(hours: float) -> str:
    if math.isinf(hours):
        return "never"
    if hours >= 48:
        return f"{hours / 24:.1f} d"
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"


def _write(found: Sequence[Row], lines: Sequence[str], command: str) -> None:
    """What was measured goes between the page's markers; what people wrote stays."""
    page, begin, end = _DOCS / "guardrails.md", "<!-- measured -->", "<!-- end -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    page.write_text(
        "\n".join([before + begin, f"`{command}` found:", "", *lines, end + after]), encoding="utf-8"
    )
    (_DOCS / "guardrails.svg").write_text(svg(found, volume=_USUAL, effect="2x"), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
