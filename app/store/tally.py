"""Are two sets of keys the same, without holding either in memory?"""

import hashlib

_BUCKETS = 1_024


class Tally:
    """A multiset hash of the keys added, in whatever order: sums of their hashes, by bucket."""

    def __init__(self) -> None:
        self.sums = [0] * _BUCKETS

    def add(self, key: str) -> None:
        bucket, weight = _hash(key)
        self.sums[bucket] += weight

    def differing(self, other: "Tally") -> set[int]:
        """Buckets in which the two differ; none where the keys are the same, each as often."""
        pairs = zip(self.sums, other.sums, strict=True)
        return {bucket for bucket, (mine, theirs) in enumerate(pairs) if mine != theirs}


def bucket_of(key: str) -> int:
    return _hash(key)[0]


def _hash(key: str) -> tuple[int, int]:
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:2]) % _BUCKETS, int.from_bytes(digest[2:])
