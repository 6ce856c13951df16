"""The web process's side of a worker's socket, one frame at a time."""

import socket

import msgspec

from app.engines.model.wire import HEADER, Answer, FromWorker, ToWorker, frame


class Peer:
    """Speaks to a worker and waits for what it says."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(120)
        self._file = connection.makefile("rb")
        self._decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)

    def say(self, request: int, message: ToWorker) -> None:
        self._connection.sendall(frame(request, message))

    def hear(self) -> tuple[int, FromWorker]:
        length, request = HEADER.unpack(self._file.read(HEADER.size))
        return request, self._decoder.decode(self._file.read(length))

    def answers(self, count: int) -> list[tuple[int, Answer]]:
        """The next answers, in the order in which they come."""
        found: list[tuple[int, Answer]] = []
        while len(found) < count:
            request, message = self.hear()
            if isinstance(message, Answer):
                found.append((request, message))
        return found

    def close(self) -> None:
        self._file.close()
        self._connection.close()
