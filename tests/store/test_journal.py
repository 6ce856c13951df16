"""Does the journal keep what it took, and nothing else?"""

import os
from pathlib import Path

import pytest

from app.store.entry import decode, encode
from app.store.journal import Journal
from tests.store.samples import decision


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "journal"


def everything(journal: Journal) -> list[bytes]:
    payloads, end = journal.read(0, limit=1_000)
    assert end == journal.size
    return payloads


def reopened(path: Path) -> tuple[list[bytes], int]:
    journal = Journal(path)
    found = everything(journal), journal.torn_bytes
    journal.close()
    return found


def filled(path: Path, *payloads: bytes) -> None:
    journal = Journal(path)
    journal.append(payloads)
    journal.close()


def test_what_was_appended_is_there_after_a_restart(path: Path) -> None:
    filled(path, b"one", b"two")
    filled(path, b"three")
    assert reopened(path) == ([b"one", b"two", b"three"], 0)


def test_an_entry_comes_back_as_it_went_in() -> None:
    entry = decision(actor="жук")
    assert decode(encode(entry)) == entry


@pytest.mark.parametrize("cut", range(1, 13))
def test_a_torn_tail_is_cut_off_and_reported(path: Path, cut: int) -> None:
    filled(path, b"whole", b"torn!")
    os.truncate(path, path.stat().st_size - cut)
    assert reopened(path) == ([b"whole"], 13 - cut)
    assert path.with_name("journal.torn").stat().st_size == 13 - cut
    filled(path, b"later")
    assert reopened(path) == ([b"whole", b"later"], 0)


@pytest.mark.parametrize("tail", [b"\0" * 64, b"\xff" * 64], ids=["zeros", "ones"])
def test_a_tail_that_was_never_written_is_cut_off(path: Path, tail: bytes) -> None:
    filled(path, b"whole")
    with path.open("ab") as file:
        file.write(tail)
    assert reopened(path) == ([b"whole"], 64)


def test_a_frame_with_a_flipped_bit_is_not_believed(path: Path) -> None:
    filled(path, b"whole", b"flipped")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert reopened(path)[0] == [b"whole"]


def test_a_failed_append_leaves_no_half_frame_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    journal.append([b"before"])
    pwrite = os.pwrite

    def full_disk(file: int, data: bytes, offset: int) -> int:
        pwrite(file, data[:5], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full_disk)
    with pytest.raises(OSError, match="No space"):
        journal.append([b"lost"])
    monkeypatch.undo()
    journal.append([b"after"])
    journal.close()
    assert reopened(path) == ([b"before", b"after"], 0)


def test_short_writes_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:3], offset))
    filled(path, b"a long payload")
    assert reopened(path) == ([b"a long payload"], 0)


def test_it_is_read_in_parts(path: Path) -> None:
    filled(path, b"1", b"2", b"3")
    journal = Journal(path)
    first, offset = journal.read(0, limit=2)
    assert (first, journal.read(offset, limit=2)[0]) == ([b"1", b"2"], [b"3"])
    journal.clear()
    assert (journal.size, everything(journal)) == (0, [])
    journal.close()
