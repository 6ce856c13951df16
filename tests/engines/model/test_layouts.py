import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from app.engines.model.layouts import Prepared, copy_name, kept, note_of, noted, prepare, requantise
from app.engines.model.runtime import ModelError
from app.engines.model.version import Layout, ModelVersion, prompt_of
from app.engines.model.weights import Weights, find_weights
from tests.engines.model.conftest import POLICIES


@pytest.fixture
def weights(version: ModelVersion, cache_dir: Path) -> Weights:
    return find_weights(version, policies_dir=POLICIES, cache_dir=cache_dir)


def prepared(version: ModelVersion, weights: Weights, cache_dir: Path) -> Prepared:
    prompt = prompt_of(version, policies_dir=POLICIES)
    return prepare(version, weights, prompt=prompt, cache_dir=cache_dir, threads=2)


def declared(version: ModelVersion, layout: Layout | None, *, merge: bool = False) -> ModelVersion:
    replace = msgspec.structs.replace
    adapter = version.adapter and replace(version.adapter, merge=merge)
    return replace(version, model=replace(version.model, requantise=layout), adapter=adapter)


def writes(content: bytes, made: list[bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        made.append(content)
        path.write_bytes(content)

    return make


def test_a_copy_is_made_once_and_its_hash_is_written_beside_it(tmp_path: Path) -> None:
    made: list[bytes] = []
    sha256 = hashlib.sha256(b"weights").hexdigest()
    for _ in range(2):
        assert kept(tmp_path / "copy.gguf", writes(b"weights", made)) == sha256
    assert made == [b"weights"]
    assert (tmp_path / "copy.sha256").read_text(encoding="ascii") == f"{sha256}  copy.gguf\n"


@pytest.mark.parametrize("damage", [b"weighty", b""], ids=["a changed byte", "cut"])
def test_a_damaged_copy_never_serves(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    copy, made = tmp_path / "copy.gguf", list[bytes]()
    kept(copy, writes(b"weights", made))
    copy.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert kept(copy, writes(b"weights", made)) == hashlib.sha256(b"weights").hexdigest()
    assert copy.read_bytes() == b"weights"
    assert "making it anew" in caplog.text


def test_a_copy_of_which_nobody_knows_the_hash_is_made_anew(tmp_path: Path) -> None:
    copy, made = tmp_path / "copy.gguf", list[bytes]()
    copy.write_bytes(b"from an older program, or a stranger")
    kept(copy, writes(b"weights", made))
    assert copy.read_bytes() == b"weights"
    assert noted(copy) == hashlib.sha256(b"weights").hexdigest()


def test_a_copy_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        part.write_bytes(b"half")
        raise ModelError("no")

    with pytest.raises(ModelError):
        kept(tmp_path / "copy.gguf", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    source = tmp_path / "notes.txt"
    source.write_text("no model", encoding="ascii")
    with pytest.raises(ModelError, match=r"notes\.txt cannot be requantised"):
        requantise(source, tmp_path / "copy.gguf", layout="q8_0", threads=1)


def test_the_declared_file_itself_is_loaded_where_no_layout_is_asked_for(
    version: ModelVersion, weights: Weights, tmp_path: Path
) -> None:
    files = prepared(declared(version, None), weights, tmp_path)
    assert (files.model, files.sha256) == (weights.source, weights.sha256)
    assert files.adapter == (weights.adapter, 1.0)


def test_a_copy_is_named_by_all_that_it_was_made_of(version: ModelVersion, weights: Weights) -> None:
    assert version.adapter
    twice = msgspec.structs.replace(version.adapter, merge=True, scale=2.0)
    ways = [
        declared(version, "q8_0"),
        declared(version, "q4_0"),
        declared(version, "q8_0", merge=True),
        msgspec.structs.replace(version, adapter=twice),
    ]
    assert len({copy_name(way, weights) for way in ways}) == len(ways)
    other = msgspec.structs.replace(version, id="other")
    assert copy_name(other, weights) == copy_name(version, weights), "versions share a copy"


def test_the_model_in_another_layout_is_verified_by_its_own_hash(
    version: ModelVersion, weights: Weights, tmp_path: Path
) -> None:
    files = prepared(declared(version, "q4_0"), weights, tmp_path)
    with files.model.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == files.sha256 == noted(files.model)
    assert {path.name for path in tmp_path.iterdir()} == {
        files.model.name,
        note_of(files.model).name,
        "verified.json",
    }
