"""What can be learned from the verdicts, and how does it leave the plane?"""

import math
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import rich_click as click

from app.cli.groups import NounGroup
from app.cli.output import emit_json, json_option, say
from app.cli.validate import places, version_of
from app.engines.model.head import basis
from app.engines.model.local import LocalModel
from app.engines.model.version import ModelVersion, prompt_of
from app.engines.model.weights import find_weights
from app.errors import NotFound, Refused, SettingsError
from app.learning.adapters import learn_adapter, trainer
from app.learning.corrections import ALL, Corrections, collect, read_examples, require_enough
from app.learning.export import Redactor, chat, proposals
from app.learning.lesson import Lesson, beneath, learn_head
from app.learning.report import summary
from app.settings import Settings, load_settings
from app.store.database import Database
from app.store.rollouts import load_states

NONE = "none"
_REVIEWER_SHARE = {"head": 1 / 2, "lora": 1 / 3}
_EVERYTHING = 1.0

_version_option = click.option(
    "--version", "wanted", help="The version to start from; without it the rollout's active one."
)


@click.group(cls=NounGroup, named="version")
def learn() -> None:
    """Make a new version out of an old one and the verdicts: `phasegate learn ROLLOUT`."""


@learn.command("version")
@click.argument("rollout")
@click.option("--method", type=click.Choice(["head", "lora"]), default="head", show_default=True)
@_version_option
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Generated examples too, one JSON object a line.",
)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="End training after so long.")
@click.option("--dry-run", is_flag=True, help="Report, and write nothing.")
@json_option
def version(
    *,
    rollout: str,
    method: str,
    wanted: str | None,
    data: Path | None,
    minutes: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Learn from the verdicts on ROLLOUT, on `all`, or on `none` (with --data).

    From 50 verdicts on. Nothing is written that is no better, on held-out examples, than the version it
    comes from and than the legacy engine alone. Exit code 1 then.
    """
    if rollout == NONE and data is None:
        raise click.UsageError("without verdicts there is nothing to learn from but --data FILE")
    settings = load_settings()
    corrections, used = Corrections(()), set[str]()
    if rollout != NONE:
        corrections, used, _ = _verdicts(settings, rollout, reviewer_share=_REVIEWER_SHARE[method])
    parent = _parent(settings, wanted, used)
    if data is not None:
        corrections = Corrections((*corrections.examples, *read_examples(data)), corrections.left_out)
    require_enough(corrections)
    say(f"{parent.id} reads {len(corrections.examples)} examples")
    lesson = _lesson(settings, parent, corrections, method, minutes=minutes)
    if as_json:
        emit_json(lesson.report)
    for line in summary(lesson.report):
        say(line)
    lesson.require_better()
    if not dry_run:
        _told(lesson.publish(), rollout)


@learn.command()
@click.argument("rollout")
def examples(*, rollout: str) -> None:
    """Propose examples for a prompt: overrides on ROLLOUT that cluster, one JSON object a line.

    A person reads them and puts the good ones into the file that a version names as `examples`.
    """
    found, _, redactor = _verdicts(load_settings(), rollout, reviewer_share=_EVERYTHING)
    _emit_lines(proposals(found.examples, redactor))


@learn.command()
@click.argument("rollout")
@click.option("--consent-text", is_flag=True, help="What people wrote may leave this plane.")
@_version_option
def export(*, rollout: str, consent_text: bool, wanted: str | None) -> None:
    """Print the verdicts on ROLLOUT or `all` as training data, a chat a line, actor ids redacted."""
    settings = load_settings()
    corrections, used, redactor = _verdicts(settings, rollout, reviewer_share=_EVERYTHING)
    parent = _parent(settings, wanted, used)
    prompt = prompt_of(parent, policies_dir=settings.policies_dir)
    shown = parent.show_legacy
    _emit_lines(chat(corrections.examples, prompt, redactor, show_legacy=shown, texts=consent_text))
    if not consent_text:
        say("without what people wrote: --consent-text includes it")


def _verdicts(
    settings: Settings, rollout: str, *, reviewer_share: float
) -> tuple[Corrections, set[str], Redactor]:
    """What may teach, the versions that are active there, and what hides the actors."""
    with closing(Database(settings.database_url)) as database:
        database.check_schema()
        with database.read(at_most_s=math.inf) as connection:
            active = {name: state.version for name, state in load_states(connection).items()}
            if rollout not in {*active, ALL}:
                raise NotFound("rollout", rollout, known=active)
            corrections = collect(connection, rollout, reviewer_share=reviewer_share)
            redactor = Redactor.of(connection)
    return corrections, set(active.values()) if rollout == ALL else {active[rollout]}, redactor


def _parent(settings: Settings, wanted: str | None, used: set[str]) -> ModelVersion:
    """The version that was named, or the one that is active; without any, the one to begin with."""
    if wanted is None and len(used) > 1:
        raise SettingsError("--version", f"must name one of {', '.join(sorted(used))}: several are active")
    return version_of(settings, wanted or min(used, default=None))


def _lesson(
    settings: Settings,
    parent: ModelVersion,
    corrections: Corrections,
    method: str,
    *,
    minutes: float | None,
) -> Lesson:
    if parent.model.remote is not None:
        raise Refused(f"{parent.id} runs on a server, which shows no weights: name a local one by --version")
    files = places(parent, settings)
    weights = find_weights(parent, **files)

    def opened(version: ModelVersion) -> LocalModel:
        return LocalModel.open(version, **files)

    if method == "lora":
        here = {"policies_dir": settings.policies_dir, "cache_dir": settings.cache_dir}
        train = trainer(parent, weights, **here, minutes=minutes, tell=say)
        return learn_adapter(corrections, parent, opened, train=train, **here)
    return learn_head(
        corrections,
        parent,
        opened,
        basis=basis(beneath(parent), model_sha256=weights.sha256, adapter_sha256=weights.adapter_sha256),
        policies_dir=settings.policies_dir,
    )


def _told(path: Path, rollout: str) -> None:
    """Say what a person does next: nothing here reaches a caller by itself."""
    where = rollout if rollout not in (ALL, NONE) else "ROLLOUT"
    say(f"{path} and its report are written; it decides nothing until a person takes it in:")
    say(f"  phasegate versions register {path.stem}")
    say(f"  phasegate versions candidate {where} {path.stem} --reason 'learned from verdicts'")


def _emit_lines(documents: Iterable[dict[str, Any]]) -> None:
    count = 0
    for count, document in enumerate(documents, 1):  # noqa: B007 -- counted
        emit_json(document)
    say(f"{count} lines")
