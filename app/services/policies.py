"""Which policy is in force, what would a changed file mean, and who lets it in?"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from app.domain.clock import to_us
from app.domain.phase import Phase
from app.domain.role import Principal, Role
from app.domain.rollout import RolloutState, activated, new_epoch, reset_to_shadow
from app.engines.legacy.build import build_legacy_engine, legacy_source
from app.errors import Conflict, Forbidden
from app.observability import Event
from app.policy import changes
from app.policy.changes import Change, compare, settings_hash, tightened, touched
from app.policy.files import read_text
from app.policy.rollouts import RolloutBook, parse_rollouts, render
from app.services.plane import Plane, Policy
from app.services.transitions import AUTOMATION, move
from app.store import policies as stored
from app.store.ledger import Ledger
from app.store.rollouts import (
    insert_state,
    load_states,
    lock_state,
    read_plane,
    settings_hashes,
    touch_plane,
)
from app.store.transaction import Transaction

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """Where the operator's files are, and which legacy engine reads its own."""

    policies_dir: Path
    legacy: str  # rules | cedar | opa:URL | authzen:URL
    legacy_deadline_s: float = 2.0

    def read(self) -> dict[str, str]:
        """The documents as they lie in the files. Raises `PolicyError` where one is wrong."""
        path = self.policies_dir / "rollouts.yaml"
        documents = {
            "rollouts": read_text(path),
            "engine": self.legacy,
            "legacy": legacy_source(self.legacy, policies_dir=self.policies_dir),
        }
        parse_rollouts(documents["rollouts"], path=str(path))
        build_legacy_engine(self.legacy, source=documents["legacy"], deadline_s=self.legacy_deadline_s)
        return documents

    def compile(self, sha256: str, documents: Mapping[str, str]) -> Policy:
        """What the plane routes by, from the documents in force."""
        legacy = build_legacy_engine(
            documents["engine"], source=documents["legacy"], deadline_s=self.legacy_deadline_s
        )
        return Policy(sha256, parse_rollouts(documents["rollouts"]), legacy)


def settle_at_start(
    tx: Transaction,
    files: Mapping[str, str],
    *,
    version: str,
    now: datetime,
    declared: Collection[str] = (),
    is_chosen: bool = False,
) -> tuple[Change, ...]:
    """Apply what only tightens, leave the rest waiting, and see that every rollout has its row.

    `version` is what new rollouts run on. One that runs on another moves to it, in shadow, only where its
    own is not among `declared`, or where somebody chose `version` for all and had not at the last start.
    Returns the changes that wait for `phasegate policies apply`.
    """
    _, documents = stored.applied(tx.connection)
    waiting: tuple[Change, ...] = ()
    if documents is None:
        documents = dict(files)
        stored.apply(tx, documents, author=AUTOMATION, approver=AUTOMATION, now_us=to_us(now))
    elif documents != files:
        old, new = _policy(documents), _policy(files)
        book = tightened(old, new)
        if book.policies != old.book.policies:
            documents = {**documents, "rollouts": render(book.policies)}
            stored.apply(tx, documents, author=AUTOMATION, approver=AUTOMATION, now_us=to_us(now))
        waiting = tuple(change for change in compare(_policy(documents), new) if change.loosens)
    chosen_before = read_plane(tx.connection).chosen_version
    is_new_choice = is_chosen and chosen_before != version
    settle_rollouts(tx, documents, version=version, now=now, kept=() if is_new_choice else declared)
    if (version if is_chosen else None) != chosen_before:
        touch_plane(tx, chosen_version=version if is_chosen else None)
    return waiting


def settle_rollouts(
    tx: Transaction,
    documents: Mapping[str, str],
    *,
    version: str,
    now: datetime,
    kept: Collection[str] | None = None,
    to_shadow: frozenset[str] = frozenset(),
    actor: str = AUTOMATION,
) -> None:
    """Bring every rollout's row in line with the documents in force, and see that its version is a `kept` one.

    `version` is that of a new rollout, and of one whose own is not kept; None keeps them all.
    """
    book = parse_rollouts(documents["rollouts"])
    known, hashes = load_states(tx.connection), settings_hashes(tx.connection)
    legacy_sha256 = build_legacy_engine(documents["engine"], source=documents["legacy"]).sha256
    for policy in book.policies:
        wanted = settings_hash(policy, legacy_sha256)
        if policy.name not in known:
            state = RolloutState(policy.name, Phase.SHADOW, 1.0, 1, 1, now, version)
            insert_state(tx, state, settings_hash=wanted)
            continue
        state = lock_state(tx, policy.name)
        change = _due_change(
            state,
            version=state.version if kept is None or state.version in kept else version,
            to_shadow=policy.name in to_shadow or "*" in to_shadow,
            settings_changed=hashes[policy.name] != wanted,
            above_ceiling=state.phase.rank > policy.ceiling.rank,
            now=now,
        )
        if change is not None:
            after, kind, reason = change
            move(tx, state, after, kind=kind, actor=actor, reason=reason, now=now, settings_hash=wanted)


def _due_change(
    state: RolloutState,
    *,
    version: str,
    to_shadow: bool,
    settings_changed: bool,
    above_ceiling: bool,
    now: datetime,
) -> tuple[RolloutState, str, str] | None:
    """What a rollout's state becomes under new files: at most one change, the severest."""
    if state.version != version:
        after = replace(activated(state, version, exposure=1.0, now=now), phase=Phase.SHADOW)
        return after, "version", f"the server was started with version {version}, not {state.version}"
    if to_shadow or above_ceiling:
        return (
            reset_to_shadow(state, now=now),
            "policy",
            "the policy was loosened: evidence begins anew in shadow",
        )
    if settings_changed:
        return (
            new_epoch(state, now=now),
            "policy",
            "combine, threshold or legacy policy changed: evidence begins anew",
        )
    return None


@dataclass(frozen=True, slots=True)
class Policies:
    """Looks at the files, and lets two people apply what loosens."""

    files: PolicyFiles
    plane: Plane
    ledger: Ledger
    version: str
    now: Callable[[], datetime]

    def diff(self) -> dict[str, Any]:
        """What the files would change of the policy in force, like a plan."""
        files = self.files.read()
        with self.plane.database.read() as connection:
            sha256, documents = stored.applied(connection)
            waiting = stored.proposed(connection)
        found = compare(_policy(documents or files), _policy(files))
        return {
            "applied_sha256": sha256,
            "files_sha256": stored.fingerprint(files),
            "changes": [asdict(change) for change in found],
            "loosens": any(change.loosens for change in found),
            "to_shadow": sorted(touched(found)),
            "proposed_by": None if waiting is None else waiting["proposed_by"],
            "proposed_sha256": None if waiting is None else waiting["sha256"],
        }

    async def apply(self, by: Principal, *, files_sha256: str | None = None) -> dict[str, Any]:
        """Apply the files. What loosens needs two people: the first proposes, an approver applies.

        `files_sha256` is of those that were looked at. Raises `Forbidden("own-request")` where the same person
        asks twice, `Conflict` with nothing to do or where the files are others by now.
        """
        files, now = self.files.read(), self.now()
        if files_sha256 is not None and files_sha256 != stored.fingerprint(files):
            raise Conflict("files-changed", "the policy files have changed since: look at the plan again")

        def work(tx: Transaction) -> dict[str, Any]:
            _, documents = stored.applied(tx.connection)
            assert documents is not None, "a policy is applied at start"
            found = compare(_policy(documents), _policy(files))
            if documents == files:
                raise Conflict("nothing-to-apply", "the files are what is in force")
            author = by.key_id
            if any(change.loosens for change in found):
                proposal = stored.proposed(tx.connection)
                if proposal is None or proposal["sha256"] != stored.fingerprint(files):
                    stored.propose(tx, files, author=by.key_id, now_us=to_us(now))
                    return _outcome("proposed", found)
                author = _checked_author(proposal["proposed_by"], by)
            sha256 = stored.apply(tx, files, author=author, approver=by.key_id, now_us=to_us(now))
            settle_rollouts(
                tx, files, version=self.version, now=now, to_shadow=touched(found), actor=by.key_id
            )
            return {**_outcome("applied", found), "sha256": sha256}

        outcome = await self.ledger.run(work)
        await self.plane.refresh_soon()
        log.info(Event.POLICY_APPLIED, status=outcome["status"], by=by.key_id)
        return outcome


def _checked_author(author: str, by: Principal) -> str:
    if author == by.key_id:
        raise Forbidden("own-request", "what loosens is applied by an approver other than its author")
    if not by.may(Role.APPROVER):
        raise Forbidden("role", "what loosens is applied by an approver")
    return author


def _outcome(status: str, found: tuple[Change, ...]) -> dict[str, Any]:
    return {
        "status": status,
        "changes": [asdict(change) for change in found],
        "to_shadow": sorted(touched(found)),
    }


def _policy(documents: Mapping[str, str]) -> changes.Policy:
    book: RolloutBook = parse_rollouts(documents["rollouts"])
    return changes.Policy(book, f"{documents['engine']}\n{documents['legacy']}")
