"""Reviews over HTTP: the queue, what people say, and how content they are."""

from typing import Annotated, Any, Literal

from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from app.domain.role import Role
from app.services.verdicts import parse_verdict
from app.store.reviews import MAX_PAGE
from app.web.authentication import Asked, principal_of, requires, services_of
from app.web.bodies import Content, decode, read_body
from app.web.documented import TakesVerdict

_JUDGE = [requires(Role.REVIEWER)]


@get("/v1/reviews", guards=[requires(Role.REVIEWER, Role.OPERATOR, Role.AUDITOR)], sync_to_thread=True)
def reviews(
    request: Asked,
    *,
    status: FromQuery[Literal["open", "judged", "expired", "closed"]] = "open",
    rollout: FromQuery[str | None] = None,
    kind: FromQuery[Literal["binding", "drawn", "report", "picked"] | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
    offset: Annotated[int, QueryParameter(ge=0, le=1_000_000)] = 0,
) -> dict[str, Any]:
    """Most urgent first, without the reviewer's own situations."""
    found = services_of(request).reviews.list(
        principal_of(request), status=status, rollout=rollout, kind=kind, limit=limit, offset=offset
    )
    return {"reviews": found}


@post("/v1/reviews/{review_id:str}/claim", status_code=200, guards=_JUDGE)
async def claim(request: Asked, review_id: FromPath[str]) -> dict[str, Any]:
    return await services_of(request).reviews.claim(review_id, principal_of(request))


@post("/v1/reviews/{review_id:str}/verdict", status_code=200, guards=_JUDGE, operation_class=TakesVerdict)
async def verdict(request: Asked, review_id: FromPath[str]) -> dict[str, Any]:
    """`{decision, category, notes}`; a wrong allow on high risk rolls back in the same transaction."""
    said = parse_verdict(decode(await read_body(request)))
    return await services_of(request).reviews.judge(review_id, said, principal_of(request))


@post("/v1/reviews/{review_id:str}/undo", status_code=200, guards=_JUDGE)
async def undo(request: Asked, review_id: FromPath[str]) -> dict[str, Any]:
    return await services_of(request).reviews.undo(review_id, principal_of(request))


@post("/v1/satisfaction", status_code=200, guards=_JUDGE)
async def tell_satisfaction(request: Asked, data: JSONBody[Content]) -> dict[str, Any]:
    """How content a reviewer is with the model's help, once a day."""
    return await services_of(request).satisfaction.tell(data.score, data.comment, principal_of(request))


@get(
    "/v1/satisfaction",
    guards=[requires(Role.OPERATOR, Role.APPROVER, Role.AUDITOR)],
    sync_to_thread=True,
)
def satisfaction(
    request: Asked, *, days: Annotated[int, QueryParameter(ge=1, le=3_660)] = 30
) -> dict[str, Any]:
    """What reviewers answered, without their names."""
    return services_of(request).satisfaction.of(days=days)
