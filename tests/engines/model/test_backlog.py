import time

from hypothesis import given
from hypothesis import strategies as st

from app.domain.decision import Decision
from app.engines.model.backlog import Backlog, Job
from app.engines.model.wire import Ask, Explain, Priority


def job(priority: Priority, *, in_s: float = 60.0, request: int = 1) -> Job:
    deadline = time.monotonic() + in_s
    if priority is Priority.REASONING:
        return Job(request, Explain(deadline, (), Decision.DENY, 0.9))
    return Job(request, Ask(priority, deadline, ()))


@given(st.lists(st.tuples(st.sampled_from(Priority), st.floats(1, 1000)), max_size=20))
def test_work_is_taken_by_priority_then_deadline(asked: list[tuple[Priority, float]]) -> None:
    backlog = Backlog(100)
    for priority, in_s in asked:
        assert backlog.put(job(priority, in_s=in_s))
    taken = [backlog.take() for _ in asked]
    keys = [(one.priority, one.ask.deadline) for one in taken]
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
        assert not backlog.must_stop(running)
        backlog.put(job(Priority.ADVISORY))
        assert not backlog.must_stop(running)
        backlog.put(job(Priority.BINDING))
        assert backlog.must_stop(running) == (priority >= Priority.SHADOW)


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
    assert backlog.must_stop(running)
    assert backlog.must_stop(job(Priority.BINDING, in_s=-1))
