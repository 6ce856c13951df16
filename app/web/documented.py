"""What does the OpenAPI document say of bodies that a handler reads itself?"""

from dataclasses import dataclass

from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

from app.domain.decision import Category, Decision
from app.web.bodies import MAX_BATCH

_TEXT = Schema(type=OpenAPIType.STRING)
_NAME = Schema(type=OpenAPIType.STRING, min_length=1, max_length=256)
_SHARE = Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=1)
_OLDER, _NEWER = ("competence", "reliability", "integrity"), ("talent", "training", "temperament")


def _trust(names: tuple[str, ...]) -> Schema:
    return Schema(
        type=OpenAPIType.OBJECT,
        properties=dict.fromkeys(names, _SHARE),
        required=list(names),
        additional_properties=False,
    )


_SITUATION = Schema(
    type=OpenAPIType.OBJECT,
    description="What a caller asks about; further members are kept and shown to the model.",
    properties={
        "action_type": _NAME,
        "actor_role": _NAME,
        "actor_id": _NAME,
        "t3_tensor": Schema(one_of=[_trust(_OLDER), _trust(_NEWER)]),
        "resource": _TEXT,
        "team_context": _TEXT,
        "timestamp": _TEXT,
        "recent_history": Schema(one_of=[_TEXT, Schema(type=OpenAPIType.ARRAY, items=_TEXT)]),
        "identity_metrics": Schema(type=OpenAPIType.OBJECT),
        "details": Schema(),
    },
    required=["action_type", "actor_role", "actor_id", "t3_tensor"],
)
_BATCH = Schema(
    type=OpenAPIType.OBJECT,
    properties={"situations": Schema(type=OpenAPIType.ARRAY, items=_SITUATION, max_items=MAX_BATCH)},
    required=["situations"],
)
_VERDICT = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        "decision": Schema(enum=[decision.value for decision in Decision]),
        "category": Schema(enum=[category.value for category in Category]),
        "notes": _TEXT,
    },
    required=["decision"],
    additional_properties=False,
)

_VERSION = Schema(
    type=OpenAPIType.OBJECT,
    description="The id alone, or a declaration with the keys of a file in policies/versions.",
    properties={"id": Schema(type=OpenAPIType.STRING, pattern="^[a-z0-9][a-z0-9._-]{0,79}$")},
    required=["id"],
)


def _taking(schema: Schema) -> type[Operation]:
    """An operation whose body has this schema."""

    @dataclass
    class Taking(Operation):
        def __post_init__(self) -> None:
            media = {"application/json": OpenAPIMediaType(schema=schema)}
            self.request_body = RequestBody(content=media, required=True)

    return Taking


TakesSituation, TakesBatch = _taking(_SITUATION), _taking(_BATCH)
TakesVerdict, TakesVersion = _taking(_VERDICT), _taking(_VERSION)
