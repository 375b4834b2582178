"""Is a domain different, or only harder: complexity, domain-gap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mteb.abstasks.abstask import AbsTask
    from pandas import DataFrame

    from embedlab.evaluate.domain_gap import SuiteReport
    from embedlab.evaluate.domain_gap.difficulty import Reader

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Llm = Annotated[
    str | None, typer.Option(help="Chat endpoint that answers questions on the data: https://host/v1#MODEL.")
]
StandIn = Annotated[
    bool, typer.Option("--stand-in", help="Measure the error of a small model instead of a language model's.")
]
NumTexts = Annotated[int, typer.Option(min=1, help="Texts of each data set that are measured.")]
Seed = Annotated[int, typer.Option(help="Decides samples and resamples.")]


def complexity(
    data: Annotated[
        list[str],
        typer.Argument(
            help="Data sets: tasks by name, folders, or text files with one text per line.", metavar="DATA..."
        ),
    ],
    llm: Llm = None,
    stand_in: StandIn = False,
    num_texts: NumTexts = 1500,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure how complex data sets are: entropy, readability, dependency distance, and errors of a language model."""
    from embedlab.cli.console import out, print_json
    from embedlab.evaluate.domain_gap import measure
    from embedlab.evaluate.domain_gap.finding import records, shown_number

    sets: dict[str, Any] = {}
    for place in data:
        if Path(place).is_file():
            sets[Path(place).stem] = _lines(Path(place))
        else:
            sets |= {task.metadata.name: task for task in _tasks(place)}
    frame = measure(sets, reader=_reader(llm, stand_in), num_texts=num_texts, seed=seed)
    if as_json:
        print_json({"datasets": records(frame), "measured": frame.attrs})
        return
    out.print(frame.T.to_string(float_format=shown_number), markup=False)
    if "parser" in frame.attrs:
        out.print(f"Dependencies by {frame.attrs['parser']}; compare only what one parser has parsed.", markup=False)


def domain_gap(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models, as for `embedlab evaluate`.", metavar="MODEL...")
    ] = None,
    general: Annotated[str, typer.Option(help="General data sets, parted by commas: tasks by name, or folders.")] = "",
    domain: Annotated[str, typer.Option(help="Data sets of the domain, in the same way.")] = "",
    name: Annotated[str, typer.Option(help="What to call the domain.")] = "domain",
    scores: Annotated[
        Path | None,
        typer.Option(
            help="CSV of scores instead: columns dataset, type, domain ('general' or another name), model and score;"
            " any further column is a complexity measure of the data set."
        ),
    ] = None,
    llm: Llm = None,
    stand_in: StandIn = False,
    num_texts: NumTexts = 500,
    confidence: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    out: Annotated[Path | None, typer.Option(help="Folder for domain_gap.md, domain_gap.json and plots.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for vectors and results instead of this user's.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Ask whether models score lower on a domain because it is different, or because its data sets are harder.

    Gaps per model, a test with the data set as unit, terciles of complexity, regressions that hold it fixed, whether
    ranks carry over, and the paper's analysis of variance.
    """
    from embedlab._core.errors import InputError
    from embedlab.cli.console import err, print_json
    from embedlab.cli.console import out as console

    if scores is not None:
        if models or general or domain:
            raise InputError("--scores holds all scores already: give either it, or models with --general and --domain")
        report = _from_scores(scores, confidence=confidence, seed=seed)
    else:
        if not (models and general and domain):
            raise InputError("give models with --general and --domain, or --scores FILE.csv")
        from embedlab.cli.evaluate import _progress
        from embedlab.evaluate.domain_gap import compare_suites

        generals = _all_tasks(general)
        domains = _all_tasks(domain, taken=[task.metadata.name for task in generals])
        with _progress(hidden=as_json) as show:
            report = compare_suites(
                generals,
                domains,
                models,
                domain=name,
                reader=_reader(llm, stand_in),
                num_texts=num_texts,
                cache=cache,
                confidence=confidence,
                seed=seed,
                on_progress=show,
            )
    if as_json:
        print_json(report.to_dict())
    else:
        console.print(str(report.gap), markup=False)
        console.print(f"\n{report.gap.verdict}", markup=False)
    if out is not None:
        err.print(f"written: {', '.join(map(str, report.write(out)))}", markup=False)


def _from_scores(path: Path, *, confidence: float, seed: int) -> SuiteReport:
    from embedlab._core.errors import InputError
    from embedlab.evaluate.domain_gap import SuiteReport, domain_gap

    frame = _read_csv(path)
    needed = ["dataset", "type", "domain", "model", "score"]
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        raise InputError(f"--scores {path} lacks the columns {', '.join(missing)}: it needs {', '.join(needed)}")
    twice = frame[frame.duplicated(["dataset", "model"])]
    if len(twice):
        raise InputError(f"--scores {path}: {twice['model'].iloc[0]} has two scores on {twice['dataset'].iloc[0]}")
    further = [column for column in frame.columns if column not in needed]
    about = frame.groupby("dataset", sort=False)[["type", "domain", *further]]
    if (about.nunique(dropna=False) > 1).to_numpy().any():
        raise InputError(f"--scores {path}: a data set has one type, one domain and one value of each measure")
    sets = about.first()
    complexity = sets[further].astype(float)
    complexity.index.name = "dataset"
    report = domain_gap(
        frame.pivot(index="dataset", columns="model", values="score").reindex(index=sets.index),
        domain=[str(side) for side in sets["domain"]],
        types=[str(kind) for kind in sets["type"]],
        complexity=complexity if further else None,
        confidence=confidence,
        seed=seed,
    )
    return SuiteReport(report, complexity)


def _read_csv(path: Path) -> DataFrame:
    from embedlab._core.errors import InputError
    from embedlab._core.extras import require

    pandas = require("pandas", extra="evaluate")
    try:
        frame: DataFrame = pandas.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--scores {path} cannot be read as CSV: {error}") from error
    return frame


def _all_tasks(places: str, *, taken: Iterable[str] = ()) -> list[AbsTask]:
    """The tasks of all places; those of folders get other names than the ones that are taken."""
    found: list[AbsTask] = []
    for place in filter(None, map(str.strip, places.split(","))):
        found += _tasks(place, taken=[*taken, *(task.metadata.name for task in found)])
    return found


def _tasks(place: str, *, taken: Iterable[str] = ()) -> list[AbsTask]:
    """A folder with data, or a task by name."""
    if Path(place).is_dir():
        from embedlab.evaluate.folders import tasks_from_folder

        found: list[AbsTask] = tasks_from_folder(Path(place), taken=taken)
        return found
    from embedlab.evaluate.naming import find_tasks

    return find_tasks([place])


def _lines(path: Path) -> list[str]:
    from embedlab.cli.text_files import read_utf8

    return [line.strip() for line in read_utf8(path).splitlines() if line.strip()]


def _reader(llm: str | None, stand_in: bool) -> Reader | None:
    from embedlab._core.errors import InputError

    if llm and stand_in:
        raise InputError("--llm and --stand-in measure the same thing: give one of them")
    if llm:
        from embedlab.evaluate.domain_gap import LLMErrorRate
        from embedlab.models.chat import ChatEndpoint

        return LLMErrorRate(ChatEndpoint(llm, temperature=0.0, max_tokens=64), num_threads=4)
    if stand_in:
        from embedlab.evaluate.domain_gap import ModelErrorRate

        return ModelErrorRate()
    return None
