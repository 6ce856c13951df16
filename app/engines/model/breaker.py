"""Is the model failing so steadily that it should not be asked for a while?"""

from dataclasses import dataclass


@dataclass(slots=True)
class CircuitBreaker:
    """Opens after `threshold` failures in a row; after a pause one request may try again.

    `now` is monotonic seconds. The pause doubles with every failed trial, up to `longest_pause_s`.
    """

    threshold: int = 5
    pause_s: float = 5.0
    longest_pause_s: float = 60.0
    _failures: int = 0
    _retry_at: float | None = None
    _next_pause_s: float = 0.0
    _trying: bool = False

    def is_open(self, now: float) -> bool:
        """True while requests are refused; False again as soon as a trial is due."""
        return self._retry_at is not None and (self._trying or now < self._retry_at)

    @property
    def has_tripped(self) -> bool:
        """True from the failure that opens it until the model has answered again."""
        return self._retry_at is not None

    def admit(self, now: float) -> bool:
        """Whether this request may be sent. Each admitted one must be reported by one of the three below."""
        if self.is_open(now):
            return False
        self._trying = self._retry_at is not None
        return True

    def succeed(self) -> None:
        self._failures, self._retry_at, self._next_pause_s, self._trying = 0, None, 0.0, False

    def fail(self, now: float) -> None:
        if self._retry_at is not None and not self._trying:
            return  # asked before the circuit opened: no trial, and no reason to wait longer
        self._failures += 1
        if self._failures >= self.threshold:
            self._next_pause_s = min(max(2 * self._next_pause_s, self.pause_s), self.longest_pause_s)
            self._retry_at, self._trying = now + self._next_pause_s, False

    def pass_over(self) -> None:
        """The request says nothing about the model: cancelled, never started, or at the caller's fault."""
        self._trying = False
