"""How does the demo get a server that nobody else uses?"""

import asyncio
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.cli.demo.story import Story, Trouble
from app.client import AsyncClient, ClientError
from app.settings import PREFIX, Settings, load_settings

_READY_WITHIN_S = 120.0
_STOP_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class DemoServer:
    url: str
    admin_key: str
    process: asyncio.subprocess.Process


@asynccontextmanager
async def running(story: Story) -> AsyncIterator[DemoServer]:
    """A server on a free port with its own data, gone with all its files at the end."""
    with tempfile.TemporaryDirectory(prefix="phasegate-demo-") as name:
        folder = Path(name)
        settings = load_settings()
        prepare_policies(settings.policies_dir, folder / "policies")
        port, key = _free_port(), f"pg_demo_{secrets.token_urlsafe(24)}"
        output = folder / "output.log"
        with output.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app.cli", "serve"),
                env=_environment(settings, folder, port, key),
                stdout=sink,
                stderr=sink,
            )
        server = DemoServer(f"http://127.0.0.1:{port}", key, process)
        try:
            await _ready(server, output, story)
            yield server
        finally:
            await _stopped(process)


def prepare_policies(source: Path, target: Path) -> Path:
    """A copy of the policy files with the demo's rollouts in the place of the real ones."""
    shutil.copytree(source, target)
    shutil.copyfile(source / "demo" / "rollouts.yaml", target / "rollouts.yaml")
    return target


def _environment(settings: Settings, folder: Path, port: int, key: str) -> dict[str, str]:
    """Ours without its Phasegate settings, so that no real database is touched; the model cache is shared."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return ours | {
        "PHASEGATE_PORT": str(port),
        "PHASEGATE_DATA_DIR": str(folder / "data"),
        "PHASEGATE_POLICIES_DIR": str(folder / "policies"),
        "PHASEGATE_CACHE_DIR": str(settings.cache_dir),
        "PHASEGATE_ADMIN_KEY": key,
        "PHASEGATE_DRILLS": "1",
        "PHASEGATE_GUARDRAIL_INTERVAL_S": "1",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _ready(server: DemoServer, output: Path, story: Story) -> None:
    """Wait until the model has loaded; a server that ends before says why."""
    until = time.monotonic() + _READY_WITHIN_S
    async with AsyncClient(server.url) as client:
        while time.monotonic() < until:
            if server.process.returncode is not None:
                raise Trouble(f"the server ended at its start:\n{_last_words(output)}")
            try:
                await client.get("/health/ready")
            except ClientError:
                await asyncio.sleep(0.1)
                continue
            sentence = f"A server of its own is ready on {server.url}: the model has loaded."
            story.tell("ready", sentence, url=server.url)
            return
    raise Trouble(f"the model did not load within {_READY_WITHIN_S:.0f} s")


def _last_words(output: Path) -> str:
    return output.read_text(encoding="utf-8", errors="replace")[-2_000:]


async def _stopped(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
