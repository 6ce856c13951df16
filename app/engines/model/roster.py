"""Which versions does a worker hold, and what has become of each?"""

from collections.abc import Iterator
from itertools import islice

from app.engines.model.version import ModelVersion


class Roster:
    """The versions of one worker, over all the lives of its process."""

    def __init__(self) -> None:
        self._versions: dict[str, ModelVersion] = {}
        self._taken: dict[str, str | None] = {}  # in this life: None, or why it is refused
        self._proven: set[str] = set()  # taken in before: the next life begins with these
        self._served: set[str] = set()

    def __contains__(self, version_id: str) -> bool:
        return version_id in self._versions

    def __len__(self) -> int:
        return len(self._versions)

    def add(self, version: ModelVersion) -> None:
        self._versions[version.id] = version

    def remove(self, version_id: str) -> bool:
        """Forget a version; False where there is none."""
        self._taken.pop(version_id, None)
        self._proven.discard(version_id)
        self._served.discard(version_id)
        return self._versions.pop(version_id, None) is not None

    def first(self) -> tuple[ModelVersion, ...]:
        """What a life begins with: the proven, or one alone, lest a bad newcomer keep the others out."""
        proven = tuple(version for version in self._versions.values() if version.id in self._proven)
        return proven or tuple(islice(self._versions.values(), 1))

    def missing(self) -> Iterator[ModelVersion]:
        """Those that the worker has not yet answered for in this life."""
        return (version for version in self._versions.values() if version.id not in self._taken)

    def took(self, version_id: str, error: str | None) -> None:
        self._taken[version_id] = error
        if error is None:
            self._proven.add(version_id)
            self._served.add(version_id)

    def died(self) -> None:
        """A new life has taken in none so far."""
        self._taken.clear()

    def blame(self, first: tuple[ModelVersion, ...]) -> None:
        """The worker could not load these: the next life begins with another one, alone."""
        self._proven.clear()
        for version in first[:1]:
            if self._versions.pop(version.id, None):
                self._versions[version.id] = version

    def has_settled(self, version_id: str) -> bool:
        return version_id in self._taken

    def error_of(self, version_id: str) -> str | None:
        return self._taken.get(version_id)

    def has_served(self, version_id: str) -> bool:
        """Whether it could be asked at any time, in this life or before."""
        return version_id in self._served
