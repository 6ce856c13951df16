"""Which versions are there, what may become of them, and which are kept ready?"""

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from app.domain.clock import rfc3339, to_us
from app.domain.role import Principal
from app.domain.rollout import RolloutState
from app.engines.model.version import ModelVersion, choose_version, load_versions, parse_version
from app.errors import Conflict, InvalidInput, NotFound, PolicyError, SettingsError
from app.observability import Event
from app.services.declarations import (
    document_of,
    is_same,
    named_files,
    pinned_files,
    sha256_of,
    taken,
    version_of,
)
from app.services.plane import Plane
from app.services.ports import Models
from app.services.transitions import AUTOMATION
from app.store import versions as stored
from app.store.ledger import Ledger
from app.store.rollouts import load_states
from app.store.transaction import Transaction

log = structlog.get_logger()

_LONGEST_NAME = 255  # bytes, of a file or a directory
_BODY = "the body"
# From what counts first to what counts last.
_STATES = ("active", "candidate", "previous", "retired", "registered")


def register_at_start(
    tx: Transaction, files: Mapping[str, ModelVersion], *, policies_dir: Path, now: datetime
) -> dict[str, ModelVersion]:
    """Register what is new in the files; returns every version that is known, registered elsewhere or here.

    Raises `PolicyError` where a file says something else than the registry of a version that was used.
    """
    known = stored.registered(tx.connection)
    for version in files.values():
        document = document_of(version, policies_dir=policies_dir)
        found = known.get(version.id)
        if found is not None and is_same(found.document, document):
            continue
        if found is not None and stored.is_used(tx.connection, version.id):
            raise PolicyError(version.origin, None, "id", taken(found.document, document))
        stored.register(tx, document, by=AUTOMATION, now_us=to_us(now))
    elsewhere = {name: version_of(found.document) for name, found in known.items() if name not in files}
    return {**elsewhere, **files}


class Versions:
    """The registry, and what this server keeps ready of it. `known` grows as versions are registered."""

    def __init__(
        self,
        known: dict[str, ModelVersion],
        models: Models,
        plane: Plane,
        ledger: Ledger,
        *,
        policies_dir: Path,
        now: Callable[[], datetime],
    ) -> None:
        self.known = known
        self._models = models
        self._plane = plane
        self._ledger = ledger
        self._policies_dir = policies_dir
        self._now = now
        self._wanted: tuple[str, ...] | None = None

    def all(self) -> list[dict[str, Any]]:
        """Every registered version in the `version` shape, the oldest first."""
        with self._plane.database.read() as connection:
            registry, states = stored.registered(connection), load_states(connection)
            once = stored.once_in_use(connection)
        ready = {model.version_id: model for model in self._models.loaded}
        documents = []
        for found in registry.values():
            version = self.known.get(found.version) or version_of(found.document)
            roles = _roles(found.version, states.values(), once)
            model = ready.get(found.version)
            documents.append(
                {
                    **_wire(version),
                    "state": min([*roles.values(), "registered"], key=_STATES.index),
                    "model_sha256": (model and model.status.sha256) or version.model.sha256,
                    "created_at": rfc3339(found.created_us),
                    "created_by": found.created_by,
                    "sha256": found.sha256,
                    "rollouts": roles,
                    "loaded": model is not None and model.is_ready,
                }
            )
        return documents

    def one(self, version_id: str) -> dict[str, Any]:
        """One version in the `version` shape. Raises `NotFound`."""
        for document in self.all():
            if document["id"] == version_id:
                return document
        raise NotFound("version", version_id)

    def declaration(self, version_id: str) -> ModelVersion:
        """What a version was declared as, wherever it was registered. Raises `NotFound`."""
        if version_id not in self.known:
            self._learn([version_id])
        if version_id not in self.known:
            raise NotFound("version", version_id)
        return self.known[version_id]

    async def register(self, body: Any, by: Principal) -> dict[str, Any]:
        """Register a version: `{id}` reads the files again, anything else is a declaration of its own.

        Raises `InvalidInput` naming the field, `NotFound`, and `Conflict("version-exists")` where the id
        belongs to something else.
        """
        version = await asyncio.to_thread(self._read, body)
        self._check_default(version)
        is_declaration = body.keys() != {"id"}
        document = await asyncio.to_thread(document_of, version, policies_dir=self._policies_dir)
        now_us = to_us(self._now())

        def work(tx: Transaction) -> None:
            found = stored.registered(tx.connection).get(version.id)
            if found is not None and is_same(found.document, document):
                return
            # Its own file may change what was never used; somebody else's declaration may not.
            if found is not None and (is_declaration or stored.is_used(tx.connection, version.id)):
                raise Conflict("version-exists", taken(found.document, document))
            stored.register(tx, document, by=by.key_id, now_us=now_us)

        await self._ledger.run(work)
        await asyncio.to_thread(self._write, version)
        self.known[version.id] = version
        self._models.declare(version)
        self._wanted = None
        await self.keep_ready()
        log.info(Event.VERSION_REGISTERED, version=version.id, by=by.key_id)
        return await asyncio.to_thread(self.one, version.id)

    async def keep_ready(self) -> None:
        """Have the models loaded that any rollout runs on, may go back to, or compares with."""
        states = self._plane.view.states.values()
        columns = ((s.version for s in states), (s.previous for s in states), (s.candidate for s in states))
        # The most important first: where there is no room for all, the candidates go without.
        wanted = tuple(dict.fromkeys(version for column in columns for version in column if version))
        if wanted == self._wanted:
            return
        if not self.known.keys() >= set(wanted):
            await asyncio.to_thread(self._learn, wanted)
        await self._models.want(version for version in wanted if version in self.known)
        self._wanted = wanted

    def _learn(self, wanted: Iterable[str]) -> None:
        """Take over what another instance has registered."""
        with self._plane.database.read() as connection:
            registry = stored.registered(connection)
        for name in wanted:
            if name in registry and name not in self.known:
                self.known[name] = version_of(registry[name].document)
                self._models.declare(self.known[name])

    def _read(self, body: Any) -> ModelVersion:
        if not isinstance(body, dict) or not isinstance(body.get("id"), str):
            raise InvalidInput([("id", "must be the id of a version")])
        if body.keys() != {"id"}:
            return self._parse(body)
        declared = load_versions(self._policies_dir)
        if body["id"] not in declared:
            raise NotFound("version", body["id"])
        return declared[body["id"]]

    def _parse(self, body: dict[str, Any]) -> ModelVersion:
        for field, name in named_files(body):
            if "\x00" in name or len(name.encode()) > _LONGEST_NAME:
                raise InvalidInput([(field, "must be a file name")])
            path = (self._policies_dir / name).resolve()
            if not path.is_relative_to(self._policies_dir.resolve()):
                raise InvalidInput([(field, "must lie below the policies directory")])
            if not path.is_file():
                raise InvalidInput([(field, f"there is no file {name} below the policies directory")])
        try:
            version = parse_version(
                json.dumps(body, ensure_ascii=False), path=_BODY, policies_dir=self._policies_dir
            )
        except PolicyError as error:
            # Where a file that it names is wrong, that file is named too.
            raise InvalidInput([(error.key, error.what if error.path == _BODY else str(error))]) from error
        for field, name, pinned in pinned_files(version):
            if pinned is not None and sha256_of(self._policies_dir / name) != pinned:
                raise InvalidInput([(field, f"is not the SHA-256 of {name}")])
        there = load_versions(self._policies_dir).get(version.id)
        if there is None:
            return msgspec.structs.replace(version, origin=str(self._path(version.id)))
        if msgspec.structs.replace(there, origin=version.origin) != version:
            raise Conflict("version-exists", f"{there.origin} declares {version.id} with other content")
        return there

    def _check_default(self, version: ModelVersion) -> None:
        """The next start must find the version to begin with as this one did, model file or none."""
        for model_path in (None, Path(version.id)):
            before = _default(self.known, model_path)
            if before is not None and _default({**self.known, version.id: version}, model_path) is None:
                said = f"must name the version that this one was made from, or a start could not tell it from {before.id}"
                raise InvalidInput([("parent", said)])

    def _write(self, version: ModelVersion) -> None:
        """Let commands that work without a server see it too; a file that is there already stays."""
        path = self._path(version.id)
        if path.exists() or version.origin != str(path):
            return
        declaration: dict[str, Any] = msgspec.to_builtins(version)
        del declaration["origin"], declaration["prompt_sha256"]
        text = json.dumps(
            {key: value for key, value in declaration.items() if value is not None},
            indent=1,
            ensure_ascii=False,
        )
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            fresh.write_text(text + "\n", encoding="utf-8")
            fresh.replace(path)
        except OSError as error:  # the registry has it: only commands without a server miss it
            log.warning(Event.VERSION_NOT_WRITTEN, version=version.id, error=str(error))

    def _path(self, version_id: str) -> Path:
        return self._policies_dir / "versions" / f"{version_id}.yaml"


def _default(versions: Mapping[str, ModelVersion], model_path: Path | None) -> ModelVersion | None:
    """The version that a start would begin with, or None where it could not choose."""
    try:
        return choose_version(versions, model_path=model_path)
    except SettingsError:
        return None


def _roles(version: str, states: Iterable[RolloutState], once: Mapping[str, set[str]]) -> dict[str, str]:
    """What the version is to each rollout, where it is anything."""
    roles = {}
    for state in states:
        by_role = {"active": state.version, "candidate": state.candidate, "previous": state.previous}
        role = next((role for role, holder in by_role.items() if holder == version), None)
        if role is None and version in once.get(state.name, ()):
            role = "retired"
        if role is not None:
            roles[state.name] = role
    return roles


def _wire(version: ModelVersion) -> dict[str, Any]:
    parts = (version.adapter, version.head, version.calibration)
    adapter, head, calibration = (None if part is None else msgspec.to_builtins(part) for part in parts)
    return {
        "id": version.id,
        "model": version.model_name,
        "prompt": version.prompt,
        "prompt_sha256": version.prompt_sha256,
        "adapter": adapter,
        "head": head,
        "settings": version.settings,
        "calibration": calibration,
        "parent": version.parent,
        "independent": not version.show_legacy,
    }
