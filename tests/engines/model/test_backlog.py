import time

from hypothesis import given
from hypothesis import strategies as st

from app.domain.decision import Decision
from app.engines.model.backlog import Backlog, Job
from app.engines.model.wire import Ask, Drop, Explain, Priority


def job(priority: Priority, *, in_s: float = 60.0, request: int = 1, version: str = "v") -> Job:
    deadline = time.monotonic() + in_s
    if priority is Priority.REASONING:
        return Job(request, Explain(deadline, (), Decision.DENY, 0.9, version))
    return Job(request, Ask(priority, deadline, (), version))


@given(st.lists(st.tuples(st.sampled_from(Priority), st.floats(1, 1000)), max_size=20))
def test_work_is_taken_by_priority_then_deadline(asked: list[tuple[Priority, float]]) -> None:
    backlog = Backlog(100)
    for priority, in_s in asked:
        assert backlog.put(job(priority, in_s=in_s))
    taken = [backlog.take() for _ in asked]
    keys = [(one.priority, one.due) for one in taken]
    assert keys == sorted(keys)


def test_a_full_backlog_takes_nothing_more() -> None:
    backlog = Backlog(1)
    assert backlog.put(job(Priority.SHADOW))
    assert not backlog.put(job(Priority.BINDING))


def test_what_nobody_waits_for_is_swept_out_wherever_it_stands() -> None:
    backlog = Backlog(10)
    late, cancelled, wanted = (
        job(Priority.SHADOW, in_s=-1, request=1),
        job(Priority.REASONING, request=2),
        job(Priority.BINDING, request=3),
    )
    for one in (late, cancelled, wanted):
        backlog.put(one)
    backlog.cancel(2)
    assert set(backlog.sweep()) == {late, cancelled}
    assert backlog.take() is wanted


def test_binding_work_stops_shadow_work_and_reasoning_at_once_and_nothing_else() -> None:
    for priority in Priority:
        backlog = Backlog(10)
        running = job(priority)
        backlog.put(running)
        assert backlog.take() is running
        assert not backlog.must_stop([running])
        backlog.put(job(Priority.ADVISORY))
        assert not backlog.must_stop([running])
        backlog.put(job(Priority.BINDING))
        assert backlog.must_stop([running]) == (priority >= Priority.SHADOW)


def test_only_shadow_work_of_the_same_version_is_computed_together() -> None:
    backlog = Backlog(10)
    first, last, next_one = (job(Priority.SHADOW, in_s=in_s) for in_s in (10, 30, 20))
    for one in (
        *(first, last, next_one, job(Priority.SHADOW, version="w")),
        *(job(Priority.REASONING), job(Priority.ADVISORY), job(Priority.BINDING)),
    ):
        backlog.put(one)
    for urgent in (Priority.BINDING, Priority.ADVISORY):
        assert not backlog.take_alike(taken := backlog.take(), 9)
        assert taken.priority is urgent
    assert backlog.take() is first
    assert backlog.take_alike(first, 1) == [next_one]
    assert backlog.take_alike(first, 9) == [last]
    assert [backlog.take().priority for _ in range(2)] == [Priority.SHADOW, Priority.REASONING]


def test_what_is_computed_together_stops_when_nobody_waits_for_any_of_it() -> None:
    backlog = Backlog(10)
    jobs = [job(Priority.SHADOW, request=request) for request in (1, 2)]
    for one in jobs:
        backlog.put(one)
    assert backlog.take_alike(backlog.take(), 1)
    backlog.cancel(1)
    assert not backlog.must_stop(jobs)
    backlog.cancel(2)
    assert backlog.must_stop(jobs)


def test_a_change_of_versions_finds_room_and_goes_before_the_shadow_work_that_waits() -> None:
    backlog = Backlog(1)
    assert backlog.put(job(Priority.SHADOW))
    change = Job(0, Drop("v"))
    assert backlog.put(change)
    assert not change.is_over()
    assert backlog.take() is change


def test_an_explanation_steps_aside_for_anything() -> None:
    backlog = Backlog(10)
    running = job(Priority.REASONING)
    assert not backlog.has_more_urgent(running)
    backlog.put(job(Priority.SHADOW))
    assert backlog.has_more_urgent(running)


def test_running_work_stops_when_cancelled_and_when_late() -> None:
    backlog = Backlog(10)
    running = job(Priority.BINDING, request=7)
    backlog.put(running)
    backlog.take()
    backlog.cancel(7)
    assert backlog.must_stop([running])
    assert backlog.must_stop([job(Priority.BINDING, in_s=-1)])
