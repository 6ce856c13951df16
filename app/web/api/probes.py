"""Is the server alive, ready, and well? No key needed."""

from typing import Any

from litestar import MediaType, Response, get

from app.engines.model.engine import ModelState, ModelStatus
from app.observability import exposition
from app.store.ledger import LedgerState
from app.web.authentication import Asked, services_of


@get("/health", sync_to_thread=False)
def health(request: Asked) -> dict[str, Any]:
    """`healthy`, or `degraded` where the legacy engine stands in; says which part is not well."""
    models, plane = services_of(request).models, services_of(request).plane
    model = models.default.status
    active = {state.version for state in plane.view.states.values()} - {model.version}
    parts = {
        "model": model.state is ModelState.READY and not model.circuit_open,
        "versions": all(models.of(version).is_ready for version in active),
        "ledger": services_of(request).ledger.state is LedgerState.OK,
        "plane": not plane.state(circuit_open=False).is_stale,
    }
    return {
        "status": "healthy" if all(parts.values()) else "degraded",
        "degraded": sorted(part for part, well in parts.items() if not well),
        "model": {
            **_version(model),
            "restarts": model.restarts,
            "load_s": model.load_s,
            "offloaded_layers": model.offloaded_layers,
        },
        "versions": [_version(other.status) for other in models.loaded[1:]],
        "ledger": services_of(request).ledger.state,
        "kill_switch": plane.view.kill_switch,
        "snapshot_age_s": round(plane.snapshot_age_s, 3),
        "guard_pass_age_s": round(min(plane.guard_age_s, 1e9), 3),
        "drills": services_of(request).drills,
        "fault": model.fault,
    }


def _version(status: ModelStatus) -> dict[str, Any]:
    return {
        "version": status.version,
        "state": status.state,
        "name": status.model,
        "queue": status.queue_depth,
        "circuit_open": status.circuit_open,
        "device": status.device,
        "error": status.error,
    }


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
