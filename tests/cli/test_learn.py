"""Does `phasegate learn` make a version, and does it say why it makes none?"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from app.cli import learn as command
from app.domain.decision import Decision
from app.engines.model.version import ModelVersion, choose_version, load_versions
from app.learning.corrections import Example
from app.store import tables as t
from app.store.database import Database
from app.store.rollouts import load_states
from tests.cli.conftest import Run
from tests.learning.world import Pupil, add_judge, add_verdicts, example, examples, situation, write_file
from tests.store.samples import add_rollout

POLICIES = Path(__file__).parents[2] / "policies"


class Opened(Pupil):
    """In the place of the model, which has its own tests."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    @classmethod
    def open(cls, _: ModelVersion, **__: object) -> Self:
        return cls()


@pytest.fixture(autouse=True)
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = Path(shutil.copytree(POLICIES, tmp_path / "policies"))
    monkeypatch.setenv("PHASEGATE_POLICIES_DIR", str(copied))
    monkeypatch.setenv("PHASEGATE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "LocalModel", Opened)
    return copied


@pytest.fixture
def database(run: Run, tmp_path: Path, policies: Path) -> Database:
    """A plane with a rollout that the embedded version serves, and three reviewers."""
    run("db", "migrate")
    opened = Database(f"sqlite:///{tmp_path / 'data' / 'phasegate.db'}")
    add_rollout(opened)
    active = choose_version(load_versions(policies)).id
    with opened.write() as connection:
        connection.execute(t.rollouts.update().values(version=active))
    for judge in ("ann", "bob", "eve"):
        add_judge(opened, judge)
    return opened


def shared(taught: tuple[Example, ...]) -> list[Example]:
    """Judged by three people in turn."""
    return [replace(each, judge=("ann", "bob", "eve")[place % 3]) for place, each in enumerate(taught)]


def test_verdicts_become_a_version_and_the_next_command_is_said(
    run: Run, database: Database, policies: Path
) -> None:
    add_verdicts(database, *shared(examples(90)))
    result = run("learn", "write", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["provenance"]["by_reviewer"] == {"ann": 30, "bob": 30, "eve": 30}
    child = next(name for name in load_versions(policies) if name.endswith("-head-1"))
    assert f"phasegate versions register {child}" in result.stderr
    assert f"phasegate versions candidate write {child}" in result.stderr
    with database.read() as connection:
        assert load_states(connection)["write"].candidate is None, "a person takes it in"


def test_a_dry_run_writes_nothing(run: Run, database: Database, policies: Path) -> None:
    add_verdicts(database, *shared(examples(90)))
    before = sorted(policies.rglob("*"))
    assert run("learn", "all", "--dry-run").exit_code == 0
    assert sorted(policies.rglob("*")) == before


def test_too_few_verdicts_exit_1_with_their_number(run: Run, database: Database) -> None:
    add_verdicts(database, *shared(examples(12)))
    result = run("learn", "write")
    assert result.exit_code == 1
    assert "12 examples may teach, and 50 are needed" in result.stderr


def test_what_is_no_better_exits_1_and_writes_nothing(run: Run, policies: Path, tmp_path: Path) -> None:
    taught = tuple(replace(each, decision=Decision.ALLOW) for each in examples(60))
    result = run("learn", "none", "--data", str(write_file(tmp_path / "few.jsonl", taught)))
    assert result.exit_code == 1
    assert "no better than its parent" in result.stderr
    assert not list(policies.rglob("*.head.json"))


def test_generated_examples_teach_where_there_is_no_verdict(run: Run, policies: Path, tmp_path: Path) -> None:
    file = write_file(tmp_path / "many.jsonl", examples(90))
    assert run("learn", "none", "--data", str(file)).exit_code == 0
    assert list(policies.rglob("*-head-1.report.json"))


@pytest.mark.parametrize("words", [["learn", "write"], ["learn", "export", "all"], ["audit", "verify"]])
def test_a_database_that_is_not_there_or_older_names_the_command_that_mends_it(
    run: Run, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "data").mkdir()
    assert "run `phasegate db migrate`" in run(*words).stderr
    opened = Database(f"sqlite:///{tmp_path / 'data' / 'phasegate.db'}")
    run("db", "migrate")
    opened.downgrade("0001")
    result = run(*words)
    assert result.exit_code == 1
    assert "run `phasegate db migrate`" in result.stderr


def test_nothing_is_learned_from_a_fresh_database(run: Run) -> None:
    run("db", "migrate")
    assert run("learn", "write").stderr == "phasegate: no rollout 'write'\n"
    assert "0 examples may teach, and 50 are needed" in run("learn", "all").stderr


def test_no_verdicts_and_no_data_is_a_usage_error(run: Run) -> None:
    result = run("learn", "none")
    assert result.exit_code == 2
    assert "--data" in result.stderr


def test_force_does_not_exist(run: Run) -> None:
    assert run("learn", "none", "--force").exit_code == 2


def test_an_unknown_rollout_or_version_is_named(run: Run, database: Database) -> None:
    for words in (["nothing"], ["export", "nothing"], ["examples", "nothing"]):
        assert "no rollout 'nothing'" in run("learn", *words).stderr
    assert "no version 'v9'" in run("learn", "write", "--version", "v9").stderr


def test_where_several_versions_are_active_one_is_to_be_named(run: Run, database: Database) -> None:
    add_rollout(database, "read")
    result = run("learn", "all")
    assert result.exit_code == 2
    assert "--version: must name one of" in result.stderr


def test_lora_without_torch_names_the_extra(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("app.learning.lora")]:
        monkeypatch.delitem(sys.modules, name)
    file = write_file(tmp_path / "many.jsonl", examples(90))
    result = run("learn", "none", "--method", "lora", "--data", str(file))
    assert result.exit_code == 1
    assert "pip install -e '.[train]'" in result.stderr


def test_an_export_has_a_line_a_verdict_and_no_text_without_consent(run: Run, database: Database) -> None:
    add_verdicts(database, *shared(examples(9)))
    lines = run("learn", "export", "write").stdout.splitlines()
    assert len(lines) == 9
    assert not any("details:" in line for line in lines)
    assert all(
        "details:" in line for line in run("learn", "export", "write", "--consent-text").stdout.splitlines()
    )


def test_verdicts_are_read_beside_a_server_that_writes(run: Run, database: Database) -> None:
    add_verdicts(database, *shared(examples(9)))
    with database.write() as connection:
        connection.execute(t.rollouts.update().values(hold_reason="not committed yet"))
        assert len(run("learn", "export", "write").stdout.splitlines()) == 9


def test_alike_overrides_are_proposed_as_examples(run: Run, database: Database) -> None:
    taught = [
        replace(
            example(number),
            situation=situation(number, alarm=False, details="the token was leaked"),
            decision=Decision.DENY,
            model=Decision.ALLOW,
        )
        for number in range(4)
    ]
    add_verdicts(database, *taught)
    [line] = run("learn", "examples", "write").stdout.splitlines()
    assert json.loads(line)["decision"] == "deny"
