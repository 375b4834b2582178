"""How central texts are in a corpus: depth rank, depth compare."""

from __future__ import annotations

from dataclasses import dataclass
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

    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a UTF-8 text file: {error}") from error
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
