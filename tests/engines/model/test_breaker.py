from hypothesis import given
from hypothesis import strategies as st

from app.engines.model.breaker import CircuitBreaker


def opened() -> CircuitBreaker:
    breaker = CircuitBreaker(threshold=3, pause_s=10, longest_pause_s=15)
    for _ in range(3):
        assert breaker.admit(0)
        breaker.fail(0)
    return breaker


def test_it_opens_only_after_failures_in_a_row() -> None:
    breaker = CircuitBreaker(threshold=3)
    for _ in range(10):
        breaker.fail(0)
        breaker.fail(0)
        breaker.succeed()
    assert not breaker.is_open(0)


def test_an_open_circuit_admits_nobody_until_its_pause_is_over() -> None:
    breaker = opened()
    assert breaker.is_open(9.9)
    assert not breaker.admit(9.9)


def test_exactly_one_request_tries_again() -> None:
    breaker = opened()
    assert not breaker.is_open(10)
    assert breaker.admit(10)
    assert not breaker.admit(10)
    assert breaker.is_open(10)


def test_a_trial_that_succeeds_closes_the_circuit() -> None:
    breaker = opened()
    assert breaker.admit(10)
    breaker.succeed()
    assert breaker.admit(10)
    assert breaker.admit(10)


def test_a_trial_that_fails_doubles_the_pause_up_to_its_limit() -> None:
    breaker = opened()
    assert breaker.admit(10)
    breaker.fail(10)
    assert breaker.is_open(24.9)
    assert breaker.admit(25)


def test_failures_of_what_was_asked_before_it_opened_do_not_lengthen_the_pause() -> None:
    breaker = opened()
    for _ in range(5):
        breaker.fail(1)
    assert breaker.admit(10)


def test_a_trial_that_says_nothing_leaves_the_trial_to_the_next() -> None:
    breaker = opened()
    assert breaker.admit(10)
    breaker.pass_over()
    assert breaker.admit(10)


@given(st.lists(st.sampled_from(["fail", "pass_over"])))
def test_silence_neither_opens_nor_closes(events: list[str]) -> None:
    breaker = CircuitBreaker(threshold=3)
    for event in events:
        if event == "fail":
            breaker.fail(0)
        else:
            breaker.pass_over()
    assert breaker.is_open(0) == (events.count("fail") >= 3)
