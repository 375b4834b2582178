"""What an inspection found, as values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedlab.ops.significance import Interval
from embedlab.understand.geometry import Hubness, IntrinsicDimension, Isotropy, ModalityGap, NormRelations
from embedlab.understand.length_collapse import LayerRates
from embedlab.understand.tte_depth import DepthTest

_BULK = {
    "occurrences",
    "depths",
    "plane",
    "plane_lengths",
    "spots",
}  # one number per text: for plots, not for a report in JSON


class Bucket(Protocol):
    """A mean over the texts of some length."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def num_texts(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def mean_low(self) -> float: ...
    @property
    def mean_high(self) -> float: ...


class Profile(Protocol):
    """A quantity by the length of texts, such as ``embedlab.text.temp_scale.LengthProfile``."""

    @property
    def quantity(self) -> str: ...
    @property
    def buckets(self) -> Sequence[Bucket]: ...


@dataclass(frozen=True, slots=True)
class TextMark:
    """A text that stands out.

    Attributes:
        row: Its row in the vectors given, from 0.
        value: The number for which it stands out.
        id: Its name, if rows have names.
        text: The text, if texts were given.
    """

    row: int
    value: float
    id: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class DepthSummary:
    """How central texts are, and which stand out.

    Attributes:
        mean: Mean depth, at most 2.
        spread: Standard deviation of the depths; tiny when all texts crowd together.
        deepest: The most central texts, the median first.
        outermost: The least central texts, the outermost first.
        depths: Depth of every text, (N,).
    """

    mean: float
    spread: float
    deepest: tuple[TextMark, ...]
    outermost: tuple[TextMark, ...]
    depths: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """The texts of one label.

    Attributes:
        label: The label.
        num_texts: How many there are.
        mean_cosine: Mean cosine of two of them; None for a single one.
        median: The most central of them.
    """

    label: str
    num_texts: int
    mean_cosine: Interval | None
    median: TextMark


@dataclass(frozen=True, slots=True)
class Against:
    """Another corpus, compared with the one inspected.

    Attributes:
        name: Its name.
        rows: Its rows.
        test: Two-sample depth test: does it come from the same distribution?
        q: Chance that one of its texts is at least as central as one of the corpus, with a bootstrap interval.
        strays: Its least central texts, the outermost first.
        gap: How far the two lie apart.
        depths: Depth of each of its texts in the corpus, (M,).
    """

    name: str
    rows: int
    test: DepthTest
    q: Interval
    strays: tuple[TextMark, ...]
    gap: ModalityGap | None
    depths: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything an inspection found.

    Attributes:
        name: Name of what was inspected.
        model: Model that made the vectors, if known.
        rows: Rows looked at.
        dim: Width of the vectors.
        left_out: Zero rows that were left out.
        isotropy: How evenly vectors point.
        dimension: How many dimensions they fill; None if there are too few different rows.
        hubness: Who is whose neighbour; None likewise.
        norms: Lengths of vectors, and what goes with the length of texts.
        depth: How central texts are.
        hubs: Texts that are among the nearest of most others.
        orphans: Texts that are among nobody's nearest, the outermost first.
        profiles: Quantities by length of text, if handed in.
        layers: Filter rate layer by layer, if handed in.
        groups: The largest labels, if there are any.
        num_groups: How many labels there are.
        against: Another corpus, if one was given.
        other_model: Name of another model for the same texts, if given.
        similarity: How alike the two models' spaces are.
        missing: What could not be looked at, and why.
        length_unit: What lengths count.
        plane: Texts on the two first principal components, at most a few thousand, (P, 2).
        plane_lengths: Lengths of these texts, (P,), if they have different ones.
        spots: The other corpus on these components, (P', 2).
    """

    name: str
    model: str | None
    rows: int
    dim: int
    left_out: int
    isotropy: Isotropy
    dimension: IntrinsicDimension | None
    hubness: Hubness | None
    norms: NormRelations
    depth: DepthSummary
    hubs: tuple[TextMark, ...] = ()
    orphans: tuple[TextMark, ...] = ()
    profiles: tuple[Profile, ...] = ()
    layers: LayerRates | None = None
    groups: tuple[GroupSummary, ...] = ()
    num_groups: int = 0
    against: Against | None = None
    other_model: str | None = None
    similarity: Any = None
    missing: Mapping[str, str] = field(default_factory=dict)
    length_unit: str = "characters"
    plane: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    plane_lengths: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    spots: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the numbers for single texts, ready for JSON: what is not finite becomes None."""
        found = plain(self)
        return {key: value for key, value in found.items() if value is not None and value != []}


def plain(value: Any) -> Any:
    """Turn dataclasses, arrays and NumPy's numbers into what JSON can hold.

    Args:
        value: Any of these, nested in any way.

    Returns:
        Dicts, lists, strings, numbers, booleans and None.

    Example:
        >>> plain({"a": np.float32(0.5), "b": [math.inf, (1, 2)]})
        {'a': 0.5, 'b': [None, [1, 2]]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in fields(value) if each.name not in _BULK]
        found = {name: plain(getattr(value, name)) for name in names if not _is_rows(name, getattr(value, name))}
        reading = getattr(value, "reading", None)
        return found if reading is None else found | {"reading": reading}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _is_rows(name: str, value: Any) -> bool:
    return name == "rows" and isinstance(value, np.ndarray)
