"""What comes of a set of examples?"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.advisory import Advisory, Outcome
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.head import Basis, Head
from app.engines.model.prompt import write
from app.engines.model.version import ModelVersion, load_versions
from app.errors import Refused
from app.learning.adapters import learn_adapter
from app.learning.corrections import Corrections, Example
from app.learning.lesson import Lesson, learn_head
from tests.learning.world import ALLOWING, Pupil, example, examples, is_alarming, opening

Learn = Callable[..., Lesson]


@pytest.fixture
def learn(parent: ModelVersion, rests_on: Basis, policies: Path) -> Learn:
    def head(taught: tuple[Example, ...], *, understands: bool = True) -> Lesson:
        opened = opening(Pupil(understands=understands))
        return learn_head(Corrections(taught), parent, opened, basis=rests_on, policies_dir=policies)

    return head


def test_a_head_learns_what_the_rules_do_not_know(learn: Learn) -> None:
    report = learn(examples(200)).report
    child, legacy = report["measures"]["child"], report["measures"]["legacy"]
    assert child["accuracy"] > 0.95 > legacy["accuracy"]
    assert child["denies_allowed"] < legacy["denies_allowed"]
    assert child["answered_at_95"]["share"] > 0.5
    assert report["better"] is True


def test_what_is_no_better_than_the_rules_is_refused(learn: Learn) -> None:
    lesson = learn(examples(200, alarm=False), understands=False)
    assert lesson.report["tests"]["parent"]["better"] is True
    assert lesson.report["tests"]["legacy"]["better"] is False
    with pytest.raises(Refused, match="no better than the legacy engine alone"):
        lesson.publish()


def test_what_is_no_better_than_its_parent_is_refused(learn: Learn) -> None:
    taught = tuple(replace(each, decision=Decision.ALLOW) for each in examples(100))
    with pytest.raises(Refused, match="no better than its parent"):
        learn(taught).publish()


def test_a_refused_lesson_writes_nothing(learn: Learn, policies: Path) -> None:
    before = sorted(policies.rglob("*"))
    with pytest.raises(Refused):
        learn(examples(200, alarm=False), understands=False).publish()
    assert sorted(policies.rglob("*")) == before


def test_below_fifty_examples_the_model_is_not_even_asked(learn: Learn) -> None:
    with pytest.raises(Refused, match="49 examples may teach"):
        learn(examples(49))


def test_what_the_model_cannot_read_does_not_count(
    parent: ModelVersion, rests_on: Basis, policies: Path
) -> None:
    class Short(Pupil):
        def advise(self, asked: Situation, *, legacy: Decision | None = None) -> Advisory:
            if is_alarming(asked):
                return Advisory("pupil", Outcome.OVERSIZE, 1.0)
            return super().advise(asked, legacy=legacy)

    with pytest.raises(Refused, match=f"{parent.id} can read 40 of 60 examples"):
        learn_head(Corrections(examples(60)), parent, opening(Short()), basis=rests_on, policies_dir=policies)


def test_the_same_examples_give_the_same_weights(learn: Learn, policies: Path) -> None:
    learn(examples(120)).publish()
    learn(examples(120)).publish()
    one, two = sorted((policies / "versions").glob("*.head.json"))
    assert one.read_bytes() == two.read_bytes()


def test_a_new_version_is_a_child_that_shows_the_legacy_answer(
    learn: Learn, policies: Path, parent: ModelVersion
) -> None:
    path = learn(examples(200)).publish()
    child = load_versions(policies)[path.stem]
    assert path.stem == f"{parent.id}-head-1"
    assert (child.parent, child.show_legacy, child.model, child.prompt) == (
        parent.id,
        True,
        parent.model,
        parent.prompt,
    )
    assert child.head is not None
    head = Head.load(policies / child.head.file)
    assert child.limits.confidence_at_least == head.threshold < 1
    report = json.loads((policies / "versions" / f"{path.stem}.report.json").read_text())
    assert report["provenance"]["by_reviewer"] == {"bob": 200}


def test_a_childs_child_counts_on(
    learn: Learn, policies: Path, parent: ModelVersion, rests_on: Basis
) -> None:
    path = learn(examples(120)).publish()
    first = load_versions(policies)[path.stem]
    lesson = learn_head(
        Corrections(examples(120)), first, opening(Pupil()), basis=rests_on, policies_dir=policies
    )
    assert lesson.publish().stem == f"{parent.id}-head-2"


def test_nothing_is_overwritten(learn: Learn, policies: Path, parent: ModelVersion) -> None:
    stray = policies / "versions" / f"{parent.id}-head-1.head.json"
    stray.write_text("somebody's")
    assert learn(examples(120)).publish().stem == f"{parent.id}-head-2"
    assert stray.read_text() == "somebody's"


def test_what_only_one_group_gives_does_no_harm(learn: Learn) -> None:
    rare = [example(number) for number in range(200)]
    for number in (3, 4, 5):
        asked = replace(rare[number].situation, actor_id="x", identity_metrics={"coherence": 0.1 * number})
        rare[number] = replace(rare[number], situation=asked)
    assert learn(tuple(rare)).report["better"] is True


def test_the_head_reads_as_it_was_judged(learn: Learn, policies: Path) -> None:
    path = learn(examples(200)).publish()
    head = Head.load(policies / "versions" / f"{path.stem}.head.json")
    right = 0
    for number in range(1000, 1200):
        unseen = example(number)
        lines = write(unseen.situation, legacy=unseen.legacy)
        found = head.read(lines, Pupil().hidden(unseen.situation), ALLOWING)
        right += found.most_probable is unseen.decision
    assert right > 190


def _write(_: Sequence[Example], file: Path) -> None:
    file.write_bytes(b"GGUF")


def test_an_adapter_is_judged_on_groups_that_it_was_not_taught(
    parent: ModelVersion, policies: Path, tmp_path: Path
) -> None:
    taught: list[Example] = []

    def train(given: Sequence[Example], file: Path) -> None:
        taught.extend(given)
        _write(given, file)

    lesson = learn_adapter(
        Corrections(examples(100)),
        parent,
        opening(Pupil()),
        train=train,
        cache_dir=tmp_path / "cache",
        policies_dir=policies,
    )
    assert len(taught) + lesson.report["held_out"] == 100
    assert 10 < lesson.report["held_out"] < 30
    with pytest.raises(Refused, match="no better than its parent"):
        lesson.publish()


def test_an_adapter_finds_another_place_where_its_own_was_taken_meanwhile(
    parent: ModelVersion, policies: Path, tmp_path: Path
) -> None:
    lesson = learn_adapter(
        Corrections(examples(100)),
        parent,
        opening(Pupil()),
        train=_write,
        cache_dir=tmp_path / "cache",
        policies_dir=policies,
    )
    assert lesson.write().stem == f"{parent.id}-lora-1"
    assert lesson.write().stem == f"{parent.id}-lora-2"


def test_an_adapter_that_is_better_becomes_a_version(
    parent: ModelVersion, policies: Path, tmp_path: Path
) -> None:
    lesson = learn_adapter(
        Corrections(examples(100)),
        parent,
        opening(Pupil()),
        train=_write,
        cache_dir=tmp_path / "cache",
        policies_dir=policies,
    )
    path = lesson.write()
    child = load_versions(policies)[path.stem]
    assert child.id == f"{parent.id}-lora-1"
    assert child.adapter is not None
    assert (policies / child.adapter.file).read_bytes() == b"GGUF"
    assert child.limits == parent.limits
