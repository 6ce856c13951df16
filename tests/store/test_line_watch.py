"""Does a transaction end that a frozen database would never end?"""

import socket
import threading

from app.store.line_watch import LineWatch


def test_a_transaction_that_lasts_too_long_loses_its_connection() -> None:
    watch = LineWatch(every_s=0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs, watch.over(ours.fileno(), at_most_s=0.05):
        ours.settimeout(10)
        assert ours.recv(1) == b""
    watch.close()


def test_a_connection_outlives_its_transactions() -> None:
    watch = LineWatch(every_s=0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with watch.over(ours.fileno(), at_most_s=0.05):
            ours.sendall(b"x")
        other, peer = socket.socketpair()
        with (
            other,
            peer,
            watch.over(other.fileno(), at_most_s=0.1),
        ):  # cut: by then the watch has looked again
            other.settimeout(10)
            assert other.recv(1) == b""
        theirs.settimeout(10)
        assert theirs.recv(2) == b"x"
        ours.sendall(b"y")
        assert theirs.recv(2) == b"y"
    watch.close()


def test_closing_it_ends_its_thread_and_it_can_begin_again() -> None:
    watch = LineWatch(every_s=0.01)
    for _ in range(2):
        ours, theirs = socket.socketpair()
        with ours, theirs, watch.over(ours.fileno(), at_most_s=0.05):
            assert "line watch" in {thread.name for thread in threading.enumerate()}
        watch.close()
        assert "line watch" not in {thread.name for thread in threading.enumerate()}
