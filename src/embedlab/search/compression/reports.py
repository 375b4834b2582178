"""What compressing and upgrading report, all plain and immutable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

OnPhase = Callable[[str, float], None]  # the phase, and the share of it that is done


@dataclass(frozen=True, slots=True)
class Form:
    """How the vectors of a collection are searched.

    Args:
        recall: Share of the exact ten nearest passages that are among the first ten found.
        bytes_per_passage: Bytes of memory that one vector or code takes.
        bytes_in_memory: Bytes of memory that all of them take, row numbers included.
        bytes_on_disk: Bytes of the table's files.
        p50_ms: Median time to find the nearest passages of one query vector.
        p95_ms: Time that 95 % of these look-ups stay below.
    """

    recall: float
    bytes_per_passage: int
    bytes_in_memory: int
    bytes_on_disk: int
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class CompressionReport:
    """What compressing a collection did.

    Args:
        collection: Its name.
        codec: Fingerprint of the codec.
        passages: Passages encoded.
        verify: How many candidates are scored again by their vectors.
        vectors_kept: Whether the vectors are still there.
        before: How it was searched before.
        after: How it is searched now.
        recall_of_codes: Recall of the codes alone, without verification.
        queries: Number of queries measured with, made from the collection's own texts.
        seconds: Time it took.
    """

    collection: str
    codec: str
    passages: int
    verify: int
    vectors_kept: bool
    before: Form
    after: Form
    recall_of_codes: float
    queries: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What undoing a compression did.

    Args:
        collection: Its name.
        codec: Fingerprint of the codec whose codes are gone.
        embedded: Passages that were embedded again; 0 if the vectors had been kept.
        seconds: Time it took.
    """

    collection: str
    codec: str
    embedded: int
    seconds: float


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What another model for the queries of a collection does.

    Args:
        collection: Its name.
        before: Name of the model so far.
        after: Name of the new model.
        recall_before: Share of queries, made from the collection's own texts, whose passage was among the first ten;
            None if the model so far can't be used any more.
        recall_after: The same with the new model over the same index.
        overlap: Share of the ten passages found before that are found again; None as above.
        trained_on: Passages that the new model embedded to learn the map.
        queries: Number of queries measured with; none of them was learned from.
        kept: Whether the new model is in use now; False if it loses more than allowed.
        seconds: Time it took.
    """

    collection: str
    before: str
    after: str
    recall_before: float | None
    recall_after: float
    overlap: float | None
    trained_on: int
    queries: int
    kept: bool
    seconds: float

    @property
    def loss(self) -> float | None:
        """Recall that is lost; below 0 where the new model finds more, None where it is not known."""
        return None if self.recall_before is None else self.recall_before - self.recall_after

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        return {**asdict(self), "loss": self.loss}
