"""What does a reviewer judge, one after the other, without the model's answer before their own?"""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, URLEncodedBody

from app.domain.decision import Category
from app.domain.role import Role
from app.domain.sampling import ReviewMode
from app.errors import Conflict, Forbidden, InvalidInput, NotFound
from app.services.desk import Choice
from app.services.verdicts import Verdict, parse_verdict
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.forms import filled_in
from app.web.console.marked import fields_of
from app.web.console.pages import goes_to, page
from app.web.sessions import BY_ITSELF

KINDS = {
    "binding": "a caller waits",
    "drawn": "drawn by chance",
    "report": "reported",
    "picked": "picked by hand",
}

_Text = FromQuery[str | None]

_JUDGE = [seen_by(Role.REVIEWER)]
_SEE = [seen_by(Role.REVIEWER, Role.OPERATOR)]


class Sent(msgspec.Struct):
    """What the card's form holds. `review` is before the person, `wanted` is shown already as the next one,
    `turn_to` is asked for; then what was chosen in the address.
    """

    review: str = ""
    wanted: str = ""
    turn_to: str = ""
    decision: str = ""
    category: str = ""
    notes: str = ""
    note: str = ""
    rollout: str = ""
    kind: str = ""
    flagged: str = ""

    def __post_init__(self) -> None:
        for name, said in msgspec.structs.asdict(self).items():
            if "\x00" in said:  # PostgreSQL takes none
                raise InvalidInput([(name, "must be a text without NUL characters")])

    @property
    def choice(self) -> Choice:
        return chosen(self.rollout, self.kind, self.flagged)

    @property
    def verdict(self) -> Verdict:
        """Raises `InvalidInput`."""
        said = {"decision": self.decision, "category": self.category, "notes": self.notes.strip()}
        return parse_verdict({name: value or None for name, value in said.items()})


class Score(msgspec.Struct):
    score: int
    comment: str | None = None


def chosen(rollout: str | None, kind: str | None, flagged: str | None) -> Choice:
    """Raises `InvalidInput` for a kind that there is not."""
    if kind and kind not in KINDS:
        raise InvalidInput([("kind", f"must be one of {', '.join(KINDS)}")])
    return Choice(rollout or None, kind or None, flagged=bool(flagged))


@get("/reviews", guards=_SEE, sync_to_thread=True)
def reviews(
    request: Asked, rollout: _Text = None, kind: _Text = None, flagged: _Text = None
) -> Response[bytes]:
    """The card in hand, which a reload finds again; taking one is a request of its own."""
    return _page(request, chosen(rollout, kind, flagged), turn_to=None)


@get("/reviews/{review_id:str}", guards=_JUDGE, sync_to_thread=True)
def review(request: Asked, review_id: FromPath[str]) -> Response[bytes]:
    return _page(request, Choice(), turn_to=review_id)


@get("/reviews/next", guards=_JUDGE, sync_to_thread=True)
def ahead(
    request: Asked,
    after: FromQuery[str],
    rollout: _Text = None,
    kind: _Text = None,
    flagged: _Text = None,
) -> Response[bytes]:
    """The body of the card that would come next, for a browser to have it at hand; nobody claims it."""
    choice = chosen(rollout, kind, flagged)
    found = services_of(request).desk.ahead(choice, principal_of(request), after=after)
    if found is None:
        return Response(b"", status_code=204)
    named = {"X-Review": found["id"]}
    return page(request, "review_card.html", headers=named, review=found, fields=fields_of(found))


@get("/reviews/pace", guards=_JUDGE, sync_to_thread=True)
def pace(request: Asked) -> Response[bytes]:
    return page(request, "review_pace.html", pace=services_of(request).desk.pace(principal_of(request)))


@get("/reviews/{review_id:str}/reasons", guards=_JUDGE)
async def reasons(request: Asked, review_id: FromPath[str]) -> Response[bytes]:
    """The body of a card with reasons that nobody had asked for before."""
    services, principal = services_of(request), principal_of(request)
    shown = await asyncio.to_thread(services.desk.one, review_id, principal)
    if shown["advisory"] is None:
        raise NotFound("reasons of review", review_id)
    story = await services.stories.of(shown["decision_id"], principal)
    if story["advisory"] is not None:
        shown["advisory"] = story["advisory"]
    return page(request, "review_card.html", review=shown, fields=fields_of(shown))


@post("/reviews/take", status_code=200, guards=_JUDGE)
async def take(request: Asked, data: URLEncodedBody[Sent]) -> Response[bytes]:
    """Another card: `turn_to`, or the next."""
    services, principal = services_of(request), principal_of(request)
    if not data.turn_to:
        return await _desk(request, data, await services.desk.take(data.choice, principal))
    try:
        return await _desk(request, data, await services.desk.hold(data.turn_to, principal))
    except Conflict as conflict:
        with suppress(Forbidden):  # what this person has judged, they see judged
            return await _desk(request, data, await services.desk.reveal(data.turn_to, principal))
        raise conflict from None


@post("/reviews/renew", status_code=200, guards=_JUDGE, opt={BY_ITSELF: True})
async def renew(request: Asked, data: URLEncodedBody[Sent]) -> Response[bytes]:
    """Go on holding the card that is open."""
    held = await services_of(request).desk.hold(data.review, principal_of(request))
    return page(request, "review_claim.html", review=held)


@post("/reviews/verdict", status_code=200, guards=_JUDGE)
async def verdict(request: Asked, data: URLEncodedBody[Sent]) -> Response[bytes]:
    """Judge the card; a blind one shows the model's answer then, an assisted one makes room for the next."""
    services, principal = services_of(request), principal_of(request)
    told = await services.reviews.judge(data.review, data.verdict, principal)
    judged = await services.desk.reveal(data.review, principal)
    if judged["mode"] == ReviewMode.BLIND or told["rollback"] is not None:
        return await _desk(request, data, judged, rollback=told["rollback"])
    return await _next(request, data)


@post("/reviews/go-on", status_code=200, guards=_JUDGE)
async def go_on(request: Asked, data: URLEncodedBody[Sent]) -> Response[bytes]:
    """Keep what was added to the verdict after the model's answer was seen, and take the next card."""
    await services_of(request).reviews.explain(data.review, data.verdict, principal_of(request))
    return await _next(request, data)


@post("/reviews/undo", status_code=200, guards=_JUDGE)
async def undo(request: Asked, data: URLEncodedBody[Sent]) -> Response[bytes]:
    """Take one's last verdict back, and the card into hand again where one may judge it again."""
    services, principal = services_of(request), principal_of(request)
    last = await asyncio.to_thread(services.desk.last, principal)
    if last is None:
        raise Conflict("nothing-to-undo", "you have given no verdict that stands")
    await services.reviews.undo(last["review_id"], principal)
    try:
        held = await services.desk.hold(last["review_id"], principal)
    except Conflict:
        return await _next(
            request, data, said="Taken back. Somebody else judges it now: you know the model's answer."
        )
    return await _desk(request, data, held, said="Taken back. Judge it again.")


@post("/reviews/skip", status_code=200, guards=_JUDGE)
async def skip(request: Asked, data: URLEncodedBody[Sent]) -> Response[bytes]:
    await services_of(request).desk.skip(data.review, principal_of(request))
    return await _next(request, data)


@post("/reviews/flag", status_code=200, guards=_JUDGE)
async def flag(request: Asked, data: URLEncodedBody[Sent]) -> Response[bytes]:
    services, principal = services_of(request), principal_of(request)
    await services.desk.flag(data.review, data.note, principal)
    shown = await asyncio.to_thread(services.desk.one, data.review, principal)
    return await _desk(request, data, shown, said="Flagged for an operator.")


@post("/reviews/{review_id:str}/settle", status_code=200, guards=_SEE)
async def settle(request: Asked, review_id: FromPath[str]) -> Response[bytes]:
    """A flag has been seen to."""
    await services_of(request).desk.settle_flag(review_id, principal_of(request))
    return goes_to(request, "/reviews?flagged=1")


@post("/reviews/satisfaction", status_code=200, guards=_JUDGE)
async def content(request: Asked) -> Response[bytes]:
    said: Score = await filled_in(request, Score)
    services, principal = services_of(request), principal_of(request)
    await services.satisfaction.tell(said.score, said.comment, principal)
    return page(request, "review_pace.html", pace=await asyncio.to_thread(services.desk.pace, principal))


def _page(request: Asked, choice: Choice, *, turn_to: str | None) -> Response[bytes]:
    services, principal = services_of(request), principal_of(request)
    judges = principal.may(Role.REVIEWER)
    hand = services.desk.hand(choice, principal) if judges else []
    open_at = services.desk.resumed(choice, principal) if hand and not turn_to else None
    return page(
        request,
        "reviews.html",
        title="Reviews",
        judges=judges,
        choice=choice,
        kinds=KINDS,
        rollouts=sorted(services.plane.view.policy.book.names),
        flags=services.desk.flags(principal) if choice.flagged or not judges else [],
        last=services.desk.last(principal) if judges else None,
        **_card(open_at, hand, turn_to=turn_to, is_new=True),
    )


async def _next(request: Asked, data: Sent, *, said: str | None = None) -> Response[bytes]:
    """The oldest card in hand of the choice, else the next, or word that nothing is left."""
    services, principal = services_of(request), principal_of(request)
    found = await services.desk.proceed(data.choice, principal, wanted=data.wanted or None)
    return await _desk(request, data, found, said=said)


async def _desk(
    request: Asked,
    data: Sent,
    shown: dict[str, Any] | None,
    *,
    said: str | None = None,
    rollback: dict[str, Any] | None = None,
) -> Response[bytes]:
    desk, principal = services_of(request).desk, principal_of(request)
    hand = await asyncio.to_thread(desk.hand, data.choice, principal)
    last = await asyncio.to_thread(desk.last, principal)
    card = _card(shown, hand, said=said, rollback=rollback)
    return page(request, "review_desk.html", choice=data.choice, last=last, **card)


def _card(
    shown: dict[str, Any] | None,
    hand: list[str],
    *,
    turn_to: str | None = None,
    is_new: bool = False,
    said: str | None = None,
    rollback: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the templates of a desk are told. `is_new`: nothing has been asked for yet."""
    at = hand.index(shown["id"]) if shown and shown["id"] in hand else len(hand)
    return {
        "review": shown,
        "fields": fields_of(shown) if shown else [],
        "is_new": is_new and shown is None,
        "turn_to": turn_to,
        "previous": hand[at - 1] if at > 0 else None,
        "following": hand[at + 1] if at + 1 < len(hand) else None,
        "place": (at + 1, len(hand)) if shown and len(hand) > 1 and at < len(hand) else None,
        "categories": tuple(Category),
        "said": said,
        "rollback": rollback,
    }
