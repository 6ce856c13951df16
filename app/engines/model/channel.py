"""How does the worker hear, and how does it speak?"""

import socket
import threading

import msgspec

from app.engines.model.wire import HEADER, ToWorker, frame


class Channel:
    """The one socket. Two threads write to it, one reads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._writing = threading.Lock()
        self._decoder = msgspec.msgpack.Decoder(ToWorker)

    def send(self, request: int, message: msgspec.Struct) -> None:
        self.send_bytes(frame(request, message))

    def send_bytes(self, data: bytes) -> None:
        with self._writing:
            self._connection.sendall(data)

    def receive(self) -> tuple[int, ToWorker]:
        """The next message. Raises `EOFError` when the other end is gone."""
        length, request = HEADER.unpack(self._exactly(HEADER.size))
        return request, self._decoder.decode(self._exactly(length))

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)
