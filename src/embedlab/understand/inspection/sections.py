"""What was found, in words and tables: the one order of things that terminal and page share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedlab.ops.significance import Interval
from embedlab.understand.geometry.intervals import text_of
from embedlab.understand.inspection.record import Against, Bucket, Inspection, TextMark

_ENOUGH = 10  # texts of a length, to say something about it


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a heading; the last column holds texts if ``texts``."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One side of the space.

    Attributes:
        key: Short name, by which plots find their place.
        title: Heading, as a question.
        reading: What the numbers say.
        numbers: Name, value with interval, meaning.
        tables: Tables below.
        note: What to keep in mind.
    """

    key: str
    title: str
    reading: str
    numbers: tuple[tuple[str, str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    note: str = ""


def sections_of(found: Inspection) -> tuple[Section, ...]:
    """Put what was found into sections.

    Args:
        found: The inspection.

    Returns:
        The sections there is something to say in, always in the same order.
    """
    parts: tuple[Callable[[Inspection], Section | None], ...] = (
        _directions,
        _dimension,
        _hubs,
        _norms,
        _lengths,
        _layers,
        _depth,
        _groups,
        _against,
        _gap,
        _models,
    )
    return tuple(section for section in (part(found) for part in parts) if section is not None)


def headline(found: Inspection) -> str:
    """Say in one line what was inspected."""
    by = f" by {_model_name(found.model)}" if found.model else ""
    without = f", {found.left_out:,} zero rows left out" if found.left_out else ""
    return f"{found.name}: {found.rows:,} vectors of {found.dim} numbers{by}{without}"


def _model_name(model: str) -> str:
    """Name a model for people: of a folder the two last parts, which say more than where this machine keeps it."""
    if model == "default":
        return "the default model"
    parts = model.replace("\\", "/").strip("/").split("/")
    return model if len(parts) < 3 or "://" in model else "/".join(parts[-2:])


def _directions(found: Inspection) -> Section:
    shape = found.isotropy
    return Section(
        "directions",
        "How evenly do the vectors point?",
        shape.reading,
        (
            ("mean cosine", text_of(shape.mean_cosine), "of two different texts; 0 when they point every way"),
            ("IsoScore", text_of(shape.isoscore), "1: all directions vary alike, 0: only one does"),
            ("first component", _percent(shape.top_share), "of the variance"),
            ("effective rank", text_of(shape.effective_rank, digits=1), f"directions in use, of {shape.dim}"),
            ("participation", text_of(shape.participation_ratio, digits=1), "strong directions"),
            ("90 % of variance", str(shape.components_90), "principal components"),
        ),
        note=f"{shape.rows:,} rows are few for {shape.dim} dimensions: IsoScore and ranks come out too small."
        if shape.rows < 10 * shape.dim
        else "",
    )


def _dimension(found: Inspection) -> Section | None:
    size = found.dimension
    if size is None:
        return None
    return Section(
        "dimension",
        "How many dimensions do they fill?",
        size.reading,
        (
            ("TwoNN", text_of(size.two_nn, digits=1), "from the two nearest neighbours of each text"),
            ("likelihood", text_of(size.likelihood, digits=1), f"from the {size.k} nearest, a coarser scale"),
        ),
        note=f"From {size.basis}.",
    )


def _hubs(found: Inspection) -> Section | None:
    hubs = found.hubness
    if hubs is None:
        return None
    often = _texts("Hubs: in the lists of most other texts", "times", found.hubs, lambda value: f"{value:.0f}")
    lonely = _texts("Orphans: in nobody's list, the outermost first", "depth", found.orphans)
    return Section(
        "hubs",
        "Who is everybody's neighbour, who is nobody's?",
        hubs.reading,
        (
            ("skewness", text_of(hubs.skewness, digits=2), f"of how often a text occurs; {hubs.chance:.2f} by chance"),
            ("orphans", _percent(hubs.orphan_share), f"in no other text's {hubs.k} nearest"),
            (
                "hubs",
                f"{hubs.hub_share:.1%}",
                f"more than 2 deviations above {hubs.k}; {hubs.hub_places:.0%} of places",
            ),
            ("Robin Hood", f"{hubs.robin_hood:.2f}", "share of places to move until all texts occur alike"),
        ),
        tuple(table for table in (often, lonely) if table.rows),
        f"From {hubs.basis}.",
    )


def _norms(found: Inspection) -> Section:
    norms = found.norms
    numbers = [("norms", " · ".join(f"{value:.3g}" for value in norms.quantiles), "smallest, quartiles, largest")]
    if norms.norm_with_length is not None:
        numbers.append(("norm and length", text_of(norms.norm_with_length, digits=2), "Spearman correlation"))
    if norms.centrality_with_length is not None:
        meaning = f"Spearman correlation of centrality with {found.length_unit}"
        numbers.append(("place and length", text_of(norms.centrality_with_length, digits=2), meaning))
    return Section("norms", "What goes with the length of a text?", norms.reading, tuple(numbers))


def _lengths(found: Inspection) -> Section | None:
    if not found.profiles:
        return None
    tables = []
    for profile in found.profiles:
        rows = tuple(
            (_span(bucket), f"{bucket.num_texts:,}", _bucket_mean(bucket))
            for bucket in profile.buckets
            if bucket.num_texts
        )
        tables.append(Table(profile.quantity, (found.length_unit, "texts", "mean"), rows))
    enough = [b for b in found.profiles[0].buckets if b.num_texts >= _ENOUGH and math.isfinite(b.mean_low)]
    reading = f"There are no two ranges of length with {_ENOUGH} texts each to compare."
    if len(enough) > 1:
        low, high = enough[0], enough[-1]
        sure = high.mean_low > low.mean_high or high.mean_high < low.mean_low
        what = "as alike as" if not sure else "more alike than" if high.mean > low.mean else "less alike than"
        reading = (
            f"Long texts are {'' if sure else 'within error '}{what} short ones: mean cosine {low.mean:.3f} at "
            f"{_span(low)} {found.length_unit}, {high.mean:.3f} at {_span(high)}."
        )
    note = (
        "Long texts may also be about other things than short ones; embedlab.understand.length_collapse."
        "truncation_curve cuts the same texts to several lengths."
    )
    return Section("lengths", "Do long texts crowd together?", reading, (), tuple(tables), note)


def _layers(found: Inspection) -> Section | None:
    if found.layers is None:
        return None
    rows = tuple(
        (str(row.layer), _range(row.low, row.high), str(row.num_texts), text_of(row.sigma), text_of(row.high_share))
        for row in found.layers.table
    )
    sigmas = [row.sigma.estimate for row in found.layers.table]
    above = sum(value >= 1 for value in sigmas) / len(sigmas)
    reading = (
        "Attention wears off what tells tokens apart in every layer."
        if above == 0
        else f"In {above:.0%} of the layers and lengths attention can raise what tells tokens apart (rate 1 or more)."
    )
    table = Table("Layer by layer", ("layer", "tokens", "texts", "filter rate", "tells tokens apart"), rows)
    return Section("layers", "How hard does each layer filter?", reading, (), (table,))


def _depth(found: Inspection) -> Section:
    depth = found.depth
    tables = (
        _texts("Most central", "depth", depth.deepest),
        _texts("Most outlying", "depth", depth.outermost),
    )
    return Section(
        "depth",
        "Which texts are central, which stand apart?",
        f"Depth is {depth.mean:.3f} on average (at most 2) and differs by {depth.spread:.3f} from text to text.",
        (),
        tuple(table for table in tables if table.rows),
        "In a corpus of several topics the centre lies in the largest of them.",
    )


def _groups(found: Inspection) -> Section | None:
    if not found.groups:
        return None
    rows = tuple(
        (
            group.label,
            f"{group.num_texts:,}",
            "" if group.mean_cosine is None else text_of(group.mean_cosine),
            _told(group.median),
        )
        for group in found.groups
    )
    title = f"The {len(rows)} largest of {found.num_groups} labels" if found.num_groups > len(rows) else "The labels"
    table = Table(title, ("label", "texts", "mean cosine", "most central text"), rows, texts=True)
    between = found.isotropy.mean_cosine.estimate
    inside = [group.mean_cosine.estimate for group in found.groups if group.mean_cosine is not None]
    closer = sum(value > between for value in inside)
    reading = f"In {closer} of these {len(inside)} labels two texts are more alike than two texts of the whole."
    return Section("groups", "What are the labels like?", reading, (), (table,))


def _against(found: Inspection) -> Section | None:
    other = found.against
    if other is None:
        return None
    test = other.test
    return Section(
        "against",
        f"Does {other.name} come from the same distribution?",
        _told_apart(other),
        (
            (
                "Q",
                text_of(other.q),
                "chance that one of its texts is at least as central as one of these; 0.5: no shift",
            ),
            ("rank sum", f"{test.statistic:+.2f}", f"p {test.pvalue:.2g}, two-sided, {test.method}"),
            ("texts", f"{found.rows:,} and {other.rows:,}", ""),
        ),
        tuple(t for t in (_texts("Its texts that stray most", "depth", other.strays),) if t.rows),
        "A test without a finding proves nothing equal: read the interval of Q.",
    )


def _told_apart(other: Against) -> str:
    if other.test.pvalue >= 0.05:
        return f"Not distinguishable by depth: Q is {other.q.estimate:.3f} (p {other.test.pvalue:.2g})."
    way = "further out" if other.test.q < 0.5 else "nearer to the centre"
    degree = "much" if abs(other.test.q - 0.5) > 0.3 else "clearly" if abs(other.test.q - 0.5) > 0.1 else "slightly"
    return f"Its texts lie {degree} {way}: Q is {other.q.estimate:.3f} (p {other.test.pvalue:.2g})."


def _gap(found: Inspection) -> Section | None:
    gap = None if found.against is None else found.against.gap
    if gap is None:
        return None
    return Section(
        "gap",
        "Is there a gap between the two sets?",
        gap.reading,
        (
            ("centroids apart", text_of(gap.distance), f"at most 2; {gap.chance:.3f} by chance"),
            ("relative gap", text_of(gap.relative), "distance across, of across and within; 0.5: no gap"),
            ("separability", _percent(gap.separability), "of held-out texts, by a plane; 50 %: no gap"),
        ),
    )


def _models(found: Inspection) -> Section | None:
    alike = found.similarity
    if alike is None:
        return None
    return Section(
        "models",
        f"How alike is the space of {_model_name(found.other_model or '')}?",
        f"Of the {alike.k} nearest texts in one space, {alike.overlap:.0%} (intersection over union) are nearest in "
        f"the other. Through {alike.num_anchors} common anchors, a text finds itself with reciprocal rank "
        f"{alike.mrr:.2f}: "
        + ("the spaces can be stitched." if alike.mrr > 0.8 else "stitching them without training would lose much."),
        (
            ("neighbours", f"{alike.overlap:.3f}", "overlap of the nearest within either space; 1: the same"),
            ("CKA", f"{alike.cka:.3f}", "linear centred kernel alignment; 1: equal up to rotation and scale"),
            ("SVCCA", f"{alike.svcca:.3f}", "canonical correlation of the directions that hold 99 % of the variance"),
            ("relative cosine", f"{alike.cosine:.3f}", "of a text's two relative vectors; flatters narrow cones"),
            ("relative overlap", f"{alike.jaccard:.3f}", "of neighbours across, by relative vectors"),
            ("relative MRR", f"{alike.mrr:.3f}", "of a text itself across, by relative vectors"),
        ),
        note=f"From {alike.num_items:,} texts.",
    )


def _texts(title: str, what: str, marks: Sequence[TextMark], form: Callable[[float], str] = "{:.3f}".format) -> Table:
    named = any(mark.id is not None and mark.text is not None for mark in marks)
    rows = tuple((form(mark.value), *((_source(mark.id),) if named else ()), _told(mark)) for mark in marks)
    return Table(title, (what, "source", "text") if named else (what, "text"), rows, texts=True)


def _source(name: str | None) -> str:
    """The end of a long name, which tells more than its beginning."""
    return "" if name is None else name if len(name) <= 32 else f"…{name[-31:]}"


def _told(mark: TextMark) -> str:
    if mark.text is None:
        return f"row {mark.row}" if mark.id is None else mark.id
    line = " ".join(mark.text.split())
    return line if len(line) <= 240 else f"{line[:239]}…"


def _percent(share: Interval) -> str:
    if not (math.isfinite(share.low) and math.isfinite(share.high)):
        return f"{share.estimate:.1%}"
    return f"{share.estimate:.1%} [{share.low:.1%}, {share.high:.1%}]"


def _range(low: float, high: float) -> str:
    return f"{low:g}-{high:g}" if math.isfinite(high) else f"{low:g}+"


def _span(bucket: Bucket) -> str:
    return _range(bucket.low, bucket.high)


def _bucket_mean(bucket: Bucket) -> str:
    return "" if math.isnan(bucket.mean) else text_of(Interval(bucket.mean, bucket.mean_low, bucket.mean_high, 0.95))
