"""How does a person come in, for how long, and how do they leave?"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from app.domain.clock import rfc3339, to_us
from app.domain.role import Principal, Role
from app.errors import Forbidden, InvalidInput
from app.observability import Event
from app.services.passwords import Passwords, flaw_of
from app.services.plane import Plane
from app.services.throttle import Throttle
from app.store import sessions, users
from app.store.ledger import Ledger
from app.store.people import USER, fingerprint
from app.store.sessions import Session
from app.store.transaction import Transaction
from app.store.users import User

__all__ = ["Session", "SignIn"]

log = structlog.get_logger()

_MINUTE_US = 60_000_000
_DAY_US = 86_400_000_000
_FAILURES = 5  # in a row, before the account is locked
_LONGEST_LOCK_MIN = 60

_WRONG = "the name or the password is wrong; after several wrong ones no password opens it for a while, up to an hour"


class SignIn:
    """Sessions live in the database, so every instance knows them; the browser holds a token.

    `idle_min` minutes without a sign of the person, or `days` days, end a session. What is refused is
    `Forbidden`, with a code of its own.
    """

    def __init__(
        self,
        plane: Plane,
        ledger: Ledger,
        *,
        idle_min: int,
        days: int,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._plane, self._ledger, self._now = plane, ledger, now
        self.idle_min, self.days = idle_min, days
        self._passwords, self._throttle = Passwords(), Throttle(monotonic=monotonic)

    async def by_password(self, name: str, password: str, *, address: str) -> str:
        """The token of a new session. Says the same, as slowly, for a name that nobody has."""
        self._not_too_often(address)
        user = await asyncio.to_thread(self._find, name)
        kept = user.password_hash if user is not None else None
        checked = await self._passwords.check(kept, password)
        now_us = to_us(self._now())

        def enter(tx: Transaction) -> tuple[str | None, User | None]:
            if user is None:
                return None, None
            now = users.lock(tx, user.id)
            if now.disabled_us is not None or _is_locked(now, now_us) or now.password_hash != kept:
                return None, None
            if not checked.is_right:
                return None, _failed(tx, now, now_us=now_us)
            renewed = {"password_hash": checked.renewed} if checked.renewed else {}
            users.change(tx, now.id, failures=0, locked_until_us=None, **renewed)
            return self._begin(tx, now.id, now_us=now_us), now

        token, seen = await self._ledger.run(enter)
        if token is None:
            if seen is not None and _is_locked(seen, now_us):
                log.warning(Event.SIGN_IN_LOCKED, user=seen.id, failures=seen.failures)
            raise self._refused("password", address, user.id if user else None, _WRONG)
        assert user is not None
        log.info(Event.SIGNED_IN, by="password", principal=user.id)
        return token

    async def by_link(self, link: str, *, address: str) -> str:
        """The token of a new session; the link is used up."""
        self._not_too_often(address)
        now_us = to_us(self._now())

        def enter(tx: Transaction) -> tuple[str, User] | None:
            user = users.use_link(tx, link, now_us=now_us)
            if user is None:
                return None
            users.change(tx, user.id, failures=0, locked_until_us=None)
            return self._begin(tx, user.id, now_us=now_us), user

        found = await self._ledger.run(enter)
        if found is None:
            raise self._refused("link", address, None, "this link was used, has run out, or never was one")
        token, user = found
        log.info(Event.SIGNED_IN, by="link", principal=user.id)
        return token

    async def by_key(self, key: str, *, address: str) -> str:
        """The token of a session of an API key, which ends with the key."""
        self._not_too_often(address)
        principal = self._plane.principal(key)
        if principal is None:
            raise self._refused("key", address, None, "no such API key, or it has ended")
        token = await self._begun(principal.key_id)
        log.info(Event.SIGNED_IN, by="key", principal=principal.key_id)
        return token

    async def by_subject(self, subject: str, *, name: str, roles: frozenset[Role], address: str) -> str:
        """The token of a session of whom an OpenID provider vouches for; who is new becomes a user."""
        now_us = to_us(self._now())

        def enter(tx: Transaction) -> tuple[str, str] | None:
            user = users.find(tx.connection, subject=subject)
            if user is None:
                # A name that looks like an id could be taken for somebody else's.
                taken = name.startswith(USER) or users.find(tx.connection, name=name) is not None
                user = users.create(
                    tx,
                    name=f"{name} {fingerprint(subject)[:6]}" if taken else name,
                    roles=roles,
                    created_by="oidc",
                    now_us=now_us,
                    subject=subject,
                )
            elif users.lock(tx, user.id).disabled_us is not None:
                return None
            elif user.roles != roles:
                users.change_roles(tx, user.id, roles)
                sessions.end_all(tx, user.id)
            return self._begin(tx, user.id, now_us=now_us), user.id

        found = await self._ledger.run(enter)
        if found is None:
            raise self._refused("oidc", address, None, "this user is disabled here; an admin can undo that")
        log.info(Event.SIGNED_IN, by="oidc", principal=found[1], roles=sorted(roles))
        return found[0]

    async def session(self, token: str, *, is_used: bool) -> Session | None:
        """The session of a browser's token, or None; `is_used` where the person, not the page, asked."""
        now_us = to_us(self._now())
        found = await asyncio.to_thread(self._session, fingerprint(token), now_us)
        if found is not None and is_used and now_us - found.seen_us >= _MINUTE_US:
            await self._ledger.run(partial(sessions.touch, session_id=found.id, now_us=now_us))
        return found

    async def lasts(self, session: Session) -> bool:
        """Whether nothing has ended the session since."""
        return await asyncio.to_thread(self._session, session.id, to_us(self._now())) is not None

    async def out(self, session: Session) -> None:
        await self._ledger.run(partial(sessions.end, session_id=session.id))
        log.info(Event.SIGNED_OUT, principal=session.principal.key_id)

    async def out_elsewhere(self, session: Session) -> int:
        """End the other sessions of the same person; says how many there were."""
        who = session.principal.key_id
        ended = await self._ledger.run(partial(sessions.end_all, principal_id=who, but=session.id))
        log.info(Event.SIGNED_OUT, principal=who, elsewhere=ended)
        return ended

    async def change_password(self, session: Session, *, old: str, new: str, address: str) -> str:
        """End all sessions of the user and begin one; returns its token. Raises `InvalidInput`.

        The old password is needed, unless there is none or a link let this session in. Whom a provider
        vouches for has none here: it would outlive the provider's word.
        """
        self._not_too_often(address)
        user, is_needed = await asyncio.to_thread(self._account, session)
        if user.subject is not None:
            raise Forbidden("oidc-account", "your organisation says who you are: there is no password here")
        flaw = flaw_of(new, name=user.name)
        if flaw is not None:
            raise InvalidInput([("new password", flaw)])
        if is_needed and not (await self._passwords.check(user.password_hash, old)).is_right:
            self._throttle.failed(address)
            raise InvalidInput([("present password", "is wrong")])
        hashed, now_us = await self._passwords.hash(new), to_us(self._now())

        def change(tx: Transaction) -> str:
            users.lock(tx, user.id)
            if sessions.find(tx.connection, session.id, now_us=now_us, idle_us=self.idle_us) is None:
                raise Forbidden("no-session", "you were signed out meanwhile")
            users.change(tx, user.id, password_hash=hashed, failures=0, locked_until_us=None)
            users.end_links(tx, user.id)
            sessions.end_all(tx, user.id)
            return self._begin(tx, user.id, now_us=now_us)

        token = await self._ledger.run(change)
        log.info(Event.USER_CHANGED, user=user.id, what="password", by=user.id)
        return token

    def account(self, principal: Principal, session: Session | None) -> dict[str, Any]:
        """What a person sees of themselves; `password` is None for a key and for whom a
        provider vouches: `set`, `missing` or `forgotten`.
        """
        now_us = to_us(self._now())
        with self._plane.database.read() as connection:
            found = sessions.of(connection, principal, now_us=now_us, idle_us=self.idle_us)
        password = None
        if session is not None and principal.key_id.startswith(USER):
            user, is_needed = self._account(session)
            if user.subject is None:
                password = "set" if is_needed else "forgotten" if user.password_hash else "missing"
        return {
            "sessions": [_session_document(each) for each in found],
            "password": password,
            "is_user": principal.key_id.startswith(USER),
        }

    async def forget(self, *, now_us: int) -> None:
        """Delete what has run out."""

        def work(tx: Transaction) -> None:
            sessions.forget(tx, now_us=now_us, idle_us=self.idle_us)
            users.forget_links(tx, now_us=now_us)

        await self._ledger.run(work)

    @property
    def idle_us(self) -> int:
        return self.idle_min * _MINUTE_US

    def _find(self, name: str) -> User | None:
        if not name.isprintable():  # nobody is called so, and PostgreSQL takes no NUL
            return None
        with self._plane.database.read() as connection:
            return users.find(connection, name=name)

    def _session(self, session_id: str, now_us: int) -> Session | None:
        with self._plane.database.read() as connection:
            return sessions.find(connection, session_id, now_us=now_us, idle_us=self.idle_us)

    def _account(self, session: Session) -> tuple[User, bool]:
        """The user of a session, and whether a new password needs the old one."""
        with self._plane.database.read() as connection:
            user = users.get(connection, session.principal.key_id)
            came = users.came_by_link(connection, user.id, at_us=session.created_us)
        return user, user.password_hash is not None and not came

    def _begin(self, tx: Transaction, principal_id: str, *, now_us: int) -> str:
        return sessions.begin(tx, principal_id, now_us=now_us, expires_us=now_us + self.days * _DAY_US)

    async def _begun(self, principal_id: str) -> str:
        now_us = to_us(self._now())
        return await self._ledger.run(partial(self._begin, principal_id=principal_id, now_us=now_us))

    def _not_too_often(self, address: str) -> None:
        if self._throttle.refuses(address):
            log.warning(Event.SIGN_IN_FAILED, by="throttle", address=address)
            raise Forbidden("too-many-attempts", "too many attempts from your address: wait five minutes")

    def _refused(self, by: str, address: str, user_id: str | None, said: str) -> Forbidden:
        self._throttle.failed(address)
        log.warning(Event.SIGN_IN_FAILED, by=by, user=user_id, address=address)
        return Forbidden("sign-in-refused", said)


def _session_document(session: Session) -> dict[str, Any]:
    times = {"signed_in_at": session.created_us, "seen_at": session.seen_us, "ends_at": session.expires_us}
    return {"id": session.id, **{name: rfc3339(at_us) for name, at_us in times.items()}}


def _is_locked(user: User, now_us: int) -> bool:
    return user.locked_until_us is not None and now_us < user.locked_until_us


def _failed(tx: Transaction, user: User, *, now_us: int) -> User:
    """One more wrong password; from the fifth in a row on each locks for twice as long as the one before."""
    failures = user.failures + 1
    over = failures - _FAILURES
    until = now_us + min(_LONGEST_LOCK_MIN, 2 ** min(over, 10)) * _MINUTE_US if over >= 0 else None
    users.change(tx, user.id, failures=failures, locked_until_us=until)
    return users.lock(tx, user.id)
