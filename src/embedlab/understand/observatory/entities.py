"""Do two encoders agree on the neighbours of an entity? (property 6)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.data.tables import Frame, Table, read_tables
from embedlab.models import load_model
from embedlab.ops.significance import bootstrap_interval
from embedlab.understand.observatory.encoders import SentenceColumnEncoder, TableEmbedder
from embedlab.understand.observatory.measures import nearest
from embedlab.understand.observatory.results import Measure, PropertyResult, register_property

Floats = NDArray[np.float64]


@register_property("entity_stability")
def entity_stability(
    encoder: TableEmbedder,
    tables: Frame,
    *,
    others: Sequence[TableEmbedder] | None = None,
    top_k: Sequence[int] = (5, 10, 20),
    num_queries: int = 1000,
    max_cells: int = 5000,
    seed: int = 0,
) -> PropertyResult:
    """Measure how far encoders agree on which cells are the nearest to an entity (property 6).

    Entities are the cells of text columns, and cells with the same text are one entity. Of the cells that both encoders
    embed, some are drawn as queries; with the K nearest cells N_a and N_b by cosine, the overlap is |N_a & N_b| / K.

    Args:
        encoder: The encoder under test.
        tables: Tables; of each, as many rows are used as fit all encoders.
        others: Encoders to compare with; by default the embedded default model, cell by cell.
        top_k: Numbers of neighbours. (paper: K)
        num_queries: Query cells, drawn at random. Published 1000.
        max_cells: Cells that are embedded and searched, shared out among the tables; from each, consecutive rows that
            begin at a random one.
        seed: Decides both draws.

    Returns:
        For each K and each pair of encoders a measure ``overlap_<K>`` of cells and ``entity_overlap_<K>`` of the
        multisets of entities (2 sum min / sum of sizes), with the pair in brackets unless it is the only one; the level
        of chance is in ``details``.

    Raises:
        InputError: there are not more cells than K, or an option has a value that is not allowed.
    """
    tables = read_tables(tables)
    if not top_k or min(top_k) < 1 or num_queries < 1:
        raise InputError(f"top_k={tuple(top_k)!r} and num_queries={num_queries} must be at least 1")
    models = [encoder, *(others if others is not None else [SentenceColumnEncoder(load_model())])]
    if len({model.name for model in models}) < max(2, len(models)):
        raise InputError(
            f"others must hold at least one encoder to compare with, each under its own name, and not {encoder.name!r} "
            "itself; by default it is the embedded model"
        )
    names, spaces, skipped = _entities(models, tables, max_cells, seed)
    if len(names) <= max(top_k):
        raise InputError(
            f"top_k={max(top_k)}: only {len(names)} cells of text columns are embedded by every encoder; "
            "give more tables or a smaller top_k"
        )
    rng = np.random.default_rng([seed, 1])
    queries = np.sort(rng.choice(len(names), size=min(num_queries, len(names)), replace=False)).tolist()
    labels = tuple(f"{names[place]}#{place}" for place in queries)
    measures, details = {}, {}
    found = [nearest(space, queries, max(top_k)) for space in spaces]
    for k in top_k:
        details[f"chance_{k}"] = k / (len(names) - 1)
        for a in range(len(models)):
            for b in range(a + 1, len(models)):
                pair = "" if len(models) == 2 else f" [{models[a].name} | {models[b].name}]"
                cells, entities = _overlaps(found[a][:, :k], found[b][:, :k], names)
                for name, values in ((f"overlap_{k}{pair}", cells), (f"entity_overlap_{k}{pair}", entities)):
                    interval = bootstrap_interval(values, groups=[names[q] for q in queries], seed=seed)
                    measures[name] = Measure(interval, values, labels)
    details["cells"] = float(len(names))
    note = f"compared with {', '.join(model.name for model in models[1:])}"
    return PropertyResult("entity_stability", encoder.name, "cell", measures, details, skipped, (note,))


def _entities(
    models: Sequence[TableEmbedder], tables: Sequence[Table], max_cells: int, seed: int
) -> tuple[list[str], list[Floats], dict[str, str]]:
    """Texts of the cells that all encoders embed, and their embeddings in each space (cells, D)."""
    short: list[Table] = []
    skipped: dict[str, str] = {}
    budget = max(1, max_cells // max(1, len(tables)))  # cells of each table
    for place, table in enumerate(tables):
        texts = [j for j in range(table.num_columns) if table.is_text(j)]
        if not texts:
            skipped[table.name] = "it has no text column"
            continue
        size = min(table.num_rows, max(1, budget // len(texts)))
        start = int(np.random.default_rng([seed, place]).integers(0, table.num_rows - size + 1))
        window = table.take_rows(range(start, start + size))
        try:
            fitting = min(model.num_rows_that_fit([window], level="cell") for model in models)
        except InputError as error:
            skipped[table.name] = str(error)
            continue
        short.append(window.head(fitting))
    names: list[str] = []
    parts: list[list[Floats]] = [[] for _ in models]
    embedded = [model.embed(short, level="cell") for model in models]
    for place, table in enumerate(short):
        wanted = np.array([table.is_text(j) for j in range(table.num_columns)])
        flat = np.array([cell for row in zip(*table.columns, strict=True) for cell in row], dtype=object)
        spaces = [own[place][table.num_columns :] for own in embedded]  # headers are no entities
        kept = np.tile(wanted, table.num_rows) & np.array([bool(cell) for cell in flat], dtype=bool)
        for space in spaces:
            kept &= np.isfinite(space).all(axis=1)
        names += flat[kept].tolist()
        for part, space in zip(parts, spaces, strict=True):
            part.append(space[kept])
    return names, [np.concatenate(part) if part else np.zeros((0, 1)) for part in parts], skipped


def _overlaps(first: NDArray[np.intp], second: NDArray[np.intp], names: list[str]) -> tuple[Floats, Floats]:
    """Shares of common cells and of common entities among the neighbours of each query."""
    cells, entities = [], []
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        cells.append(len(set(a) & set(b)) / len(a))
        ours, theirs = Counter(names[i] for i in a), Counter(names[i] for i in b)
        entities.append(2 * (ours & theirs).total() / (len(a) + len(b)))
    return np.array(cells), np.array(entities)
