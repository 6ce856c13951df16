"""Laws of several versions on one loaded model."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from llama_cpp import llama_cpp

from app.engines.model.prompt import load_prompt, write
from app.engines.model.residents import Residents
from app.engines.model.runtime import Abort, Aborted, ModelError
from app.engines.model.scoring import Scorer
from app.engines.model.version import ModelVersion
from tests.engines.model.conftest import POLICIES, situation

pytestmark = pytest.mark.model

LINES = write(situation(resource="repo:web", details="reads the change log"))
OTHERS = write(situation(action_type="deploy", details="ships the release to production"))


@pytest.fixture(scope="module")
def residents(version: ModelVersion, cache_dir: Path) -> Iterator[Residents]:
    opened = Residents((version,), policies_dir=POLICIES, cache_dir=cache_dir)
    yield opened
    opened.close()


def variant(version: ModelVersion, folder: Path, *, words: int) -> ModelVersion:
    """A version with another prompt, `words` longer."""
    path = folder / f"prompt-{words}.md"
    rules = "Trust counts. " * words
    path.write_text(
        f"<|im_start|>user\n{rules}\n{{{{ situation }}}}<|im_end|>\n<|im_start|>assistant\nDecision:"
    )
    return msgspec.structs.replace(
        version, id=f"variant-{words}", prompt=str(path), prompt_sha256=load_prompt(path).sha256
    )


def prepared(residents: Residents, version: ModelVersion) -> Scorer:
    scorer = residents.admit(version)
    while not scorer.prepare():
        pass
    return scorer


def test_a_version_gives_the_same_bits_whichever_others_are_loaded_asked_and_dropped(
    residents: Residents, version: ModelVersion, tmp_path: Path
) -> None:
    first = residents[version.id]
    expected = first.score(LINES)
    longer, longest = (prepared(residents, variant(version, tmp_path, words=words)) for words in (20, 150))
    alone = {scorer: scorer.score(LINES) for scorer in (longer, longest)}
    for _ in range(2):
        for scorer in (longest, first, longer):
            scorer.score(OTHERS)
        assert first.score(LINES) == expected
        assert {scorer: scorer.score(LINES) for scorer in (longer, longest)} == alone
    with pytest.raises(Aborted):
        longest.score(LINES, abort=_after(3))
    residents.drop(longest.version.id)
    assert first.score(LINES) == expected
    residents.drop(longer.version.id)
    assert first.score(LINES) == expected
    assert alone[longer] != expected


def test_a_version_taken_in_later_decides_as_one_that_was_loaded_first(
    residents: Residents, version: ModelVersion, cache_dir: Path, tmp_path: Path
) -> None:
    other = variant(version, tmp_path, words=30)
    later = prepared(residents, other).score(LINES)
    residents.drop(other.id)
    first = Residents((other, version), policies_dir=POLICIES, cache_dir=cache_dir)
    assert first[other.id].score(LINES) == later
    first.close()


def test_a_prefix_that_was_stopped_goes_on_where_it_was(
    residents: Residents, version: ModelVersion, tmp_path: Path
) -> None:
    long = variant(version, tmp_path, words=350)
    whole = prepared(residents, long).score(LINES)
    scorer = residents.admit(long)
    assert not scorer.prepare()
    residents[version.id].score(OTHERS)
    with pytest.raises(Aborted):
        scorer.prepare(abort=_after(2))
    assert not scorer.is_ready
    assert scorer.prepare() or scorer.prepare()
    assert scorer.score(LINES) == whole
    residents.drop(long.id)


def test_a_prefix_that_could_not_be_brought_back_is_not_taken_for_there(
    residents: Residents, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = residents[version.id], prepared(residents, variant(version, tmp_path, words=40))
    expected = first.score(LINES)
    other.score(LINES)
    with monkeypatch.context() as broken:
        broken.setattr(llama_cpp, "llama_state_seq_set_data", lambda *_: 0)
        with pytest.raises(ModelError, match="brought back"):
            first.score(LINES)
    assert first.score(LINES) == expected
    residents.drop(other.version.id)


def test_a_version_that_runs_otherwise_is_refused(residents: Residents, version: ModelVersion) -> None:
    other = msgspec.structs.replace(
        version, id="other", decoding=msgspec.structs.replace(version.decoding, ubatch=64)
    )
    with pytest.raises(ModelError, match="other needs a worker of its own"):
        residents.admit(other)


def test_a_version_that_does_not_fit_in_the_context_is_refused(
    residents: Residents, version: ModelVersion, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="n_ctx 2048 is too small: variant-600 needs"):
        residents.admit(variant(version, tmp_path, words=600))
    assert residents.get("variant-600") is None


def _after(questions: int) -> Abort:
    """An abort check that says stop at its n-th question."""
    left = iter(range(questions))
    return lambda: next(left, None) is None
