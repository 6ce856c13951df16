"""Which pages does the console have?"""

from litestar import Router
from litestar.datastructures import CacheControlHeader
from litestar.handlers import BaseRouteHandler
from litestar.static_files import create_static_files_router

from app.web.console import (
    approvals,
    audit,
    board,
    decision_files,
    decisions,
    keys,
    live,
    oidc,
    reference,
    reports,
    reviews,
    rollout,
    sign_in,
    suites,
    system,
    versions,
)
from app.web.console.access import explain
from app.web.console.pages import STATIC

_YEAR_S = 31_536_000
_ROOMS = (
    *(
        board,
        decision_files,
        decisions,
        live,
        reference,
        reports,
        reviews,
        rollout,
        suites,
        versions,
        oidc,
        sign_in,
    ),
    *(approvals, audit, keys, system),
)
_PAGES = [each for room in _ROOMS for each in vars(room).values() if isinstance(each, BaseRouteHandler)]

console = Router("/", route_handlers=_PAGES, exception_handlers={Exception: explain}, include_in_schema=False)
assets = create_static_files_router(
    "/static",
    directories=[STATIC],
    cache_control=CacheControlHeader(max_age=_YEAR_S, immutable=True),
    include_in_schema=False,
)
