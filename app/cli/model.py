"""Which files does a version run from here, and how would it run faster?"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from ruamel.yaml import YAML

from app.cli.output import emit_json, emit_table, json_option, say
from app.cli.validate import places, version_of
from app.domain.decision import Decision
from app.engines.model.bench import Bench, Findings, as_in_the_worker
from app.engines.model.cores import thread_count
from app.engines.model.layouts import copy_name, noted
from app.engines.model.merge import SITUATIONS
from app.engines.model.prompt import Line, Prompt, write
from app.engines.model.tuning import ENOUGH, Trial, store_tuning, stored_tuning
from app.engines.model.version import ModelVersion, parse_version, prompt_of
from app.engines.model.weights import Weights, find_weights, verify
from app.errors import Conflict, PolicyError
from app.policy.files import parse_yaml, read_text
from app.policy.suites import find_suites, load_suites
from app.settings import load_settings

_SETTINGS = (
    *("threads", "ubatch", "flash_attention"),
    *("speedup", "decisions_per_s", "differ", "moved", "situations"),
)
_LAYOUTS = ("name", "speedup", "decisions_per_s", "differ", "moved", "situations", "error")

version_argument = click.argument("wanted", metavar="[VERSION]", required=False)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The version that is meant, with its files found and verified."""

    version: ModelVersion
    weights: Weights
    prompt: Prompt
    policies_dir: Path
    cache_dir: Path


@click.group()
def model() -> None:
    """Show a version's files, tune it to this machine.

    Without VERSION: the one that a server would start with.
    """


@model.command()
@version_argument
@json_option
def show(*, wanted: str | None, as_json: bool) -> None:
    """Its files with sizes and hashes, and what this machine was tuned to."""
    chosen = _choose(wanted)
    files, tunings = list(_files(chosen)), list(_tunings(chosen))
    if as_json:
        emit_json({"version": chosen.version.id, "files": files, "tunings": tunings})
        return
    click.echo(f"{chosen.version.id}, declared in {chosen.version.origin}\n")
    emit_table(("file", "MiB", "SHA-256", "state", "path"), [tuple(each.values()) for each in files])
    if tunings:
        click.echo()
        emit_table(
            ("cores", *_SETTINGS), [[each[name] for name in ("cores", *_SETTINGS)] for each in tunings]
        )
    else:
        say("not tuned on this machine: `phasegate model tune` measures what is fastest")


@model.command()
@version_argument
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="The share of decisions that may differ from the original file's.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=90, show_default=True, help="How long to measure."
)
@click.option("--write", "writes", is_flag=True, help="Write a faster layout as a new version.")
@json_option
def tune(*, wanted: str | None, tolerance: float, seconds: float, writes: bool, as_json: bool) -> None:
    """Measure threads, ubatch, flash attention and layouts here, and keep the best settings.

    A server uses them from its next start. They never change the layout of the weights: a faster one is a
    version of its own, which --write writes.
    """
    chosen = _choose(wanted)
    situations = _situations(chosen)
    say(f"asking {chosen.version.id} about {len(situations)} situations for about {seconds:g} s …")
    with as_in_the_worker():
        findings = Bench(
            version=chosen.version,
            weights=chosen.weights,
            prompt=chosen.prompt,
            situations=situations,
            cache_dir=chosen.cache_dir,
            tolerance=tolerance,
            budget_s=seconds,
        ).run()
        store_tuning(chosen.version, findings.tuning, cache_dir=chosen.cache_dir)
    path, text = _derived(chosen, findings.layout) if findings.layout else (None, "")
    if path is not None and writes:
        _write_new(path, text)
    if as_json:
        written = str(path) if path and writes else None
        emit_json({**msgspec.to_builtins(findings), "tolerance": tolerance, "written": written})
        return
    emit_table(_SETTINGS, _columns(findings.settings, _SETTINGS))
    click.echo()
    emit_table(("layout", *_LAYOUTS[1:]), _columns(findings.layouts, _LAYOUTS))
    _conclude(findings, tolerance=tolerance)
    if path is not None:
        click.echo(f"\n{'wrote' if writes else 'with --write:'} {path}\n\n{text}")


def _choose(wanted: str | None) -> _Chosen:
    settings = load_settings()
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    version = version_of(settings, wanted)
    if version.model.remote is not None:
        raise PolicyError(version.origin, None, "model.remote", "runs elsewhere: it has no files here")
    weights = find_weights(version, **places(version, settings))
    prompt = prompt_of(version, policies_dir=settings.policies_dir)
    return _Chosen(version, weights, prompt, settings.policies_dir, settings.cache_dir)


def _situations(chosen: _Chosen) -> list[tuple[Line, ...]]:
    """Those of the validation suites, else a built-in handful."""
    shows = chosen.version.show_legacy
    try:
        cases = load_suites(find_suites(chosen.policies_dir)).cases
    except PolicyError as error:
        say(f"{error}; asking a built-in handful instead")
        return list(SITUATIONS)
    return [write(case.situation, legacy=Decision(case.expected) if shows else None) for case in cases]


def _files(chosen: _Chosen) -> Iterator[dict[str, Any]]:
    version, weights = chosen.version, chosen.weights
    yield _file("model", weights.source, weights.sha256, "as declared")
    if weights.adapter is not None:
        yield _file("adapter", weights.adapter, weights.adapter_sha256, "as declared")
    if weights.head is not None:
        head_sha256 = verify(weights.head, cache_dir=chosen.cache_dir)
        yield _file("head", weights.head, head_sha256, "as declared")
    if version.model.requantise is None:
        return
    copy = chosen.cache_dir / copy_name(version, weights)
    if not copy.is_file():
        yield _file("copy", copy, None, "not made yet")
        return
    found = verify(copy, cache_dir=copy.parent)
    yield _file("copy", copy, found, "as made" if found == noted(copy) else "changed: will be made anew")


def _file(what: str, path: Path, sha256: str | None, state: str) -> dict[str, Any]:
    size = round(path.stat().st_size / 2**20, 1) if path.is_file() else None
    return {"file": what, "mib": size, "sha256": sha256, "state": state, "path": str(path)}


def _tunings(chosen: _Chosen) -> Iterator[dict[str, Any]]:
    """One for each number of cores that a process here may have."""
    for cores in range(1, thread_count(None) + 1):
        tuning = stored_tuning(chosen.version, cache_dir=chosen.cache_dir, cores=cores)
        if tuning is not None:
            yield {"cores": cores, **msgspec.to_builtins(tuning)}


def _columns(trials: Sequence[Trial], names: Sequence[str]) -> list[list[object]]:
    return [[getattr(trial, name) for name in names] for trial in trials]


def _conclude(findings: Findings, *, tolerance: float) -> None:
    best = findings.tuning
    say(
        f"kept for {findings.cores} cores of this machine: {best.threads} threads, ubatch {best.ubatch}, "
        f"flash attention {'on' if best.flash_attention else 'off'}: {best.decisions_per_s:.3g} decisions/s, "
        f"{best.speedup:.2f} times as fast as declared"
    )
    if findings.layout is None:
        say(f"no other layout is faster with at most {tolerance:.1%} of {ENOUGH} or more decisions changed")


def _derived(chosen: _Chosen, trial: Trial) -> tuple[Path, str]:
    """The file of the version in another layout. Raises `PolicyError` where it would not be one."""
    version, policies_dir = chosen.version, chosen.policies_dir
    declared = parse_yaml(read_text(Path(version.origin)), version.origin).plain()
    name = f"{version.id}-{trial.name}"
    declared |= {"model": {**declared["model"], "requantise": trial.layout}}
    if declared.get("adapter"):
        declared["adapter"] = {**declared["adapter"], "merge": trial.merged}
    text = io.StringIO()
    text.write(
        f"# {version.id} in another layout, {trial.speedup:.2f} times as fast where it was measured.\n"
    )
    rest = {key: value for key, value in declared.items() if key not in ("id", "parent")}
    YAML().dump({"id": name, "parent": version.id, **rest}, text)
    path = policies_dir / "versions" / f"{name}.yaml"
    parse_version(text.getvalue(), path=str(path), policies_dir=policies_dir)
    return path, text.getvalue()


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Conflict("exists", f"{path} is there already: move it away to write it anew") from error
