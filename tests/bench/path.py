"""What does a recorded decision cost over a bare echo, and does watching the model cost a caller anything?

Run by `make bench-path`. Every figure is a ratio of two measurements in this run.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import uvloop

from tests.bench.load import CONNECTIONS, Load, drive, free_port, post, resident_mib, server

_KEY = "bench-" + "k" * 40
_SECONDS = float(os.environ.get("PHASEGATE_TEST_BENCH_SECONDS", "6"))
_ROUNDS = int(os.environ.get("PHASEGATE_TEST_BENCH_ROUNDS", "5"))
_MEMORY_RUNS = 20  # at most
_GOAL, _LATENCY_GOAL, _MEMORY_GOAL_MIB = 0.45, 1.1, 250


def _situation(number: int) -> bytes:
    roles = ("viewer", "member", "developer", "maintainer")
    return json.dumps(
        {
            "action_type": ("read", "write", "commit", "deploy")[number % 4],
            "actor_role": roles[number // 4 % 4],
            "actor_id": f"actor-{number % 997}",
            "t3_tensor": {"competence": 0.8, "reliability": 0.7, "integrity": 0.9},
            "resource": f"docs/public/page-{number % 211}.md",
            "recent_history": "12 reads and 3 edits this week, no incident",
        }
    ).encode()


_BODIES = [_situation(number) for number in range(1_000)]


def _asks(path: str) -> "itertools.cycle[bytes]":
    return itertools.cycle([post(path, body, key=_KEY) for body in _BODIES])


def _environment(data_dir: Path, port: int, *, model: str) -> dict[str, str]:
    return {
        "PHASEGATE_DATA_DIR": str(data_dir),
        "PHASEGATE_PORT": str(port),
        "PHASEGATE_ADMIN_KEY": _KEY,
        "PHASEGATE_MODEL": model,
        "PHASEGATE_DRILLS": "1",
    }


def _phasegate(
    data_dir: Path, port: int, *, model: str, ready: str = "/health/ready"
) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    return server(
        ["-m", "app.cli", "serve"],
        port,
        env=_environment(data_dir, port, model=model),
        ready=ready,
        # With a model the worker needs the second core, where the load comes from too.
        is_pinned=model == "off",
    )


def _run(port: int, path: str, *, pause_s: float = 0.0, seconds: float = _SECONDS) -> Load:
    asks = _asks(path)
    return uvloop.run(drive(port, lambda: next(asks), seconds=seconds, pause_s=pause_s))


def throughput(scratch: Path) -> dict[str, float]:
    """Requests a second of both servers, alternating; and the memory after 100,000 decisions."""
    echo_port, gate_port = free_port(), free_port()
    echo = server(["-m", "tests.bench.echo", str(echo_port)], echo_port, env={}, ready="/health/live")
    with echo, _phasegate(scratch / "path", gate_port, model="off") as process:
        _run(echo_port, "/echo", seconds=1)
        _run(gate_port, "/v1/decisions", seconds=1)
        pairs = []
        for _ in range(_ROUNDS):
            bare, gate = _run(echo_port, "/echo"), _run(gate_port, "/v1/decisions")
            assert not bare.failures
            assert not gate.failures
            pairs.append((bare, gate))
        decided = sum(len(gate.latencies) for _, gate in pairs)
        for _ in range(_MEMORY_RUNS):
            if decided >= 100_000:
                break
            decided += len(_run(gate_port, "/v1/decisions").latencies)
        memory = resident_mib(process.pid)
    return {
        "echo_per_second": statistics.median(bare.per_second for bare, _ in pairs),
        "decisions_per_second": statistics.median(gate.per_second for _, gate in pairs),
        "ratio": statistics.median(gate.per_second / bare.per_second for bare, gate in pairs),
        "decision_p99_ms": statistics.median(gate.percentile_ms(0.99) for _, gate in pairs),
        "decided": decided,
        "resident_mib": memory,
    }


def observation(scratch: Path, *, per_second: float) -> dict[str, float]:
    """p99 of a caller at half load: the model's worker saturated, over the model off."""
    off_port, on_port = free_port(), free_port()
    pause_s = CONNECTIONS / per_second
    with _phasegate(scratch / "off", off_port, model="off"), _phasegate(scratch / "on", on_port, model="on"):
        _run(off_port, "/v1/decisions", pause_s=pause_s, seconds=1)
        _run(on_port, "/v1/decisions", pause_s=pause_s, seconds=3)
        ratios, offs, ons = [], [], []
        for _ in range(_ROUNDS):
            off = _run(off_port, "/v1/decisions", pause_s=pause_s).percentile_ms(0.99)
            on = _run(on_port, "/v1/decisions", pause_s=pause_s).percentile_ms(0.99)
            ratios.append(on / off)
            offs.append(off)
            ons.append(on)
    return {
        "p99_off_ms": statistics.median(offs),
        "p99_saturated_ms": statistics.median(ons),
        "ratio": statistics.median(ratios),
    }


def main() -> int:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        path = throughput(Path(folder))
        print(json.dumps({"bench": "path", **path}))
        print(
            f"a recorded decision: {path['decisions_per_second']:.0f}/s over {path['echo_per_second']:.0f}/s of a bare "
            f"echo = {path['ratio']:.2f} (goal {_GOAL}); {path['resident_mib']:.0f} MiB after {path['decided']:.0f} "
            f"decisions (goal {_MEMORY_GOAL_MIB})"
        )
        watched = observation(Path(folder), per_second=path["decisions_per_second"] / 2)
        print(json.dumps({"bench": "observation", **watched}))
        print(
            f"shadow observation: p99 {watched['p99_saturated_ms']:.2f} ms with the worker saturated over "
            f"{watched['p99_off_ms']:.2f} ms with the model off = {watched['ratio']:.2f} (goal {_LATENCY_GOAL})"
        )
    met = (
        path["ratio"] >= _GOAL
        and watched["ratio"] <= _LATENCY_GOAL
        and path["resident_mib"] <= _MEMORY_GOAL_MIB
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
