"""Does the model's runtime answer with the head that was learned?"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from app.domain.decision import Decision
from app.engines.model.head import Head, HiddenWeights, Weight, basis
from app.engines.model.local import LocalModel
from app.engines.model.version import ModelVersion, choose_version, load_versions
from app.engines.model.weights import find_weights
from app.errors import PolicyError
from app.learning.lesson import beneath
from app.learning.publish import next_place, publish_head
from tests.learning.conftest import POLICIES
from tests.learning.world import situation

pytestmark = pytest.mark.model

_WIDTH = 576


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def whole(policies: Path) -> Path:
    """The policy files with the weights that the embedded version names."""
    for file in POLICIES.rglob("*.gguf"):
        (policies / file.relative_to(POLICIES)).symlink_to(file)
    return policies


def publish(policies: Path, cache_dir: Path) -> Path:
    """A head that says what the rules say, but attestation where there is a team context."""
    parent = choose_version(load_versions(policies))
    found = find_weights(parent, policies_dir=policies, cache_dir=cache_dir)
    told = {
        "legacy=deny": (9.0, 0.0, 0.0),
        "legacy=require_attestation": (0.0, 9.0, 0.0),
        "legacy=allow": (0.0, 0.0, 9.0),
        "has=team_context": (0.0, 20.0, 0.0),
    }
    head = Head(
        basis=basis(beneath(parent), model_sha256=found.sha256, adapter_sha256=found.adapter_sha256),
        examples=50,
        c=1.0,
        temperature=1.0,
        threshold=0.6,
        intercept=(0.0, 0.0, 0.0),
        fields=tuple(Weight(name=name, mean=0.0, scale=1.0, weights=each) for name, each in told.items()),
        hidden=HiddenWeights(
            mean=(0.0,) * _WIDTH, scale=(1.0,) * _WIDTH, weights=((0.0, 0.0, 0.0),) * _WIDTH
        ),
    )
    return publish_head(next_place(policies, parent, "head"), parent, head, {"better": True})


def version(policies: Path, path: Path) -> ModelVersion:
    return load_versions(policies)[path.stem]


@pytest.fixture
def model(whole: Path, cache_dir: Path) -> Iterator[LocalModel]:
    learned = version(whole, publish(whole, cache_dir))
    with LocalModel.open(learned, policies_dir=whole, cache_dir=cache_dir) as opened:
        yield opened


def test_a_version_with_a_head_answers_by_it_and_says_why(model: LocalModel) -> None:
    asked = situation(1, alarm=False)
    for legacy in Decision:
        assert model.advise(asked, legacy=legacy).decision is legacy
    asked = situation(1, alarm=False, team_context="a freeze")
    advisory = model.advise(asked, legacy=Decision.ALLOW)
    assert advisory.decision is Decision.REQUIRE_ATTESTATION
    reasons = model.explain(asked, advisory, legacy=Decision.ALLOW)
    assert "mainly because of team_context" in reasons.text


def test_a_head_whose_prompt_was_changed_is_refused(whole: Path, cache_dir: Path) -> None:
    learned = version(whole, publish(whole, cache_dir))
    changed = msgspec.structs.replace(learned, prompt_sha256="0" * 64)
    with pytest.raises(PolicyError, match="changed since"):
        LocalModel.open(changed, policies_dir=whole, cache_dir=cache_dir)


def test_a_head_whose_file_was_changed_is_refused(whole: Path, cache_dir: Path) -> None:
    path = publish(whole, cache_dir)
    file = path.with_name(f"{path.stem}.head.json")
    file.write_text(file.read_text().replace("20.0", "-20.0"))
    with pytest.raises(PolicyError, match=r"head\.sha256"):
        LocalModel.open(version(whole, path), policies_dir=whole, cache_dir=cache_dir)
