"""All properties of one encoder over some tables, as one report: for a terminal, for machines, as a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError, MissingExtraError, unknown_name
from embedlab._core.files import atomic_write
from embedlab.data.tables import Frame, Table, read_tables
from embedlab.understand.observatory.encoders import TableEmbedder
from embedlab.understand.observatory.invariance import noise_floor
from embedlab.understand.observatory.levels import LEVELS
from embedlab.understand.observatory.measures import units
from embedlab.understand.observatory.plots import svg
from embedlab.understand.observatory.results import PROPERTIES, PropertyResult

Floats = NDArray[np.float64]

_LEVELLED = ("row_order", "column_order")
_SAME = 0.995  # cosine between different columns beyond which they cannot be told apart

_QUESTIONS = {
    "row_order": "Does an embedding stay when rows are reordered?",
    "column_order": "Does it stay when columns are reordered?",
    "join_relationship": "Are columns nearer the more values they share?",
    "functional_dependencies": "Is a functional dependency a constant step between cells?",
    "sample_fidelity": "Does a sample of rows stand for the whole column?",
    "entity_stability": "Do encoders agree on an entity's neighbours?",
    "perturbation_robustness": "Does it stay when headers are reworded?",
    "heterogeneous_context": "Does it tell the column's type, alone and in context?",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What one encoder shows over some tables.

    Attributes:
        encoder: Name of the encoder.
        tables: For each table its name, rows and columns.
        results: Property -> result.
        failed: Property -> why it could not be measured.
        floor: What batching and precision alone do: the noise floor.
        reference: Cosines between different columns of one table: what "near" means for this encoder.
        seed: Decides all draws.
    """

    encoder: str
    tables: tuple[tuple[str, int, int], ...]
    results: dict[str, PropertyResult]
    failed: dict[str, str]
    floor: PropertyResult | None
    reference: Floats
    seed: int

    def lines(self) -> list[tuple[str, str, float, float, float, int]]:
        """Return (property, measure, estimate, low, high, objects) for every measure."""
        return [
            (name, measure, each.interval.estimate, each.interval.low, each.interval.high, len(each.values))
            for name, result in self.results.items()
            for measure, each in result.measures.items()
        ]

    def reference_quantiles(self) -> dict[str, float]:
        """Return the mean and the 5, 50 and 95 % points of the cosines between different columns."""
        if not self.reference.size:
            return {}
        points = np.quantile(self.reference, [0.05, 0.5, 0.95])
        named = zip(("q05", "median", "q95"), points.tolist(), strict=True)
        return {"mean": float(self.reference.mean()), **dict(named)}

    def remarks(self) -> list[str]:
        """Return in words what the numbers have to be read against."""
        said = []
        if quantiles := self.reference_quantiles():
            said.append(
                f"Different columns of one table have cosine {quantiles['mean']:.3f} on average (90 % between "
                f"{quantiles['q05']:.3f} and {quantiles['q95']:.3f}): read every cosine against this."
            )
            if quantiles["median"] > _SAME:
                said.append(
                    "The columns of a table have almost the same embedding, so these are embeddings of the table: "
                    "read columns as the mean of their tokens instead of at their marks."
                )
        if self.floor is not None:
            gap, spread = 1 - self.floor["cosine"], self.floor["mcv"]
            said.append(
                f"The same table embedded again, in other batches, differs by 1 - cosine {gap:.1g} and by "
                f"MCV {spread:.1g}: smaller differences mean nothing."
            )
        return said + [f"{name.replace('_', ' ')}: {note}" for name, r in self.results.items() for note in r.notes]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "encoder": self.encoder,
            "seed": self.seed,
            "tables": [{"name": name, "rows": rows, "columns": columns} for name, rows, columns in self.tables],
            "reference": self.reference_quantiles(),
            "noise_floor": None if self.floor is None else self.floor.to_dict(),
            "properties": {name: result.to_dict() for name, result in self.results.items()},
            "failed": dict(self.failed),
            "remarks": self.remarks(),
        }

    def to_html(self) -> str:
        """Return one self-contained page with the numbers and a picture of each property.

        Returns:
            HTML without any outside reference.

        Raises:
            MissingExtraError: the extra ``evaluate`` (matplotlib) is not installed.
        """
        page = Template(files(__package__).joinpath("report.html").read_text(encoding="utf-8"))
        return page.substitute(
            encoder=escape(self.encoder),
            tables=f"{len(self.tables)} tables, {sum(rows for _, rows, _ in self.tables):,} rows",
            remarks="".join(f"<li>{escape(remark)}</li>" for remark in self.remarks()),
            sections="\n".join(map(self._section, self.results.values())),
            failed="".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in self.failed.items())
            or "<li>nothing</li>",
        )

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``report.json`` and, where matplotlib is installed, ``report.html``.

        Args:
            folder: Where to; it is made if need be.

        Returns:
            The files.
        """
        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        written = [where / "report.json"]
        atomic_write(written[0], json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n")
        try:
            page = self.to_html()
        except MissingExtraError:
            return written
        atomic_write(where / "report.html", page)
        return [*written, where / "report.html"]

    def _section(self, result: PropertyResult) -> str:
        rows = "".join(
            f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{each.interval.estimate:.4f}</td>"
            f"<td>{_between(each.interval.low, each.interval.high)}</td><td>{len(each.values):,}</td></tr>"
            for name, each in result.measures.items()
        )
        remarks = list(result.notes)
        remarks += [", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in result.details.items())]
        remarks += [f"left out: {', '.join(result.skipped)}"] if result.skipped else []
        notes = "".join(f"<li>{escape(remark)}</li>" for remark in remarks if remark)
        question = escape(_QUESTIONS.get(result.name, ""))
        return (
            f"<section><h2>{escape(result.name.replace('_', ' '))}</h2><p>{question} <small>level: "
            f"{escape(result.level)}</small></p><div class=pair><table><tr><th>measure</th><th>mean</th>"
            f"<th>95 %</th><th>objects</th></tr>{rows}</table>{svg(result, reference=self.reference)}</div>"
            f"<ul>{notes}</ul></section>"
        )


def characterize(
    encoder: TableEmbedder,
    tables: Frame,
    *,
    properties: Sequence[str] | None = None,
    levels: Sequence[str] = ("column",),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    num_variants: int = 20,
    max_tables: int = 50,
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
) -> Report:
    """Measure all properties of an encoder over some tables, beside a noise floor and a reference.

    Args:
        encoder: The encoder under test.
        tables: A folder, a file, frames or tables: whatever ``read_tables`` takes.
        properties: Names of the properties to measure; all that are registered by default.
        levels: What to reorder and compare in ``row_order`` and ``column_order``; the paper takes ``"column"``,
            ``"row"`` and ``"table"``. Results of further levels are called ``row_order_<level>``.
        options: Property -> keyword arguments for it.
        num_variants: Permutations and samples per table, where ``options`` do not say; the paper takes up to 1000.
        max_tables: Tables to use, drawn at random from more.
        seed: Decides all draws.
        on_progress: Told the name of each property before it is measured.

    Returns:
        The report. A property that these tables do not allow to measure is in ``failed``, with the reason.

    Raises:
        InputError: there is no table or no such property, or an option has a value that is not allowed.

    Example:
        >>> from embedlab.models import load_model
        >>> from embedlab.understand.observatory import SentenceColumnEncoder, characterize
        >>> cities = {"city": ["Oslo", "Rome", "Lima", "Bern"], "people": [7, 28, 100, 1]}
        >>> report = characterize(SentenceColumnEncoder(load_model()), cities, properties=["column_order"])
        >>> report.results["column_order"]["cosine"]  # each column is a text of its own, wherever it stands
        1.0
    """
    everything = [*_QUESTIONS, *(name for name in PROPERTIES if name not in _QUESTIONS)]  # the paper's order first
    wanted = everything if properties is None else list(dict.fromkeys(properties))
    for name in (*wanted, *(options or ())):
        if name not in PROPERTIES:
            raise unknown_name("property", name, PROPERTIES)
    for level in levels:
        if level not in LEVELS:
            raise unknown_name("level", level, LEVELS)
    if not levels or num_variants < 1 or max_tables < 1:
        raise InputError(
            f"levels={tuple(levels)!r}, num_variants={num_variants}, max_tables={max_tables}: at least one of each"
        )
    used = read_tables(tables)
    if len(used) > max_tables:
        drawn = np.sort(np.random.default_rng(seed).choice(len(used), size=max_tables, replace=False))
        used = [used[place] for place in drawn]
    chosen: dict[str, dict[str, Any]] = {
        "row_order": {"num_permutations": num_variants},
        "column_order": {"num_permutations": num_variants},
        "sample_fidelity": {"num_samples": num_variants},
    }
    for name, given in (options or {}).items():
        chosen[name] = {**chosen.get(name, {}), **given}
    results: dict[str, PropertyResult] = {}
    failed: dict[str, str] = {}
    for name in wanted:
        for level in levels if name in _LEVELLED else levels[:1]:
            key = name if level == levels[0] else f"{name}_{level}"
            given = {"level": level} if name in _LEVELLED else {}
            if on_progress is not None:
                on_progress(key)
            try:
                results[key] = PROPERTIES[name](encoder, used, seed=seed, **{**given, **chosen.get(name, {})})
            except (InputError, MissingExtraError) as error:
                failed[key] = str(error)
    try:
        floor = noise_floor(encoder, used, seed=seed)
    except InputError:
        floor = None
    shapes = tuple((table.name, table.num_rows, table.num_columns) for table in used)
    return Report(encoder.name, shapes, results, failed, floor, reference_cosines(encoder, used), seed)


def reference_cosines(encoder: TableEmbedder, tables: Sequence[Table]) -> Floats:
    """Return the cosines between different columns of each table; in a narrow cone all of them are near 1.

    Args:
        encoder: The encoder.
        tables: Tables; those that do not fit are left out.

    Returns:
        One cosine per pair of columns of a table.
    """
    found: list[Floats] = [np.zeros(0)]
    for table in tables:
        try:
            short = table.head(encoder.num_rows_that_fit([table], level="column"))
        except InputError:
            continue
        if short.num_columns:
            columns = encoder.embed([short], level="column")[0]
            columns = units(columns[np.isfinite(columns).all(axis=1)])
            found.append((columns @ columns.T)[np.triu_indices(len(columns), k=1)])
    return np.clip(np.concatenate(found), -1, 1)


def _between(low: float, high: float) -> str:
    return f"{low:.4f} to {high:.4f}" if np.isfinite([low, high]).all() else "unknown"
