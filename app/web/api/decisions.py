"""Decisions over HTTP: ask, ask many, look back, report."""

import asyncio
import time
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from litestar import MediaType, Response, get, post
from litestar.params import FromPath, FromQuery, QueryParameter

from app.domain.decision import AnsweredBy, Decision
from app.domain.phase import Phase
from app.domain.role import Role
from app.domain.search import CHOICES, Filters
from app.domain.situation import MAX_SITUATION_BYTES, parse_situation
from app.errors import InvalidInput, InvalidSituation, PhasegateError
from app.observability import REQUEST_ID
from app.services.records import Question, Token
from app.services.verdicts import parse_verdict
from app.store.search import MAX_PAGE
from app.web.authentication import Asked, principal_of, requires, services_of
from app.web.bodies import MAX_BATCH, MAX_BATCH_BYTES, decode, header, instant_us, read_body, sha256
from app.web.documented import TakesBatch, TakesSituation, TakesVerdict
from app.web.problems import problem_of


def _one_of(name: str) -> QueryParameter:
    """A filter of few values that are no one enumeration."""
    return QueryParameter(pattern=f"^({'|'.join(CHOICES[name])})$")


_encode = msgspec.json.Encoder().encode


@post("/v1/decisions", status_code=200, guards=[requires(Role.CALLER)], operation_class=TakesSituation)
async def decide(request: Asked) -> Response[bytes]:
    """Answer one situation. The answer is recorded before it is sent."""
    started = time.monotonic()
    services = services_of(request)
    body = await read_body(request)
    question = _question(request, decode(body), started)
    token = header(request, b"idempotency-key")
    if token is None:
        document = await services.decider.decide(question)
    else:

        async def ask(known: Token) -> dict[str, Any]:
            return await services.decider.decide(replace(question, token=known))

        document = await services.replays.once(question.principal.key_id, token, sha256(body), ask)
    return Response(_encode(document), media_type=MediaType.JSON)


@post("/v1/decisions:batch", status_code=200, guards=[requires(Role.CALLER)], operation_class=TakesBatch)
async def decide_many(request: Asked) -> Response[bytes]:
    """Answer up to 1,000 situations in order; a bad one is a problem in its place."""
    started = time.monotonic()
    body = decode(await read_body(request, at_most=MAX_BATCH_BYTES))
    situations = body.get("situations") if isinstance(body, dict) else None
    if not isinstance(situations, list):
        raise InvalidInput([("situations", "must be a list of situations")])
    if len(situations) > MAX_BATCH:
        raise InvalidInput([("situations", f"must hold at most {MAX_BATCH}, not {len(situations)}")])

    async def one(raw: object) -> dict[str, Any]:
        try:
            if len(_encode(raw)) > MAX_SITUATION_BYTES:
                raise InvalidSituation([("", f"is larger than {MAX_SITUATION_BYTES} bytes")])
            return await services_of(request).decider.decide(_question(request, raw, started))
        except PhasegateError as error:
            return problem_of(error)

    decisions = await asyncio.gather(*(one(raw) for raw in situations))
    return Response(_encode({"decisions": decisions}), media_type=MediaType.JSON)


@get("/v1/decisions/{decision_id:str}", guards=[requires(*Role)])
async def story(
    request: Asked,
    decision_id: FromPath[str],
    wait_s: Annotated[float, QueryParameter(ge=0)] = 0.0,
) -> dict[str, Any]:
    """One decision's whole story. `wait_s` waits for a binding verdict, up to 60 seconds."""
    return await services_of(request).stories.of(decision_id, principal_of(request), wait_s=wait_s)


@get("/v1/decisions", guards=[requires(*Role)], sync_to_thread=True)
def page(
    request: Asked,
    *,
    rollout: FromQuery[str | None] = None,
    phase: FromQuery[Phase | None] = None,
    decision: FromQuery[Decision | None] = None,
    agreement: FromQuery[bool | None] = None,
    actor_id: Annotated[str | None, QueryParameter(name="actor")] = None,
    legacy: FromQuery[Decision | None] = None,
    model: Annotated[str | None, _one_of("model")] = None,
    answered_by: FromQuery[AnsweredBy | None] = None,
    fallback: Annotated[str | None, _one_of("fallback")] = None,
    action: FromQuery[str | None] = None,
    version: FromQuery[str | None] = None,
    epoch: Annotated[int | None, QueryParameter(ge=0, lt=10**9)] = None,
    review: Annotated[str | None, _one_of("review")] = None,
    since: FromQuery[str | None] = None,
    until: FromQuery[str | None] = None,
    cursor: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
) -> dict[str, Any]:
    """Newest first, by cursor; a caller sees their own."""
    filters = Filters(
        rollout=rollout,
        phase=phase,
        decision=decision,
        agreement=agreement,
        actor_id=actor_id,
        legacy=legacy,
        model=model,
        answered_by=answered_by,
        fallback=fallback,
        action_type=action,
        version=version,
        epoch=epoch,
        review=review,
        since_us=instant_us("since", since),
        until_us=instant_us("until", until),
    )
    return services_of(request).stories.page(filters, principal_of(request), cursor=cursor, limit=limit)


@post(
    "/v1/decisions/{decision_id:str}/report",
    status_code=200,
    guards=[requires(Role.CALLER, Role.REVIEWER, Role.OPERATOR)],
    operation_class=TakesVerdict,
)
async def report(request: Asked, decision_id: FromPath[str]) -> dict[str, Any]:
    """An incident: what the decision should have been."""
    verdict = parse_verdict(decode(await read_body(request)))
    return await services_of(request).reviews.report(decision_id, verdict, principal_of(request))


@post(
    "/advisory",
    status_code=200,
    guards=[requires(Role.CALLER, Role.REVIEWER, Role.OPERATOR)],
    operation_class=TakesSituation,
)
async def advisory(request: Asked) -> dict[str, Any]:
    """The model's opinion alone, with its reasoning; binds nobody and is not recorded."""
    return await services_of(request).opinions.of(parse_situation(decode(await read_body(request))))


def _question(request: Asked, raw: object, started: float) -> Question:
    return Question(
        parse_situation(raw),
        principal_of(request),
        REQUEST_ID.get(),
        started,
        services_of(request).now_us(),
    )
