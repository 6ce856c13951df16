"""What must hold for generated examples to teach and to test anything?"""

import re

import pytest

from app.domain.decision import Decision
from app.domain.situation import parse_situation
from app.engines.legacy.rules import RulesEngine
from tests.policyset.fields import ACTIONS
from tests.policyset.generator import POLICIES, Labelled, generate
from tests.policyset.truth import (
    CHANGED,
    LENDS,
    RAISES,
    RELEASES,
    RESEMBLES,
    SIGNALS,
    STOPS,
    UNCHANGED,
    true_decision,
)
from tests.policyset.wording import sections

MANY = 3000
TRAIN, TEST = sections("train"), sections("test")


@pytest.fixture(scope="module")
def natural() -> list[Labelled]:
    return list(generate("test", n=MANY, seed=7))


def shares(examples: list[Labelled], decision: Decision) -> float:
    return sum(each.decision is decision for each in examples) / len(examples)


def runs_of_six(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return [tuple(words[at : at + 6]) for at in range(len(words) - 5)]


def test_training_and_test_share_no_phrasing_and_no_filler() -> None:
    assert TRAIN.keys() == TEST.keys()
    for kind in TRAIN:
        assert not {line.lower() for line in TRAIN[kind]} & {line.lower() for line in TEST[kind]}, kind


def test_no_phrasing_serves_two_kinds() -> None:
    lines = [line.lower() for part in (TRAIN, TEST) for lines in part.values() for line in lines]
    assert len(lines) == len(set(lines))


def test_every_signal_has_phrasings_and_every_slot_fillers() -> None:
    for part in (TRAIN, TEST):
        assert SIGNALS.keys() <= part.keys()
        slots = {slot for lines in part.values() for line in lines for slot in re.findall(r"\{(\w+)\}", line)}
        assert {f"slot {slot}" for slot in slots} <= part.keys()


def test_training_words_signals_in_many_ways() -> None:
    assert sum(len(TRAIN[kind]) for kind in SIGNALS) >= 250


def test_no_six_words_in_a_row_are_common_to_training_and_test() -> None:
    taught = {run for lines in TRAIN.values() for line in lines for run in runs_of_six(line)}
    for lines in TEST.values():
        for line in lines:
            assert not taught & set(runs_of_six(line)), line


def test_a_seed_gives_the_same_examples_again_and_another_gives_others() -> None:
    first = list(generate("train", n=50, seed=3))
    assert first == list(generate("train", n=50, seed=3))
    assert first != list(generate("train", n=50, seed=4))


def test_no_actor_of_the_training_is_tested(natural: list[Labelled]) -> None:
    taught = {each.situation["actor_id"] for each in generate("train", n=MANY, seed=7)}
    assert not taught & {each.situation["actor_id"] for each in natural}


def test_the_natural_mix_is_65_20_15(natural: list[Labelled]) -> None:
    wanted = {Decision.ALLOW: 0.65, Decision.REQUIRE_ATTESTATION: 0.20, Decision.DENY: 0.15}
    for decision, share in wanted.items():
        assert shares(natural, decision) == pytest.approx(share, abs=0.03)


def test_the_rules_alone_are_right_on_five_of_six_and_allow_a_tenth_of_the_denials(
    natural: list[Labelled],
) -> None:
    right = sum(each.legacy is each.decision for each in natural) / MANY
    denials = [each for each in natural if each.decision is Decision.DENY]
    allowed = sum(each.legacy is Decision.ALLOW for each in denials) / len(denials)
    assert right == pytest.approx(0.844, abs=0.025)
    assert allowed == pytest.approx(0.107, abs=0.05)


async def test_the_rules_answer_is_that_of_the_shipped_policy(natural: list[Labelled]) -> None:
    rules = RulesEngine((POLICIES / "legacy.yaml").read_text())
    for each in natural[:300]:
        answer = await rules.decide(parse_situation(each.situation))
        assert answer.decision is each.legacy


def test_every_action_is_asked_and_every_signal_is_given(natural: list[Labelled]) -> None:
    assert {each.situation["action_type"] for each in natural} == ACTIONS.keys()
    assert {each.kind for each in natural} == {None, *SIGNALS}


def test_the_share_on_which_text_overrules_the_rules_can_be_chosen() -> None:
    for changed in (0.0, 1.0):
        examples = list(generate("train", n=200, seed=1, changed=changed))
        assert sum(each.decision is not each.legacy for each in examples) == 200 * changed


def test_every_phrasing_of_an_example_is_named(natural: list[Labelled]) -> None:
    told = [each for each in natural if each.kind]
    assert all(any(name.split("/")[1] == each.kind for name in each.wording) for each in told)
    assert all(name.startswith("test/") for each in natural for name in each.wording)


def test_the_shares_of_the_plots_are_a_whole() -> None:
    assert sum(plot.share for plot in (*CHANGED, *UNCHANGED)) == pytest.approx(1)


def test_a_plot_changes_the_rules_answer_where_it_says_so() -> None:
    for plot in (*CHANGED, *UNCHANGED):
        for kind in plot.kinds:
            actions = (SIGNALS[kind].actions if kind else ()) or tuple(ACTIONS)
            truths = {true_decision(plot.legacy, kind, action) for action in actions}
            assert (plot in CHANGED) == (truths != {plot.legacy})


@pytest.mark.parametrize("legacy", list(Decision))
@pytest.mark.parametrize("action", list(ACTIONS))
def test_signals_move_the_answer_in_their_own_direction_only(legacy: Decision, action: str) -> None:
    assert all(true_decision(legacy, kind, action) is Decision.DENY for kind in STOPS)
    assert all(true_decision(legacy, kind, action).severity >= legacy.severity for kind in RAISES)
    assert all(true_decision(legacy, kind, action).severity <= legacy.severity for kind in RELEASES | LENDS)
    assert all(true_decision(legacy, kind, action) is legacy for kind in RESEMBLES)


@pytest.mark.parametrize("action", list(ACTIONS))
def test_no_approval_allows_what_the_rules_deny(action: str) -> None:
    assert all(true_decision(Decision.DENY, kind, action) is not Decision.ALLOW for kind in RELEASES | LENDS)
