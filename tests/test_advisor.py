"""Does the in-process advisor answer as the service does, for one thread and for many?"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import app.advisor
from app.advisor import Advice, PolicyAdvisor
from app.domain.advisory import Outcome
from app.domain.decision import Decision
from app.domain.situation import parse_situation
from app.engines.model.local import LocalModel
from app.engines.model.runtime import ModelError
from app.engines.model.version import choose_version, load_versions
from app.errors import InvalidInput, InvalidSituation, PolicyError, SettingsError

ROOT = Path(__file__).parents[1]
POLICIES = ROOT / "policies"
TRUST = {"competence": 0.8, "reliability": 0.9, "integrity": 0.9}
SITUATIONS: list[dict[str, Any]] = [
    {"action_type": action, "actor_role": "developer", "actor_id": "ann", "t3_tensor": TRUST, **more}
    for action, more in (
        ("read", {"resource": "docs/public/readme.md"}),
        ("delete_team", {"details": "my manager said yes"}),
        ("deploy", {"resource": "env:production", "team_context": "change freeze"}),
    )
]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def advisor(cache_dir: Path) -> Iterator[PolicyAdvisor]:
    with PolicyAdvisor(policies_dir=POLICIES, cache_dir=cache_dir) as opened:
        yield opened


@pytest.mark.model
def test_the_advice_is_that_of_the_version_asked_as_the_service_asks_it(
    advisor: PolicyAdvisor, cache_dir: Path
) -> None:
    version = choose_version(load_versions(POLICIES))
    with LocalModel.open(version, policies_dir=POLICIES, cache_dir=cache_dir) as model:
        for raw in SITUATIONS:
            advice, expected = advisor.advise(raw), model.advise(parse_situation(raw))
            assert advice.version == version.id
            assert (advice.outcome, advice.decision) == (expected.outcome, expected.decision)
            assert expected.probabilities is not None
            assert advice.probabilities == {label: expected.probabilities.of(label) for label in Decision}
            assert advice.confidence == expected.confidence
            assert str(advice.decision) in advice.reasoning


@pytest.mark.model
def test_many_threads_get_the_answers_of_one(advisor: PolicyAdvisor) -> None:
    alone = [advisor.advise(raw, reasons=False) for raw in SITUATIONS]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda raw: advisor.advise(raw, reasons=False), SITUATIONS * 4))
    assert together == alone * 4


@pytest.mark.model
def test_a_program_without_settings_gets_an_answer_and_nothing_else_on_its_streams(
    tmp_path: Path, cache_dir: Path
) -> None:
    program = (
        "from app.advisor import PolicyAdvisor\n"
        f"with PolicyAdvisor(cache_dir={str(cache_dir)!r}) as advisor:\n"
        f"    print(advisor.advise({SITUATIONS[0]!r}).version)\n"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PHASEGATE_")}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**plain, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ended.stderr, ended.stdout.split()) == ("", [choose_version(load_versions(POLICIES)).id])


@pytest.mark.model
def test_the_example_on_the_page_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache_dir: Path
) -> None:
    page = (ROOT / "docs" / "embed.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    monkeypatch.setenv("PHASEGATE_CACHE_DIR", str(cache_dir))
    exec(compile(example, "embed.md", "exec"), {})
    assert capsys.readouterr().out.split()[0] in set(Decision)


class Unloaded(LocalModel):
    """Stands in for a model whose loading and closing are to be watched."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.closed = 0

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed += 1


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Unloaded]:
    """The models that were loaded, in order."""
    found: list[Unloaded] = []

    def load(*_: object, **__: object) -> Unloaded:
        found.append(Unloaded())
        found[-1].threads.add(threading.get_ident())
        return found[-1]

    def answer(model: Unloaded, *_: object, **__: object) -> Advice:
        model.threads.add(threading.get_ident())
        return Advice(None, "none", None, None, "v", Outcome.UNSURE)

    monkeypatch.setattr(LocalModel, "open", load)
    monkeypatch.setattr(app.advisor, "_answer", answer)
    return found


def test_advisors_of_one_version_share_a_model_that_the_first_question_loads(
    loads: list[Unloaded], tmp_path: Path
) -> None:
    first, second = (PolicyAdvisor(policies_dir=POLICIES, cache_dir=tmp_path) for _ in range(2))
    assert not loads
    first.advise(SITUATIONS[0])
    second.advise(SITUATIONS[0])
    first.close()
    first.close()
    second.advise(SITUATIONS[0])
    assert [model.closed for model in loads] == [0]
    second.close()
    assert [model.closed for model in loads] == [1]
    with PolicyAdvisor(policies_dir=POLICIES, cache_dir=tmp_path) as later:
        later.advise(SITUATIONS[0])
    assert len(loads) == 2


def test_a_model_that_is_still_loading_when_its_advisor_is_closed_is_freed(
    loads: list[Unloaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, go_on, load = threading.Event(), threading.Event(), LocalModel.open

    def slowly(*_: Any, **__: Any) -> Any:
        loading.set()
        assert go_on.wait(10)
        return load(*_, **__)

    monkeypatch.setattr(LocalModel, "open", slowly)
    advisor = PolicyAdvisor(policies_dir=POLICIES, cache_dir=tmp_path)
    with ThreadPoolExecutor(2) as threads:
        threads.submit(advisor.advise, SITUATIONS[0])
        assert loading.wait(10)
        closed = threads.submit(advisor.close)
        while advisor._open:
            pass
        go_on.set()
        closed.result()
    assert [model.closed for model in loads] == [1]


def test_a_model_belongs_to_one_thread_whoever_asks(loads: list[Unloaded], tmp_path: Path) -> None:
    with PolicyAdvisor(policies_dir=POLICIES, cache_dir=tmp_path) as advisor, ThreadPoolExecutor(4) as askers:
        list(askers.map(advisor.advise, SITUATIONS * 4))
    assert len(loads) == 1
    assert len(loads[0].threads) == 1


def test_a_closed_advisor_does_not_answer(tmp_path: Path) -> None:
    advisor = PolicyAdvisor(policies_dir=POLICIES, cache_dir=tmp_path)
    advisor.close()
    with pytest.raises(RuntimeError, match="closed"):
        advisor.advise(SITUATIONS[0])


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("decision", [None, *Decision])
def test_only_a_sure_allow_is_allowed(outcome: Outcome, decision: Decision | None) -> None:
    advice = Advice(decision, "", None, None, "v", outcome)
    assert advice.allowed == (outcome is Outcome.OK and decision is Decision.ALLOW)


def test_a_model_that_fails_gives_no_decision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Broken(Unloaded):
        def __init__(self) -> None:
            super().__init__()
            self.version = choose_version(load_versions(POLICIES))

        def advise(self, *_: object, **__: object) -> Any:
            raise ModelError("llama_decode returned -3")

    monkeypatch.setattr(LocalModel, "open", lambda *_, **__: Broken())
    with PolicyAdvisor(policies_dir=POLICIES, cache_dir=tmp_path) as advisor:
        advice = advisor.advise(SITUATIONS[0])
    assert (advice.outcome, advice.decision) == (Outcome.MALFORMED, None)
    assert "llama_decode" in advice.reasoning


def test_what_the_caller_gets_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing-of-that-name"):
        PolicyAdvisor("nothing-of-that-name", policies_dir=POLICIES, cache_dir=tmp_path)
    with PolicyAdvisor(policies_dir=POLICIES, cache_dir=tmp_path) as advisor:
        with pytest.raises(InvalidSituation):
            advisor.advise({"action_type": "read"})
        with pytest.raises(InvalidInput, match="legacy"):
            advisor.advise(SITUATIONS[0], legacy="perhaps")


def test_a_version_on_another_server_is_refused(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "prompts").symlink_to(POLICIES / "prompts")
    shipped = (POLICIES / "versions" / "phi-4-mini.yaml").read_text(encoding="utf-8")
    place = "  path: versions/Phi-4-mini-instruct-Q4_K_M.gguf"
    assert place in shipped
    remote = "  remote: {url: 'http://127.0.0.1:1/v1', model: phi}"
    (tmp_path / "versions" / "phi.yaml").write_text(shipped.replace(place, remote), encoding="utf-8")
    with pytest.raises(PolicyError, match="phasegate serve"):
        PolicyAdvisor("phi-4-mini-q4-examples-1", policies_dir=tmp_path, cache_dir=tmp_path)
