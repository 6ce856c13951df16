"""What can be managed, whether the caller waits or awaits?"""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from app.client.wire import Document

One = TypeVar("One")
Many = TypeVar("Many")


class Management(ABC, Generic[One, Many]):
    """What is asked for often has a call of its own; `get`, `post` and `delete` reach all the rest.

    `One` is a document or what is awaited for it, `Many` the same of a list of documents.
    """

    @abstractmethod
    def call(
        self, method: str, path: str, /, body: Document | None = None, params: Document | None = None
    ) -> One:
        """The document that answers. Raises `ClientError`."""

    @abstractmethod
    def list_of(self, member: str, path: str, /, params: Document | None = None) -> Many:
        """The documents under one member of the answer. Raises `ClientError`."""

    def get(self, path: str, /, **params: Any) -> One:
        """Any document of the API, such as `get("/v1/rollouts/read/gate", to="advisory")`."""
        return self.call("GET", path, params=params)

    def post(self, path: str, /, **body: Any) -> One:
        """Any act of the API, such as `post("/v1/kill-switch", engaged=True, reason="…")`."""
        return self.call("POST", path, body)

    def delete(self, path: str, /) -> One:
        return self.call("DELETE", path)

    def rollouts(self) -> Many:
        return self.list_of("rollouts", "/v1/rollouts")

    def rollout(self, name: str, /) -> One:
        return self.get(f"/v1/rollouts/{name}")

    def gate(self, name: str, /, *, to: str) -> One:
        return self.get(f"/v1/rollouts/{name}/gate", to=to)

    def guardrails(self, name: str, /) -> One:
        return self.get(f"/v1/rollouts/{name}/guardrails")

    def evidence(self, name: str, /) -> One:
        return self.get(f"/v1/rollouts/{name}/evidence")

    def promote(self, name: str, /, *, to: str, reason: str, expected_revision: int) -> One:
        body = {"to": to, "reason": reason, "expected_revision": expected_revision}
        return self.post(f"/v1/rollouts/{name}/promote", **body)

    def rollback(self, name: str, /, *, reason: str) -> One:
        return self.post(f"/v1/rollouts/{name}/rollback", reason=reason)

    def hold(self, name: str, /, *, reason: str) -> One:
        return self.post(f"/v1/rollouts/{name}/hold", reason=reason)

    def resume(self, name: str, /, *, reason: str) -> One:
        return self.post(f"/v1/rollouts/{name}/resume", reason=reason)

    def versions(self) -> Many:
        return self.list_of("versions", "/v1/versions")

    def change_version(self, name: str, /, *, action: str, reason: str, **options: Any) -> One:
        """`action`: candidate, activate, revert or withdraw; `options` such as `version="…"`."""
        return self.post(f"/v1/rollouts/{name}/version", action=action, reason=reason, **options)

    def reviews(self, **filters: Any) -> Many:
        return self.list_of("reviews", "/v1/reviews", params=filters)

    def claim(self, review_id: str, /) -> One:
        return self.post(f"/v1/reviews/{review_id}/claim")

    def verdict(
        self, review_id: str, /, *, decision: str, category: str | None = None, notes: str = ""
    ) -> One:
        body = {"decision": decision, "category": category, "notes": notes}
        return self.post(f"/v1/reviews/{review_id}/verdict", **body)

    def report(self, decision_id: str, /, *, decision: str, notes: str = "") -> One:
        return self.post(f"/v1/decisions/{decision_id}/report", decision=decision, notes=notes)
