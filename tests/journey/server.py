"""How does a test get a real server, kill it, start it again and read what it left behind?"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from app.domain.clock import to_us
from app.domain.phase import Phase
from app.services.policies import PolicyFiles, settle_at_start
from app.store.chain import Verification, verify
from app.store.database import Database
from app.store.rollouts import lock_state, save_state
from app.store.tables import chain, decisions
from app.store.transaction import transaction

ROOT = Path(__file__).parents[2]
VERSION = "smollm2-135m-q8-policy-2"
ADMIN_KEY = "journey-" + "k" * 40
PATIENCE_S = 60.0  # for what takes a second on an idle machine

Document = dict[str, Any]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], *, within_s: float = PATIENCE_S, what: str = "it") -> float:
    """Wait for another process; returns how long it took. Fails the test where it takes too long."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, f"{what} did not happen within {within_s} s"
        time.sleep(0.02)
    return time.monotonic() - began


def is_running(pid: int) -> bool:
    """A zombie does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


class Server:
    """`phasegate serve` in a process of its own, over a folder that outlives it."""

    def __init__(self, folder: Path, cache_dir: Path, *, rollouts: str, legacy: str, **settings: str) -> None:
        """`settings` are PHASEGATE_* variables in lower case."""
        self.folder, self.port = folder, free_port()
        self.policies_dir, self.data_dir = folder / "policies", folder / "data"
        self.output = folder / "output.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._cache_dir, self._settings = cache_dir, settings
        self._client: httpx.Client | None = None
        self._write_policies(rollouts, legacy)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        return self._settings.get("database_url", f"sqlite:///{self.data_dir / 'phasegate.db'}")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def worker(self) -> int:
        """The model worker's process id."""
        (worker,) = children(self.pid)
        return worker

    @property
    def admin(self) -> httpx.Client:
        if self._client is None:
            self._client = self.client(ADMIN_KEY)
        return self._client

    def client(self, key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False)

    def key(self, *roles: str) -> str:
        """A new key with these roles."""
        made = self.admin.post("/v1/keys", json={"name": "-".join(roles), "roles": roles})
        assert made.status_code == 200, made.text
        return str(made.json()["key"])

    def place(self, **phases: str) -> None:
        """Put rollouts into their phases, for all actors, before the first start."""
        self.data_dir.mkdir(exist_ok=True)
        database = Database(self.database_url)
        database.migrate()
        now = datetime.now(UTC)
        files = PolicyFiles(self.policies_dir, "rules")
        with transaction(database, "set-up", now_us=to_us(now)) as tx:
            settle_at_start(tx, files.read(), version=VERSION, now=now)
            for name, phase in phases.items():
                state = lock_state(tx, name)
                placed = replace(state, phase=Phase(phase), revision=state.revision + 1, exposure=1.0)
                save_state(tx, placed, was=state.revision)
        database.close()

    def environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PHASEGATE_")}
        settings = {
            "port": str(self.port),
            "data_dir": str(self.data_dir),
            "policies_dir": str(self.policies_dir),
            "cache_dir": str(self._cache_dir),
            "admin_key": ADMIN_KEY,
            "drills": "1",
            **self._settings,
        }
        return ours | {f"PHASEGATE_{name.upper()}": value for name, value in settings.items()}

    def start(self, *, ready: str = "/health/ready") -> float:
        """Start it and wait until it is ready; returns the seconds that took."""
        with self.output.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve"],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        return until(lambda: self._answers(ready), what=f"start: {self.words()}")

    def refuse(self) -> tuple[int, str, float]:
        """Start one that is expected to end by itself: exit code, stderr and how long it took."""
        began = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "app.cli", "serve"],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        return ended.returncode, ended.stderr, time.monotonic() - began

    def kill(self) -> None:
        """As a crash of the machine's memory would: nothing gets to say goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As an operator would; returns the exit code."""
        return self._end(signal.SIGTERM)

    def words(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def log(self) -> list[Document]:
        """Every event of its log."""
        return [json.loads(line) for line in (self.data_dir / "phasegate.log").read_text().splitlines()]

    def health(self) -> Document:
        return dict(self.admin.get("/health").json())

    def phases(self) -> dict[str, str]:
        found = self.admin.get("/v1/rollouts").json()["rollouts"]
        return {rollout["name"]: rollout["phase"] for rollout in found}

    def phase(self, rollout: str) -> str:
        return str(self.admin.get(f"/v1/rollouts/{rollout}").json()["phase"])

    def transitions(self, rollout: str) -> list[Document]:
        return list(self.admin.get(f"/v1/rollouts/{rollout}/transitions").json()["transitions"])

    def decide(self, situation: Document) -> Document:
        answer = self.admin.post("/v1/decisions", json=situation)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def fault(self, fault: str | None) -> None:
        assert self.admin.post("/v1/drills/fault", json={"fault": fault}).status_code == 200

    def gauge(self, name: str) -> float:
        lines = self.admin.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])

    def _write_policies(self, rollouts: str, legacy: str) -> None:
        self.policies_dir.mkdir()
        for shared in ("versions", "prompts"):
            (self.policies_dir / shared).symlink_to(ROOT / "policies" / shared)
        (self.policies_dir / "rollouts.yaml").write_text(rollouts, encoding="utf-8")
        (self.policies_dir / "legacy.yaml").write_text(legacy, encoding="utf-8")

    def _answers(self, path: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.words()
        with contextlib.suppress(httpx.TransportError):
            return self.admin.get(path).status_code == 200
        return False

    def _end(self, how: signal.Signals) -> int:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(how)
        try:
            return process.wait(PATIENCE_S)
        finally:
            process.kill()


@contextlib.contextmanager
def started(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def recorded(server: Server) -> dict[str, Document]:
    """Every decision in the ledger by id, read past the server."""
    with _opened(server) as database, database.read() as connection:
        return {row["id"]: dict(row) for row in connection.execute(select(decisions)).mappings()}


def chains(server: Server) -> set[str]:
    """The instances that have a hash chain."""
    with _opened(server) as database, database.read() as connection:
        return set(connection.execute(select(chain.c.instance).distinct()).scalars())


def verified(server: Server) -> Verification:
    with _opened(server) as database, database.read() as connection:
        return verify(connection)


@contextlib.contextmanager
def _opened(server: Server) -> Iterator[Database]:
    database = Database(server.database_url)
    try:
        yield database
    finally:
        database.close()
