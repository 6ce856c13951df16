"""Where do records wait while the database is away?"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from app.observability import Event

_HEADER = struct.Struct("<II")  # length and CRC-32 of what follows
_LARGEST = 64 * 2**20

log = structlog.get_logger(__name__)


class Journal:
    """A file of frames, each length, checksum and payload; appended frames are on the disk.

    One process owns it. A tail that a crash tore is cut off when the file is opened (`torn_bytes`): nobody
    was told that it was recorded. What is cut off or set aside is kept beside the file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _sync_directory(path.parent)
        self._size = sum(_HEADER.size + len(payload) for payload in self._frames(0))
        self.torn_bytes = os.fstat(self._file).st_size - self._size
        if self.torn_bytes:
            self._keep(".torn", os.pread(self._file, self.torn_bytes, self._size))
            os.ftruncate(self._file, self._size)
            log.warning(Event.JOURNAL_TORN, path=str(path), bytes=self.torn_bytes)

    @property
    def size(self) -> int:
        """Bytes of whole frames."""
        return self._size

    def append(self, payloads: Iterable[bytes]) -> None:
        """Write the frames and fsync them: all, or none where it raises `OSError`."""
        block = b"".join(_HEADER.pack(len(payload), zlib.crc32(payload)) + payload for payload in payloads)
        # A failed append may have left half a frame, behind which nothing would be found again.
        os.ftruncate(self._file, self._size)
        _write(self._file, block, self._size)
        os.fsync(self._file)
        self._size += len(block)

    def read(self, offset: int, *, limit: int) -> tuple[list[bytes], int]:
        """At most `limit` payloads from `offset` on, oldest first, and the offset behind them."""
        payloads: list[bytes] = []
        for payload in self._frames(offset):
            payloads.append(payload)
            offset += _HEADER.size + len(payload)
            if len(payloads) == limit:
                break
        return payloads, offset

    def clear(self) -> None:
        """Everything has been replayed."""
        os.ftruncate(self._file, 0)
        os.fsync(self._file)
        self._size = 0

    def set_aside(self, payload: bytes) -> None:
        """Keep a payload that the database refuses for a person to look at."""
        self._keep(".rejected", _HEADER.pack(len(payload), zlib.crc32(payload)) + payload)

    def close(self) -> None:
        """Later appends fail; they cannot hit another file that has got the same number."""
        file, self._file = self._file, -1
        os.close(file)

    def _frames(self, offset: int) -> Iterator[bytes]:
        """Whole frames from `offset` to the end, or to the first that is torn."""
        while len(header := os.pread(self._file, _HEADER.size, offset)) == _HEADER.size:
            length, checksum = _HEADER.unpack(header)
            payload = os.pread(self._file, length, offset + _HEADER.size) if 0 < length <= _LARGEST else b""
            if len(payload) != length or not payload or zlib.crc32(payload) != checksum:
                return
            yield payload
            offset += _HEADER.size + length

    def _keep(self, suffix: str, block: bytes) -> None:
        path = self._path.with_name(self._path.name + suffix)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, block)
            os.fsync(file)
        finally:
            os.close(file)


def _write(file: int, block: bytes, offset: int) -> None:
    view = memoryview(block)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
