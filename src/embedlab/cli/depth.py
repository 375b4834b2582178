"""How central texts are in a corpus: depth rank, compare, exemplars, remember, drift."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embedlab.models import Encoder

app = typer.Typer(help="Rank texts by how central they are, and compare two corpora.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Model = Annotated[str, typer.Option(help="Embedding model: 'default', a path or hub name, or URL#MODEL.")]


class Alternative(StrEnum):
    """What is suspected of the other corpus."""

    further_out = "further-out"
    further_in = "further-in"
    either = "either"


class PValue(StrEnum):
    """How the p-value is found."""

    asymptotic = "asymptotic"
    permutation = "permutation"


class Choice(StrEnum):
    """How examples are chosen."""

    deep = "deep"
    deep_diverse = "deep_diverse"
    shallow = "shallow"
    random = "random"


class IntervalOf(StrEnum):
    """How the interval of Q is found."""

    delong = "delong"
    bootstrap = "bootstrap"


@app.command()
def rank(
    corpus: Annotated[Path, typer.Argument(help="Text file, one text per line.")],
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", min=1, help="Only the first texts.")] = None,
    outliers: Annotated[bool, typer.Option(help="Begin with the least central text.")] = False,
    model: Model = "default",
    as_json: AsJson = False,
) -> None:
    """Print the texts of CORPUS from the most central outward, each with its depth (at most 2)."""
    from rich.table import Table
    from rich.text import Text

    from embedlab.cli.console import out, print_json
    from embedlab.models import load_model
    from embedlab.understand.tte_depth import TextDepth

    lines = _read_corpus(corpus, load_model(model))
    depth = TextDepth().fit(lines.vectors)
    depths, order = depth.depths(), depth.order()
    rows = [(depths[i], lines.numbers[i], lines.texts[i]) for i in (order[::-1] if outliers else order)[:top_k]]
    if as_json:
        texts = [{"depth": float(deep), "line": line, "text": text} for deep, line, text in rows]
        print_json({"model": model, "count": len(order), "texts": texts, "without_depth": lines.unknown})
        return
    table = Table("depth", "line", "text", box=None, pad_edge=False)
    for deep, line, text in rows:
        table.add_row(f"{deep:.4f}", str(line), Text(text))
    out.print(table)
    lines.tell_unknown()


@app.command()
def compare(
    reference: Annotated[Path, typer.Argument(help="Text file of the reference corpus, one text per line.")],
    other: Annotated[Path, typer.Argument(help="Text file of the corpus to compare with it.")],
    alternative: Annotated[
        Alternative, typer.Option(help="Whether OTHER is suspected to lie further out, further in, or either.")
    ] = Alternative.further_out,
    p_value: Annotated[
        PValue, typer.Option(help="Rank-sum test, or a permutation test (the choice below 50 texts).")
    ] = PValue.asymptotic,
    interval: Annotated[
        IntervalOf, typer.Option(help="Interval of Q: DeLong's, or from drawing both corpora anew.")
    ] = IntervalOf.delong,
    show: Annotated[int, typer.Option(min=0, help="Number of texts of OTHER to show, the least central first.")] = 3,
    model: Model = "default",
    as_json: AsJson = False,
) -> None:
    """Test whether OTHER comes from the same distribution as REFERENCE.

    Q is the chance that a text of OTHER lies at least as deep in REFERENCE as a text of REFERENCE does: 0.5 for equal
    corpora, less when OTHER strays.
    """
    import numpy as np

    from embedlab.cli.console import out, print_json
    from embedlab.models import load_model
    from embedlab.understand.depth_shift import bootstrap_q
    from embedlab.understand.tte_depth import TextDepth

    encoder = load_model(model)
    own, others = _read_corpus(reference, encoder), _read_corpus(other, encoder)
    depth = TextDepth().fit(own.vectors)
    deeper: dict[Alternative, Literal["greater", "less", "two-sided"]] = {
        Alternative.further_out: "greater",
        Alternative.further_in: "less",
        Alternative.either: "two-sided",
    }
    result = depth.test(others.vectors, alternative=deeper[alternative], method=p_value.value)
    if interval is IntervalOf.bootstrap:
        drawn = bootstrap_q(own.vectors, others.vectors)
        result = replace(result, q_low=drawn.low, q_high=drawn.high)
    depths = depth.depths(others.vectors)
    strays = [int(i) for i in np.argsort(depths, kind="stable")[:show]]
    if as_json:
        found = {name: getattr(result, name) for name in result.__dataclass_fields__}
        texts = [{"depth": float(depths[i]), "line": others.numbers[i], "text": others.texts[i]} for i in strays]
        unknown = {"reference": own.unknown, "other": others.unknown}
        print_json(found | {"model": model, "least_central": texts, "without_depth": unknown})
        return
    out.print(f"Q {result.q:.4f}  (95 % interval {result.q_low:.4f} to {result.q_high:.4f}; 0.5 for equal corpora)")
    out.print(f"W {result.statistic:+.3f}, p {result.pvalue:.3g}  ({alternative.value}, {result.method})")
    out.print(f"n {result.n:,} reference texts, m {result.m:,} others")
    for i in strays:
        out.print(f"  {depths[i]:.4f}  {others.texts[i]}", markup=False)
    own.tell_unknown()
    others.tell_unknown()


@app.command()
def exemplars(
    corpus: Annotated[Path, typer.Argument(help="Text file, one text per line.")],
    labels: Annotated[Path | None, typer.Option(help="Text file with the label of each line of CORPUS.")] = None,
    k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Examples for each label.")] = 1,
    strategy: Annotated[Choice, typer.Option(help="How to choose them.")] = Choice.deep,
    prompt: Annotated[
        str | None, typer.Option(help="Print a prompt that asks a language model for the label of this text.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides a random choice.")] = 0,
    model: Model = "default",
    as_json: AsJson = False,
) -> None:
    """Choose the texts of CORPUS that stand for it, or for each label: examples for a prompt."""
    from rich.table import Table
    from rich.text import Text

    from embedlab._core.errors import InputError
    from embedlab.cli.console import out, print_json
    from embedlab.models import load_model
    from embedlab.understand.few_shot import few_shot_prompt
    from embedlab.understand.tte_depth import select_exemplars

    lines = _read_corpus(corpus, load_model(model))
    names = None if labels is None else _labels_of(lines, labels)
    if prompt is not None:
        if names is None:
            raise InputError("prompt: a prompt needs labels: give them with --labels FILE, one per line of the corpus")
        made = few_shot_prompt(lines.texts, names, lines.vectors, k=k, strategy=strategy.value, seed=seed)
        if as_json:
            print_json({"prompt": made.for_text(prompt), "lines": [lines.numbers[row] for row in made.rows]})
        else:
            out.print(made.for_text(prompt), markup=False)
        return
    rows = select_exemplars(lines.vectors, k, labels=names, strategy=strategy.value, seed=seed).tolist()
    if as_json:
        texts = [
            {"line": lines.numbers[row], "text": lines.texts[row]} | ({"label": names[row]} if names else {})
            for row in rows
        ]
        print_json({"model": model, "strategy": strategy.value, "texts": texts, "without_depth": lines.unknown})
        return
    table = Table(*(("label",) if names else ()), "line", "text", box=None, pad_edge=False)
    for row in rows:
        label = [Text(names[row])] if names else []
        table.add_row(*label, str(lines.numbers[row]), Text(lines.texts[row]))
    out.print(table)
    lines.tell_unknown()


@app.command()
def remember(
    corpus: Annotated[Path, typer.Argument(help="Text file of the reference corpus, one text per line.")],
    file: Annotated[Path, typer.Argument(help="Where to write what is needed of it, a few kilobytes.")],
    model: Model = "default",
) -> None:
    """Save the reference for `embedlab depth drift`: its sum and its depths, none of its texts."""
    from embedlab.cli.console import err
    from embedlab.models import load_model
    from embedlab.understand.depth_shift import DriftMonitor

    encoder = load_model(model)
    lines = _read_corpus(corpus, encoder)
    DriftMonitor(lines.vectors, fingerprint=encoder.fingerprint).save(file)
    lines.tell_unknown()
    err.print(f"wrote {file}: {len(lines.texts):,} texts", markup=False)


@app.command()
def drift(
    reference: Annotated[Path, typer.Argument(help="File written by `embedlab depth remember`.")],
    other: Annotated[Path, typer.Argument(help="Text file of what has arrived since, one text per line.")],
    show: Annotated[int, typer.Option(min=0, help="Number of texts to show, the least central first.")] = 3,
    model: Model = "default",
    as_json: AsJson = False,
) -> None:
    """Test whether the texts of OTHER still come from the distribution of the saved reference."""
    import numpy as np

    from embedlab._core.errors import InputError
    from embedlab.cli.console import out, print_json
    from embedlab.models import load_model
    from embedlab.understand.depth_shift import DriftMonitor

    monitor, encoder = DriftMonitor.load(reference), load_model(model)
    if monitor.fingerprint and monitor.fingerprint != encoder.fingerprint:
        raise InputError(
            f"{reference} was made with model {monitor.fingerprint}, this one is {encoder.fingerprint}: give that model"
        )
    lines = _read_corpus(other, encoder)
    depths = monitor.add(lines.vectors)
    result = monitor.test()
    strays = [int(i) for i in np.argsort(depths, kind="stable")[:show]]
    if as_json:
        found = {name: getattr(result, name) for name in result.__dataclass_fields__}
        texts = [{"depth": float(depths[i]), "line": lines.numbers[i], "text": lines.texts[i]} for i in strays]
        print_json(found | {"model": model, "least_central": texts, "without_depth": lines.unknown})
        return
    out.print(f"Q {result.q:.4f}  (95 % interval {result.q_low:.4f} to {result.q_high:.4f}; 0.5 for equal corpora)")
    out.print(f"W {result.statistic:+.3f}, p {result.pvalue:.3g}  (either way)")
    for i in strays:
        out.print(f"  {depths[i]:.4f}  {lines.texts[i]}", markup=False)
    lines.tell_unknown()


@dataclass(frozen=True)
class _Corpus:
    """The lines of a file with their vectors; those of which the model knows no word have no direction, so no depth."""

    path: Path
    numbers: list[int]
    texts: list[str]
    vectors: NDArray[np.float32]
    unknown: list[int]

    def tell_unknown(self) -> None:
        from embedlab.cli.console import err

        if self.unknown:
            places = ", ".join(map(str, self.unknown[:10])) + ", ..." * (len(self.unknown) > 10)
            err.print(f"left out of {self.path}, since the model knows no word of them: lines {places}", markup=False)


def _read_corpus(path: Path, encoder: Encoder) -> _Corpus:
    from embedlab._core.errors import InputError
    from embedlab.cli.text_files import read_utf8

    content = read_utf8(path)
    lines = {number: text.strip() for number, text in enumerate(content.split("\n"), start=1) if text.strip()}
    if not lines:
        raise InputError(f"{path} holds no text: give one text per line")
    vectors = encoder.encode_document(list(lines.values()))
    known = [bool(row.any()) for row in vectors]
    numbers = [number for number, ok in zip(lines, known, strict=True) if ok]
    if len(numbers) < 2:
        raise InputError(f"{path}: the model knows words of {len(numbers)} line(s) only; at least 2 are needed")
    unknown = [number for number, ok in zip(lines, known, strict=True) if not ok]
    return _Corpus(path, numbers, [lines[number] for number in numbers], vectors[known], unknown)


def _labels_of(corpus: _Corpus, path: Path) -> list[str]:
    """Labels of the texts that have depth, from a file with one per line of the corpus."""
    from embedlab._core.errors import InputError

    try:
        labels = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a UTF-8 text file: {error}") from error
    found = [labels[number - 1].strip() if number <= len(labels) else "" for number in corpus.numbers]
    if not all(found):
        line = corpus.numbers[[bool(label) for label in found].index(False)]
        raise InputError(f"{path} has no label on line {line}: give one per line of {corpus.path}")
    return found
