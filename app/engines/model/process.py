"""How is a worker process started, and how does it end?"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Self

import app

_ROOT = Path(app.__path__[0]).parent
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "LLAMA_CPP_LIB_PATH",
)


class WorkerProcess:
    """A worker that inherits one socket and nothing else; its stderr is kept for when it dies."""

    def __init__(
        self, process: subprocess.Popen[bytes], connection: socket.socket, stderr: IO[bytes]
    ) -> None:
        self._process = process
        self._stderr = stderr
        self.connection = connection

    @classmethod
    def spawn(cls) -> Self:
        """Start a worker. Raises `OSError`."""
        ours, theirs = socket.socketpair()
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        descriptor = theirs.fileno()
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", "app.engines.model.worker", str(descriptor), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(descriptor,),
                env=environment | {"PYTHONPATH": str(_ROOT)},
            )
        except OSError:
            ours.close()
            stderr.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours, stderr)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()

    async def end(self) -> str:
        """Make sure that it is gone; gives how it ended, with its last words."""
        if self._process.poll() is None:
            self._process.kill()
        code = await asyncio.to_thread(self._process.wait)
        with self._stderr:
            self._stderr.seek(0)
            words = self._stderr.read().decode("utf-8", "replace").split()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"the worker ended by {how}" + (f": {' '.join(words)[-300:]}" if words else "")
