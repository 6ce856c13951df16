from pathlib import Path

import msgspec
import pytest

from app.engines.model import tuning
from app.engines.model.cores import thread_count
from app.engines.model.tuning import Trial, best_layout, store_tuning, stored_tuning, tuned
from app.engines.model.version import Layout, ModelVersion

TUNED = Trial(
    layout="q8_0",
    merged=False,
    threads=1,
    ubatch=128,
    flash_attention=False,
    decisions_per_s=41.0,
    speedup=1.2,
)


def test_what_was_measured_best_is_what_is_used(version: ModelVersion, tmp_path: Path) -> None:
    assert tuned(version, cache_dir=tmp_path) == version.decoding
    store_tuning(version, TUNED, cache_dir=tmp_path)
    how = tuned(version, cache_dir=tmp_path)
    assert (how.threads, how.ubatch, how.flash_attention) == (1, 128, False)
    assert how.n_ctx == version.decoding.n_ctx


def test_versions_that_share_a_loaded_model_share_its_tuning(version: ModelVersion, tmp_path: Path) -> None:
    store_tuning(version, TUNED, cache_dir=tmp_path)
    sibling = msgspec.structs.replace(version, id="sibling", show_legacy=True, origin="elsewhere")
    assert stored_tuning(sibling, cache_dir=tmp_path) == TUNED


def test_a_tuning_ends_with_the_layout_or_settings_that_it_was_measured_for(
    version: ModelVersion, tmp_path: Path
) -> None:
    store_tuning(version, TUNED, cache_dir=tmp_path)
    model = msgspec.structs.replace(version.model, requantise="q4_0")
    decoding = msgspec.structs.replace(version.decoding, ubatch=256)
    for changed in (
        msgspec.structs.replace(version, model=model),
        msgspec.structs.replace(version, decoding=decoding),
    ):
        assert stored_tuning(changed, cache_dir=tmp_path) is None


def test_a_tuning_holds_for_one_kind_of_machine(
    version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_tuning(version, TUNED, cache_dir=tmp_path)
    assert stored_tuning(version, cache_dir=tmp_path, cores=thread_count(None) + 1) is None
    monkeypatch.setattr(tuning, "cpu_model", lambda: "another processor")
    assert stored_tuning(version, cache_dir=tmp_path) is None


@pytest.mark.parametrize("content", [b"{not json", b"[]", b"{}"])
def test_a_damaged_file_of_tunings_is_as_good_as_none(
    version: ModelVersion, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "tuned.json").write_bytes(content)
    assert tuned(version, cache_dir=tmp_path) == version.decoding
    store_tuning(version, TUNED, cache_dir=tmp_path)
    assert stored_tuning(version, cache_dir=tmp_path) == TUNED


def test_a_tuning_of_another_shape_is_not_used(version: ModelVersion, tmp_path: Path) -> None:
    store_tuning(version, TUNED, cache_dir=tmp_path)
    text = (tmp_path / "tuned.json").read_text(encoding="utf-8")
    (tmp_path / "tuned.json").write_text(text.replace('"threads": 1', '"threads": "many"'), encoding="utf-8")
    assert tuned(version, cache_dir=tmp_path) == version.decoding


def trial(speedup: float, differ: float, layout: Layout = "q4_0", *, situations: int = 50) -> Trial:
    return msgspec.structs.replace(
        TUNED, layout=layout, speedup=speedup, differ=differ, situations=situations
    )


DECLARED = trial(1.0, 0.0, "q8_0")


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ([trial(2.0, 0.02), trial(1.5, 0.0)], 0),
        ([trial(2.0, 0.03), trial(1.5, 0.0, "f16")], 1),
        ([trial(2.0, 0.03)], None),
        ([trial(1.04, 0.0)], None),
        ([trial(2.0, 0.0, situations=12)], None),
        ([], None),
    ],
    ids=["fastest", "fastest that decides the same", "none does", "not worth it", "hardly asked", "none"],
)
def test_a_faster_layout_must_decide_as_the_original(others: list[Trial], best: int | None) -> None:
    expected = None if best is None else others[best]
    assert best_layout([DECLARED, *others], tolerance=0.02) is expected
