"""How do the routes become one application?"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from litestar import Litestar
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from app.services.container import Services
from app.web.api import (
    administration,
    decisions,
    freezes,
    probes,
    reports,
    reviews,
    rollouts,
    users,
    versions,
    webhooks,
)
from app.web.authentication import Gatekeeper
from app.web.bodies import MAX_BATCH_BYTES
from app.web.console.routes import assets, console
from app.web.problems import answer

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]

_ROOMS = (decisions, rollouts, freezes, reviews, versions, administration, users, reports, webhooks, probes)
_ROUTES = [each for room in _ROOMS for each in vars(room).values() if isinstance(each, BaseRouteHandler)]


def create_app(services: Services, *, lifespan: Sequence[Lifespan] = ()) -> Litestar:
    """The ASGI application over the services of one server."""
    return Litestar(
        route_handlers=[*_ROUTES, console, assets],
        exception_handlers={Exception: answer},
        state=State({"services": services}),
        middleware=[DefineMiddleware(Gatekeeper, plane=services.plane, sign_in=services.sign_in)],
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
