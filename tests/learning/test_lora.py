"""Does training see the model that serves, and does what it learns arrive there?"""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

import gguf
import numpy as np

from app.domain.decision import Decision
from app.domain.situation import parse_situation
from app.engines.model.version import choose_version, load_versions, prompt_of
from app.engines.model.weights import find_weights
from app.learning.corrections import Example
from app.learning.lora import check as checking
from app.learning.lora import train as training
from app.learning.lora.adapter import Adapter, AdapterError, read_adapter, write_adapter
from app.learning.lora.check import Parity, check
from app.learning.lora.net import Net, UnsupportedModel
from app.learning.lora.served import Served, base_of, views_of
from app.learning.lora.train import NothingLearnt, Progress, Recipe, train
from tests.policyset.generator import POLICIES, generate

pytestmark = pytest.mark.model

SHIPPED = POLICIES / "versions" / "smollm2-policy-2-f16.gguf"
VERSION = choose_version(load_versions(POLICIES))
PROMPT = prompt_of(VERSION, policies_dir=POLICIES)
NAMES = [f"blk.{layer}.{part}.weight" for layer in range(30) for part in ("attn_q", "ffn_down")]


def examples(n: int) -> list[Example]:
    return [
        Example(each.id, parse_situation(each.situation), each.decision, each.legacy)
        for each in generate("train", n=n, seed=1)
    ]


SOME = examples(4)
SHORT = Recipe(rank=4, alpha=8, batch=4, warm_up=1, epochs=4, rate=1e-3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache_dir = tmp_path_factory.mktemp("cache")
    weights = find_weights(VERSION, policies_dir=POLICIES, cache_dir=cache_dir)
    prompt = prompt_of(VERSION, policies_dir=POLICIES)
    return base_of(VERSION, weights, prompt=prompt, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def story(base: Path) -> tuple[Adapter, list[Progress]]:
    """A short training from nothing, and what it told."""
    told: list[Progress] = []
    return train(base, PROMPT, SOME, recipe=SHORT, progress=told.append), told


def test_training_computes_what_llama_cpp_does(base: Path) -> None:
    parity = check(base, SHIPPED, PROMPT, SOME, threads=2)
    assert parity.holds
    assert parity.views == 2 * len(SOME)


def test_a_check_refuses_what_rounding_does_not_explain(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "MEAN_GAP", 0.001)
    with pytest.raises(AdapterError, match=r"llama\.cpp and training differ by"):
        check(base, SHIPPED, PROMPT, SOME[:1], threads=2)


@pytest.mark.parametrize(
    ("parity", "holds"),
    [
        (Parity(8, 0.1, 0), True),
        (Parity(8, 0.3, 0), False),
        (Parity(8, 0.1, 1), False),
    ],
    ids=["rounding", "far apart on average", "a sure decision flips"],
)
def test_parity_allows_rounding_and_no_flip(parity: Parity, *, holds: bool) -> None:
    assert parity.holds is holds


def test_an_adapter_that_has_learnt_nothing_changes_no_bit(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "zero.gguf"
    write_adapter(path, Net(base, Adapter(4, 8, {}), seed=1).adapter())
    lines = views_of(SOME[0])[0]
    with Served(base, PROMPT) as bare, Served(base, PROMPT, adapter=path) as adapted:
        assert np.array_equal(bare.label_logits(lines), adapted.label_logits(lines))


def test_a_few_steps_lower_the_loss(story: tuple[Adapter, list[Progress]]) -> None:
    _, told = story
    first, last = told[0].loss, len(told) * told[-1].loss - (len(told) - 1) * told[-2].loss
    assert last < 0.8 * first


def test_progress_counts_every_example_of_every_epoch(story: tuple[Adapter, list[Progress]]) -> None:
    assert [each.seen for each in story[1]] == [4, 8, 12, 16]
    assert {each.of for each in story[1]} == {16}


def test_the_same_seed_learns_the_same_weights(base: Path, story: tuple[Adapter, list[Progress]]) -> None:
    again = train(base, PROMPT, SOME, recipe=SHORT)
    for name, factors in story[0].factors.items():
        for mine, theirs in zip(factors, again.factors[name], strict=True):
            assert np.array_equal(mine, theirs)


def test_what_was_learnt_is_what_llama_cpp_then_serves(
    base: Path, tmp_path: Path, story: tuple[Adapter, list[Progress]]
) -> None:
    path = tmp_path / "learnt.gguf"
    write_adapter(path, story[0])
    assert check(base, path, PROMPT, SOME[:2], threads=2).holds


def test_frozen_layers_keep_their_factors(base: Path) -> None:
    before = read_adapter(SHIPPED).factors
    recipe = replace(SHORT, from_layer=28, epochs=1)
    after = train(base, PROMPT, SOME, recipe=recipe, start=SHIPPED).factors
    moved = {
        int(name.split(".")[1]) for name in before if not np.array_equal(before[name][1], after[name][1])
    }
    assert moved == {28, 29}


def test_training_goes_on_from_a_checkpoint(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_S", 0.0)
    recipe = replace(SHORT, epochs=1, checkpoint=tmp_path / "checkpoint.gguf")
    learnt = train(base, PROMPT, SOME, recipe=recipe)
    kept = read_adapter(tmp_path / "checkpoint.gguf")
    assert kept.rank == SHORT.rank
    assert all(np.allclose(kept.factors[name][1], learnt.factors[name][1], atol=1e-3) for name in NAMES)


def test_no_minute_is_spent_beyond_the_limit(base: Path) -> None:
    told: list[Progress] = []
    train(base, PROMPT, SOME, recipe=replace(SHORT, minutes=1e-9), progress=told.append)
    assert told == []


def test_a_loss_that_is_no_number_ends_training(base: Path) -> None:
    with pytest.raises(NothingLearnt, match="train with a lower rate"):
        train(base, PROMPT, SOME, recipe=replace(SHORT, weights=dict.fromkeys(Decision, float("inf"))))


def test_an_adapter_comes_back_as_it_was_written(tmp_path: Path) -> None:
    factors = {"blk.0.attn_q.weight": (np.full((2, 6), 0.5, np.float32), np.full((4, 2), -1.5, np.float32))}
    write_adapter(tmp_path / "one.gguf", Adapter(2, 3.0, factors))
    back = read_adapter(tmp_path / "one.gguf")
    assert (back.rank, back.alpha, back.factors.keys()) == (2, 3.0, factors.keys())
    for mine, theirs in zip(factors["blk.0.attn_q.weight"], back.factors["blk.0.attn_q.weight"], strict=True):
        assert np.array_equal(mine, theirs)


def test_a_shipped_adapter_is_at_most_ten_megabytes(tmp_path: Path) -> None:
    write_adapter(tmp_path / "again.gguf", read_adapter(SHIPPED))
    wide = {"w": (np.zeros((16, 300_000), np.float32), np.zeros((20_000, 16), np.float32))}
    with pytest.raises(AdapterError, match="train a lower rank"):
        write_adapter(tmp_path / "wide.gguf", Adapter(16, 32, wide))


def test_a_file_that_is_no_adapter_is_named(base: Path, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no adapter at all, only some text that is long enough to be read")
    for path in (base, tmp_path / "text.gguf"):
        with pytest.raises(AdapterError, match=str(path)):
            read_adapter(path)


def test_an_adapter_of_another_model_is_refused(base: Path) -> None:
    factors = {"blk.0.attn_q.weight": (np.zeros((2, 8), np.float32), np.zeros((8, 2), np.float32))}
    with pytest.raises(AdapterError, match=r"blk\.0\.attn_q\.weight does not fit"):
        Net(base, Adapter(2, 4, factors))


def test_only_the_llama_architecture_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModel, match="architecture mamba"):
        Net(path, Adapter(2, 4, {}))
