import asyncio
import json
from contextlib import suppress

import pytest

from app.engines.legacy.servers import JsonPeer, PeerError
from tests.peer import Peer, Reply


async def test_a_question_that_has_left_is_not_asked_again(peer: Peer) -> None:
    peer.replies(Reply(503, {}), Reply(200, {"ok": True}))
    asking = JsonPeer(peer.url, deadline_s=5)
    with pytest.raises(PeerError, match="503"):
        await asking.ask({})
    await asking.close()
    assert len(peer.seen) == 1


async def test_a_redirect_is_not_followed(peer: Peer) -> None:
    peer.replies(Reply(307, b"", {"Location": peer.url}), Reply(200, {"ok": True}))
    asking = JsonPeer(peer.url, deadline_s=5)
    with pytest.raises(PeerError, match="307"):
        await asking.ask({})
    await asking.close()


async def test_an_answer_without_end_is_cut_off(peer: Peer) -> None:
    peer.replies(Reply(body=json.dumps("x" * 300_000).encode()))
    asking = JsonPeer(peer.url, deadline_s=5)
    with pytest.raises(PeerError, match="too large"):
        await asking.ask({})
    await asking.close()


async def test_the_deadline_is_one_for_all_and_not_one_a_byte() -> None:
    hung_up = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)  # the peer's pace, far below the deadline
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        hung_up.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        asking = JsonPeer(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", deadline_s=0.3)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asking.ask({}), 20)
        await asking.close()
        await asyncio.wait_for(hung_up.wait(), 20)
