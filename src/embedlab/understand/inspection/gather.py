"""One look at everything: run each tool on a space, and keep what it says or why it can't."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.understand.depth_shift import bootstrap_q
from embedlab.understand.geometry import (
    Hubness,
    IntrinsicDimension,
    ModalityGap,
    hubness,
    intrinsic_dimension,
    isotropy,
    mean_cosine,
    modality_gap,
    nearest,
    norm_relations,
)
from embedlab.understand.geometry.neighbours import MAX_ROWS
from embedlab.understand.inspection.record import Against, DepthSummary, GroupSummary, Inspection, Profile, TextMark
from embedlab.understand.inspection.space import Space
from embedlab.understand.length_collapse import LayerRates
from embedlab.understand.tte_depth import TextDepth, compare_depths
from embedlab.understand.tte_depth.rows import units

_DIMENSION_K = 20
_SPOTS = 2_000  # texts in the picture of the space
_GROUPS = 12


def inspect_space(
    space: Space,
    *,
    against: Space | None = None,
    other: Space | None = None,
    paired: bool = False,
    profiles: Sequence[Profile] = (),
    layers: LayerRates | None = None,
    k: int = 10,
    show: int = 5,
    max_rows: int = MAX_ROWS,
    confidence: float = 0.95,
    seed: int = 0,
) -> Inspection:
    """Look at a space of embeddings from every side.

    What needs pairs of rows (neighbours, the bootstrap of Q, the comparison of models) looks at a random sample beyond
    ``max_rows``, and says so; everything else looks at all rows in one or a few passes.

    Args:
        space: The vectors, with what is known about them.
        against: Another corpus or modality in the same space, to be compared with it.
        other: The same texts in the same order, by another model.
        paired: Row i of ``against`` corresponds to row i of ``space``, like an image and its caption.
        profiles: Quantities by length, measured by ``embedlab.text.temp_scale``.
        layers: The model's filter rates, layer by layer.
        k: Neighbours of a text, for hubs and for the comparison of models.
        show: Texts to name for each thing that makes texts stand out.
        max_rows: Largest number of rows for what goes over pairs.
        confidence: Level of all intervals, in (0, 1).
        seed: Decides samples and resamples.

    Returns:
        What was found; ``missing`` says what could not be looked at.

    Raises:
        InputError: there are fewer than 2 rows, all rows are parallel, or ``against`` or ``other`` does not fit.
    """
    if show < 0:
        raise InputError(f"show={show} must be at least 0")
    missing: dict[str, str] = {}
    vectors = space.vectors
    if len(vectors) < 2:
        raise InputError(f"{space.name} has {len(vectors)} vector with a direction: at least 2 are needed")
    shape = isotropy(vectors, confidence=confidence)
    depth = TextDepth().fit(vectors)
    depths = depth.depths()
    order = np.argsort(-depths, kind="stable")
    dimension, hubs = _neighbourly(vectors, k, max_rows, confidence, seed, missing)
    if space.texts is None:
        missing["texts"] = "no texts were given, so rows stand for them"
    return Inspection(
        name=space.name,
        model=space.model,
        rows=len(space),
        dim=vectors.shape[1],
        left_out=space.left_out,
        isotropy=shape,
        dimension=dimension,
        hubness=hubs,
        norms=norm_relations(vectors, lengths=space.lengths, confidence=confidence),
        depth=DepthSummary(
            mean=float(depths.mean()),
            spread=float(depths.std()),
            deepest=_marks(space, order[:show], depths),
            outermost=_marks(space, order[::-1][:show], depths),
            depths=depths,
        ),
        hubs=() if hubs is None else _hub_marks(space, hubs, show),
        orphans=() if hubs is None else _marks(space, _outermost_orphans(hubs, depths)[:show], depths),
        profiles=tuple(profiles),
        layers=layers,
        groups=_groups(space, confidence),
        num_groups=0 if space.labels is None else len(set(map(str, space.labels))),
        against=None
        if against is None
        else _compared(space, depth, depths, against, paired, show, max_rows, confidence, seed, missing),
        other_model=None if other is None else other.model or other.name,
        similarity=None if other is None else _similarity(space, other, k, max_rows, seed),
        missing=missing,
        length_unit=space.length_unit,
        **_picture(space, None if against is None else against.vectors, seed),
    )


def _neighbourly(
    vectors: NDArray[Any], k: int, max_rows: int, confidence: float, seed: int, missing: dict[str, str]
) -> tuple[IntrinsicDimension | None, Hubness | None]:
    """Look for neighbours once, for dimension and hubs; few rows allow one, or neither."""
    found = None
    for wanted in (max(k, _DIMENSION_K), k):
        try:
            found = nearest(vectors, wanted, max_rows=max_rows, seed=seed)
            break
        except InputError as error:
            missing["dimension"] = str(error)
    if found is None:
        missing["hubness"] = missing["dimension"]
        return None, None
    hubs = hubness(found, k=k, seed=seed, confidence=confidence)
    if "dimension" in missing or found.k < 2:
        return None, hubs
    return intrinsic_dimension(found, k=min(found.k, _DIMENSION_K), seed=seed, confidence=confidence), hubs


def _outermost_orphans(hubs: Hubness, depths: NDArray[np.float64]) -> NDArray[np.intp]:
    orphans = hubs.orphans(len(hubs.rows))
    return np.asarray(orphans[np.argsort(depths[orphans], kind="stable")])


def _mark(space: Space, place: int, value: float) -> TextMark:
    return TextMark(
        row=int(space.rows[place]),
        value=float(value),
        id=None if space.ids is None else space.ids[place],
        text=None if space.texts is None else space.texts[place],
    )


def _marks(space: Space, places: NDArray[np.intp], values: NDArray[np.float64]) -> tuple[TextMark, ...]:
    return tuple(_mark(space, int(place), values[place]) for place in places)


def _hub_marks(space: Space, hubs: Hubness, show: int) -> tuple[TextMark, ...]:
    times = dict(zip(hubs.rows.tolist(), hubs.occurrences.tolist(), strict=True))
    return tuple(_mark(space, place, times[place]) for place in hubs.hubs(show).tolist())


def _groups(space: Space, confidence: float) -> tuple[GroupSummary, ...]:
    """The labels: how alike the texts of each are, and which stands for it."""
    if space.labels is None:
        return ()
    places: dict[str, list[int]] = {}
    for place, label in enumerate(space.labels):
        places.setdefault(str(label), []).append(place)
    groups = []
    for label, members in sorted(places.items(), key=lambda item: -len(item[1]))[:_GROUPS]:
        rows = space.vectors[np.array(members)]
        alone = len(members) < 2
        centrality = np.ones(1) if alone else TextDepth().fit(rows).depths()
        best = int(centrality.argmax())
        alike = None if alone else mean_cosine(rows, confidence=confidence)
        groups.append(GroupSummary(label, len(members), alike, _mark(space, members[best], centrality[best])))
    return tuple(groups)


def _compared(
    space: Space,
    depth: TextDepth,
    depths: NDArray[np.float64],
    against: Space,
    paired: bool,
    show: int,
    max_rows: int,
    confidence: float,
    seed: int,
    missing: dict[str, str],
) -> Against:
    if against.vectors.shape[1] != space.vectors.shape[1]:
        raise InputError(
            f"{against.name} has {against.vectors.shape[1]} columns and {space.name} {space.vectors.shape[1]}: "
            "two corpora are compared in the space of one model"
        )
    outer = depth.depths(against.vectors)
    few = min(len(outer), len(depths)) < 50
    if few and len(outer) + len(depths) <= max_rows:
        test = depth.test(
            against.vectors, alternative="two-sided", method="permutation", confidence=confidence, seed=seed
        )
    else:
        test = compare_depths(depths, outer, alternative="two-sided", confidence=confidence)
    gap: ModalityGap | None = None
    try:
        gap = modality_gap(space.vectors, against.vectors, paired=paired, seed=seed, confidence=confidence)
    except InputError as error:
        if paired:
            raise
        missing["gap"] = str(error)
    (own, own_documents), (others, other_documents) = (_clustered(part, max_rows, seed) for part in (space, against))
    return Against(
        name=against.name,
        rows=len(against),
        test=test,
        q=bootstrap_q(
            own,
            others,
            reference_groups=own_documents,
            other_groups=other_documents,
            confidence=confidence,
            num_resamples=200,
            seed=seed,
        ),
        strays=_marks(against, np.argsort(outer, kind="stable")[:show], outer),
        gap=gap,
        depths=outer,
    )


def _similarity(space: Space, other: Space, k: int, max_rows: int, seed: int) -> Any:
    from embedlab.understand.relative import compare_spaces

    common, mine, theirs = np.intersect1d(space.rows, other.rows, return_indices=True)
    if len(common) <= k:
        raise InputError(f"{other.name} and {space.name} have {len(common)} rows in common: more than k={k} are needed")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(common))[:max_rows])
    first = np.asarray(space.vectors[mine[chosen]], dtype=np.float64)
    second = np.asarray(other.vectors[theirs[chosen]], dtype=np.float64)
    return compare_spaces(first, second, min(300, max(2, len(chosen) // 4)), k=k, seed=seed)


def _clustered(space: Space, most: int, seed: int) -> tuple[NDArray[Any], list[str] | None]:
    """Rows, at most so many, and the documents they come from if some come from the same."""
    chosen = _sample(np.arange(len(space)), most, seed)
    rows = space.vectors if len(chosen) == len(space) else np.asarray(space.vectors[chosen])
    names = None if space.ids is None else [space.ids[place] for place in chosen]
    return rows, None if names is None or not 2 <= len(set(names)) < len(names) else names


def _sample(rows: NDArray[Any], most: int, seed: int) -> NDArray[Any]:
    if len(rows) <= most:
        return rows
    return np.asarray(rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])])


def _picture(space: Space, others: NDArray[Any] | None, seed: int) -> dict[str, NDArray[np.float64]]:
    """Texts, and another corpus, on the two directions in which all of them vary most."""
    sets = [units("vectors", _sample(part, _SPOTS, seed)) for part in (space.vectors, others) if part is not None]
    # each set counts alike, so that a gap between them shows whatever their sizes
    shares = np.concatenate([np.full(len(rows), 1 / len(rows)) for rows in sets])
    everything = np.concatenate(sets)
    mean = shares @ everything / shares.sum()
    centred = everything - mean
    axes = np.linalg.eigh((centred * shares[:, None]).T @ centred)[1][:, :-3:-1].copy()  # (D, 2)
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # a direction has no sign of its own
    found = {name: (rows - mean) @ axes for name, rows in zip(("plane", "spots"), sets, strict=False)}
    lengths = space.lengths
    shown = np.empty(0) if lengths is None or np.ptp(lengths) == 0 else _sample(lengths, _SPOTS, seed)
    wide = {name: np.pad(spots, ((0, 0), (0, 2 - spots.shape[1]))) for name, spots in found.items()}
    return wide | {"plane_lengths": shown}
