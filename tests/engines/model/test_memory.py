"""Laws of how much memory models are believed to take."""

import os
import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engines.model.memory import bytes_per_token, container_limit, estimate, memory_limit
from app.engines.model.supervisor import ModelSupervisor
from app.engines.model.version import ModelVersion
from app.engines.model.weights import find_model
from tests.engines.model.conftest import POLICIES

UINT32, STRING, ARRAY = 4, 8, 9
UNKNOWN = 128 * 1024


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def whole(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", UINT32, value)


def gguf(*pairs: bytes) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(pairs)


SHAPE = (whole("x.block_count", 32), whole("x.embedding_length", 3072), whole("x.attention.head_count", 24))


def written(directory: Path, content: bytes) -> Path:
    path = directory / "model.gguf"
    path.write_bytes(content)
    return path


def test_the_context_of_the_embedded_model_is_computed_from_its_shape(version: ModelVersion) -> None:
    layers, heads, width = 30, 3, 64
    model = find_model(version, policies_dir=POLICIES)
    assert bytes_per_token(model) == 2 * 2 * layers * heads * width


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        pytest.param(SHAPE, 4 * 32 * 24 * 128, id="every head has keys of its own"),
        pytest.param((*SHAPE, whole("x.attention.head_count_kv", 8)), 4 * 32 * 8 * 128, id="shared"),
        pytest.param((*SHAPE, whole("x.attention.key_length", 64)), 4 * 32 * 24 * 64, id="other width"),
        pytest.param(
            (
                text("general.name") + struct.pack("<I", STRING) + text("a name"),
                *SHAPE,
                text("x.attention.head_count_kv") + struct.pack("<IIQIII", ARRAY, UINT32, 3, 4, 8, 2),
                text("tokenizer.ggml.tokens") + b"never read",
            ),
            4 * 32 * 8 * 128,
            id="by layer",
        ),
        pytest.param(SHAPE[:1], UNKNOWN, id="no shape"),
        pytest.param((*SHAPE[:2], whole("x.attention.head_count", 0)), UNKNOWN, id="no heads"),
    ],
)
def test_the_context_takes_keys_and_values_of_all_layers(
    tmp_path: Path, pairs: tuple[bytes, ...], expected: int
) -> None:
    assert bytes_per_token(written(tmp_path, gguf(*pairs))) == expected


@given(st.binary(max_size=80))
def test_a_file_that_is_no_model_has_an_estimate_all_the_same(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    directory = tmp_path_factory.mktemp("noise")
    assert bytes_per_token(written(directory, noise)) == UNKNOWN
    bytes_per_token(written(directory, gguf(*SHAPE, noise)))


def test_a_longer_context_and_a_wider_layout_take_more(version: ModelVersion) -> None:
    model = find_model(version, policies_dir=POLICIES)
    longer = msgspec.structs.replace(
        version, decoding=msgspec.structs.replace(version.decoding, n_ctx=8 * version.decoding.n_ctx)
    )
    wider = msgspec.structs.replace(version, model=msgspec.structs.replace(version.model, requantise="f16"))
    assert estimate(version, model) < min(estimate(longer, model), estimate(wider, model))


@pytest.mark.model
async def test_a_worker_takes_no_more_than_was_estimated(
    model: ModelSupervisor, version: ModelVersion
) -> None:
    pages = int(_statistics(model.status.pid).split()[1])
    taken = pages * os.sysconf("SC_PAGE_SIZE")
    guessed = estimate(version, find_model(version, policies_dir=POLICIES))
    assert guessed / 4 < taken <= guessed


def _statistics(pid: int | None) -> str:
    return Path(f"/proc/{pid}/statm").read_text(encoding="ascii")


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        pytest.param("0::/a/b", {"a/memory.max": "300", "a/b/memory.max": "max"}, 300, id="v2, above"),
        pytest.param("0::/a/b", {"a/memory.max": "300", "a/b/memory.max": "200"}, 200, id="v2, least"),
        pytest.param("0::/a", {}, None, id="none"),
        pytest.param(
            "3:memory:/a\n4:cpu:/a", {"memory/a/memory.limit_in_bytes": "100\n"}, 100, id="version 1"
        ),
    ],
)
def test_a_container_s_limit_is_the_least_on_the_way_up(
    tmp_path: Path, own: str, files: dict[str, str], expected: int | None
) -> None:
    for name, content in files.items():
        path = tmp_path / "cgroups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "own").write_text(own)
    assert container_limit(tmp_path / "own", tmp_path / "cgroups") == expected


def test_half_of_the_memory_is_there_to_be_used() -> None:
    whole_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory_limit() <= whole_memory // 2
