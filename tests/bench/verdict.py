"""How long after a wrong-allow verdict is the next decision the legacy engine's?

One instance over SQLite, with the real model; each sample is a high-risk rollout of its own.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.journey.load import Load, mixed, under_load
from tests.journey.policies import LEGACY, about, rollouts, situation
from tests.journey.server import Server

_SAMPLES = 20
_CALLERS = 16  # of a rollout in shadow, beside the verdicts
_GOAL_MS = 100.0
_CACHE = Path.home() / ".cache" / "phasegate"


def _sample(server: Server, reviewer_key: str, rollout: str) -> tuple[float, float]:
    """Milliseconds from the verdict, and from its answer, to the legacy engine's next decision."""
    wrong = server.decide(situation(rollout))
    if (wrong["answered_by"], wrong["decision"]) != ("model", "allow"):
        raise SystemExit(f"the model did not allow what it was to allow: {wrong}")
    with server.client(reviewer_key) as reviewer:
        reviewer.get("/health/live")  # so that no connection is opened while the clock runs
        sent = time.perf_counter()
        reviewer.post(f"/v1/decisions/{wrong['id']}/report", json={"decision": "deny"}).raise_for_status()
        told = time.perf_counter()
        while server.decide(situation(rollout, 1))["answered_by"] != "legacy":
            pass
        answered = time.perf_counter()
    return (answered - sent) * 1000, (answered - told) * 1000


async def measure(server: Server) -> dict[str, dict[str, float]]:
    key = server.key("reviewer")
    load = Load(server.port, mixed(about("watched")))
    async with under_load(load, _CALLERS):
        busy = [await asyncio.to_thread(_sample, server, key, f"busy{n}") for n in range(_SAMPLES)]
    idle = [await asyncio.to_thread(_sample, server, key, f"idle{n}") for n in range(_SAMPLES)]
    return {"idle": _summary(idle), "under_load": _summary(busy)}


def _summary(samples: list[tuple[float, float]]) -> dict[str, float]:
    since_sent, since_told = zip(*samples, strict=True)
    return {
        "since_verdict_sent_ms": round(statistics.median(since_sent), 1),
        "since_verdict_sent_ms_max": round(max(since_sent), 1),
        "since_verdict_answered_ms": round(statistics.median(since_told), 1),
    }


def main() -> int:
    judged = [f"{kind}{n}" for kind in ("busy", "idle") for n in range(_SAMPLES)]
    with tempfile.TemporaryDirectory(prefix="phasegate-bench-") as name:
        text = rollouts(watched="risk: low", **dict.fromkeys(judged, "risk: high"))
        server = Server(Path(name), _CACHE, rollouts=text, legacy=LEGACY)
        server.place(**dict.fromkeys(judged, "enforced"))
        try:
            server.start()
            found = asyncio.run(measure(server))
        finally:
            server.kill()
    worst = max(each["since_verdict_sent_ms_max"] for each in found.values())
    print(json.dumps({**found, "goal_ms": _GOAL_MS, "ratio": round(worst / _GOAL_MS, 3)}))
    return 0 if worst < _GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main())
