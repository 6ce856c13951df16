from collections.abc import Mapping
from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from app.engines.model.layouts import prepare
from app.engines.model.merge import SITUATIONS, TOLERANCE, add_adapter, check_merged, read_samples
from app.engines.model.runtime import ModelError
from app.engines.model.version import ModelVersion, prompt_of
from app.engines.model.weights import find_weights
from tests.engines.model.conftest import POLICIES

WEIGHT = "blk.0.attn_q.weight"


def file_of(path: Path, tensors: Mapping[str, NDArray[np.float16]], alpha: float | None = None) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    if alpha is not None:
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def half(*shape: int) -> NDArray[np.float16]:
    return np.random.default_rng(7).normal(size=shape).astype(np.float16)


def read(path: Path, name: str) -> NDArray[np.float16]:
    return np.array(next(tensor.data for tensor in gguf.GGUFReader(path).tensors if tensor.name == name))


def test_an_adapter_is_added_by_its_formula_and_nothing_else_moves(tmp_path: Path) -> None:
    weight, other, down, up = half(6, 8), half(6, 8), half(2, 8), half(6, 2)
    model = file_of(tmp_path / "model", {WEIGHT: weight, "blk.1.attn_q.weight": other})
    adapter = file_of(tmp_path / "adapter", {WEIGHT + ".lora_a": down, WEIGHT + ".lora_b": up}, alpha=8)
    add_adapter(model, adapter, 0.5)
    expected = weight.astype(float) + 0.5 * 8 / 2 * up.astype(float) @ down.astype(float)
    np.testing.assert_allclose(read(model, WEIGHT), expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(read(model, "blk.1.attn_q.weight"), other)


@pytest.mark.parametrize(
    ("target", "inputs"), [("blk.9.attn_q.weight", 8), (WEIGHT, 7)], ids=["another model's", "another shape"]
)
def test_an_adapter_that_does_not_fit_is_named(tmp_path: Path, target: str, inputs: int) -> None:
    model = file_of(tmp_path / "model", {WEIGHT: half(6, 8)})
    parts = {target + ".lora_a": half(2, inputs), target + ".lora_b": half(6, 2)}
    adapter = file_of(tmp_path / "adapter", parts, alpha=8)
    with pytest.raises(ModelError, match=f"adapter cannot be merged: its {target}"):
        add_adapter(model, adapter, 1.0)


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    model = file_of(tmp_path / "model", {WEIGHT: half(6, 8)})
    with pytest.raises(ModelError, match="is no LoRA adapter"):
        add_adapter(model, file_of(tmp_path / "adapter", {WEIGHT: half(6, 8)}), 1.0)


@pytest.mark.parametrize("off", [TOLERANCE + 0.01, np.nan], ids=["too far", "broken"])
def test_a_merged_copy_that_decides_otherwise_is_refused_with_what_to_do(
    version: ModelVersion, off: float
) -> None:
    expected = np.full((len(SITUATIONS), 3), 1 / 3)
    check_merged(version, expected, expected + TOLERANCE / 2)
    with pytest.raises(ModelError, match=r"adapter\.merge"):
        check_merged(version, expected, expected + off)


def test_the_merged_model_decides_as_the_adapter_beside_it(version: ModelVersion, cache_dir: Path) -> None:
    weights = find_weights(version, policies_dir=POLICIES, cache_dir=cache_dir)
    prompt = prompt_of(version, policies_dir=POLICIES)
    assert version.adapter
    replace = msgspec.structs.replace
    found = []
    for merge in (False, True):
        each = replace(version, adapter=replace(version.adapter, merge=merge))
        files = prepare(each, weights, prompt=prompt, cache_dir=cache_dir, threads=1)
        assert (files.adapter is None) == merge
        found.append(read_samples(files.model, each, prompt, adapter=files.adapter, threads=1))
    beside, merged = found
    assert np.abs(beside - merged).max() <= TOLERANCE
    assert (beside.argmax(axis=1) == merged.argmax(axis=1)).all()
    assert len(set(beside.argmax(axis=1))) > 1, "the samples tell decisions apart"
