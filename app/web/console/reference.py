"""Which calls does the HTTP interface have, for a person who reads?"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from litestar import Litestar, Response, get
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import FromQuery
from litestar.routes import HTTPRoute

from app.web.authentication import Asked
from app.web.console.access import seen_by
from app.web.console.pages import page


@get("/reference", guards=[seen_by()], sync_to_thread=True)
def reference(request: Asked, *, q: FromQuery[str] = "") -> Response[bytes]:
    """What the OpenAPI document says, and who may; `q` leaves out what does not hold it."""
    document = request.app.openapi_schema.to_schema()
    calls = [call for call in _calls(request.app, document) if q.lower() in call["text"]]
    return page(request, "reference.html", title="Reference", calls=calls, q=q)


def _calls(application: Litestar, document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """By path: method, roles (empty: no key is asked for), parameters, and the body's members."""
    for route in sorted(application.routes, key=lambda route: route.path):
        operations = document["paths"].get(route.path_format, {})
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            for method in sorted(handler.http_methods):
                if operation := operations.get(method.lower()):
                    yield _call(method, route.path_format, handler, operation, document)


def _call(
    method: str,
    path: str,
    handler: HTTPRouteHandler,
    operation: Mapping[str, Any],
    document: Mapping[str, Any],
) -> dict[str, Any]:
    said = operation.get("description") or _docstring(handler)
    parameters = [
        {
            "name": each["name"],
            "where": each["in"],
            "required": each["required"],
            "kind": _kind(each["schema"]),
        }
        for each in operation.get("parameters", ())
    ]
    return {
        "method": method,
        "path": path,
        "said": said,
        "roles": _roles(handler),
        "parameters": parameters,
        "body": _body(operation, document),
        "text": f"{method} {path} {said}".lower(),
    }


def _docstring(handler: BaseRouteHandler) -> str:
    """What the handler itself says: what runs on a thread is wrapped, perhaps more than once."""
    function: Any = handler.fn
    while hasattr(function, "func"):
        function = function.func
    return inspect.getdoc(function) or ""


def _roles(handler: BaseRouteHandler) -> list[str]:
    """The roles that `requires` was given."""
    found = [inspect.getclosurevars(guard).nonlocals.get("roles", ()) for guard in handler.guards or ()]
    return [str(role) for roles in found for role in roles]


def _body(operation: Mapping[str, Any], document: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    required = schema.get("required", ())
    members = schema.get("properties", {}).items()
    return [{"name": name, "kind": _kind(each), "required": name in required} for name, each in members]


def _kind(schema: Mapping[str, Any]) -> str:
    """A type in words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return " or ".join(str(value) for value in schema["enum"] if value is not None)
    if "oneOf" in schema:
        return " or ".join(_kind(each) for each in schema["oneOf"] if each.get("type") != "null")
    kinds = schema.get("type", "anything")
    return " or ".join(kind for kind in kinds if kind != "null") if isinstance(kinds, list) else str(kinds)
