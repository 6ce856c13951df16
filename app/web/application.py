"""How do the routes become one application?"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.middleware import DefineMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from app.services.container import Services
from app.web.api import administration, decisions, probes, reviews, rollouts, validation, versions
from app.web.authentication import Gatekeeper
from app.web.bodies import MAX_BATCH_BYTES
from app.web.problems import answer

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]

_ROUTES: Sequence[Any] = (
    decisions.decide,
    decisions.decide_many,
    decisions.story,
    decisions.page,
    decisions.report,
    decisions.advisory,
    rollouts.rollouts,
    rollouts.rollout,
    rollouts.gate,
    rollouts.guardrails,
    rollouts.evidence,
    rollouts.transitions,
    rollouts.promote,
    rollouts.rollback,
    rollouts.exposure,
    rollouts.hold,
    rollouts.resume,
    rollouts.investigation,
    rollouts.version,
    rollouts.kill_switch,
    reviews.reviews,
    reviews.claim,
    reviews.verdict,
    reviews.undo,
    administration.keys,
    administration.create_key,
    administration.revoke_key,
    administration.policy_diff,
    administration.policy_apply,
    versions.versions,
    versions.register,
    versions.experiments,
    validation.validate,
    validation.validations,
    administration.audit,
    administration.audit_verify,
    administration.drill_fault,
    administration.events,
    probes.health,
    probes.live,
    probes.ready,
    probes.metrics,
    probes.index,
)


def create_app(services: Services, *, lifespan: Sequence[Lifespan] = ()) -> Litestar:
    """The ASGI application over services that `app.main` made."""
    return Litestar(
        route_handlers=list(_ROUTES),
        exception_handlers={Exception: answer},
        state=State({"services": services}),
        middleware=[DefineMiddleware(Gatekeeper, plane=services.plane)],
        lifespan=list(lifespan),
        request_max_body_size=MAX_BATCH_BYTES,
        logging_config=None,  # `app.observability` has set it
        openapi_config=OpenAPIConfig(
            title="Phasegate",
            version="1",
            path="/schema",
            render_plugins=[JsonRenderPlugin(path="/openapi.json")],
            components=Components(
                security_schemes={"key": SecurityScheme(type="http", scheme="bearer", bearer_format="pg_…")}
            ),
            security=[{"key": []}],
        ),
    )
