"""Is the server alive, ready, and well? No key needed."""

from typing import Any

from litestar import MediaType, Response, get

from app.observability import exposition
from app.web.authentication import Asked, services_of


@get("/health", sync_to_thread=False)
def health(request: Asked) -> dict[str, Any]:
    """`healthy`, or `degraded` where the legacy engine stands in; says which part is not well."""
    return services_of(request).health.document()


@get("/health/live", sync_to_thread=False)
def live() -> dict[str, str]:
    return {"status": "alive"}


@get("/health/ready", sync_to_thread=False)
def ready(request: Asked) -> Response[dict[str, str]]:
    """200 once the model has loaded for the first time; later trouble is the legacy engine's to bear."""
    if services_of(request).models.default.status.loaded_once:
        return Response({"status": "ready"})
    return Response({"status": "loading"}, status_code=503)


@get("/metrics", media_type=MediaType.TEXT, sync_to_thread=True)
def metrics() -> Response[bytes]:
    return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
