"""How much of texts can be read back from their vectors: invert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedlab.text.inversion import Inverter

_TRAINED = 4 / 5  # share of the texts that the attacker knows
_FEWEST = 50


def invert(
    texts: Annotated[Path, typer.Argument(metavar="TEXTS", help="Texts like those you store, one a line.")],
    model: Annotated[str, typer.Option(help="The encoder: 'default', a path or hub name, or URL#MODEL.")] = "default",
    noise: Annotated[list[float] | None, typer.Option(help="Defence: normal noise of this sigma. Repeatable.")] = None,
    bits: Annotated[list[int] | None, typer.Option(help="Defence: so many bits a number. Repeatable.")] = None,
    dim: Annotated[list[int] | None, typer.Option(help="Defence: the first so many numbers. Repeatable.")] = None,
    rotate: Annotated[bool, typer.Option(help="Defence: a secret rotation.")] = False,
    decoder: Annotated[
        Path | None, typer.Option(help="Folder of a causal language model: also write whole texts from vectors.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of the writer.")] = 1000,
    seed: Annotated[int, typer.Option(help="Decides which texts the attacker knows.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Measure how much of TEXTS can be read back from their vectors, and what defences change.

    An attacker learns on four fifths of the texts and reads the vectors of the rest. The first line is what anybody can
    guess without a vector.
    """
    import numpy as np

    from embedlab._core.errors import InputError
    from embedlab.cli.console import print_json
    from embedlab.cli.text_files import read_utf8
    from embedlab.models import load_model
    from embedlab.text.inversion import (
        FrequentWords,
        GaussianNoise,
        NearestText,
        Rounding,
        SecretRotation,
        TokenSetInverter,
        Truncation,
        leakage_report,
    )

    lines = list(dict.fromkeys(line.strip() for line in read_utf8(texts).splitlines() if line.strip()))
    if len(lines) < _FEWEST:
        raise InputError(f"{texts} has {len(lines)} different texts: an attacker needs at least {_FEWEST}")
    order = np.random.default_rng(seed).permutation(len(lines))
    known, secret = ([lines[place] for place in part] for part in np.split(order, [int(_TRAINED * len(lines))]))
    encoder = load_model(model)
    vectors, stored = encoder.encode_document(known), encoder.encode_document(secret)
    defences = [
        *(GaussianNoise(each, seed) for each in noise or ()),
        *(Rounding(each) for each in bits or ()),
        *(Truncation(each) for each in dim or ()),
        *([SecretRotation(seed)] if rotate else ()),
    ]
    attacks: dict[str, Inverter] = {
        "frequent words": FrequentWords().fit(vectors, known),
        "nearest text": NearestText().fit(vectors, known),
        "word set": TokenSetInverter().fit(vectors, known),
    }
    if decoder is not None:
        attacks["writer"] = _writer(decoder, vectors, known, steps, seed)
    rows: list[dict[str, Any]] = [
        {"attack": attack, "defence": found.defence} | found.leakage.means()
        for attack, inverter in attacks.items()
        for found in leakage_report(
            stored,
            secret,
            inverter=inverter,
            defences=() if attack == "frequent words" else defences,
            encode=encoder.encode_document,
        )
    ]
    if as_json:
        rows = [{name: None if value != value else value for name, value in row.items()} for row in rows]  # NaN
        print_json({"model": model, "known": len(known), "secret": len(secret), "leakage": rows})
        return
    _show(rows, len(known), len(secret))


def _writer(decoder: Path, vectors: NDArray[Any], known: list[str], steps: int, seed: int) -> Inverter:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from embedlab._core.errors import InputError
    from embedlab.text.inversion import PrefixInverter

    if not (decoder / "config.json").is_file():
        raise InputError(f"{decoder} holds no model: give the folder of a causal language model with its tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    inverter = PrefixInverter(AutoModelForCausalLM.from_pretrained(decoder), tokenizer, seed=seed)
    return inverter.fit(vectors, known, steps=steps)


def _show(rows: list[dict[str, Any]], known: int, secret: int) -> None:
    from rich.table import Table

    from embedlab.cli.console import err, out

    table = Table(box=None, pad_edge=False)
    for column in ("attack", "defence", "words found", "words right", "F1", "BLEU", "exact", "cosine"):
        table.add_column(column, justify="left" if column in ("attack", "defence") else "right")
    for row in rows:
        numbers = (f"{row[name]:.3f}" for name in ("recall", "precision", "f1", "bleu", "exact", "cosine"))
        table.add_row(str(row["attack"]), str(row["defence"]), *numbers)
    out.print(table)
    err.print(f"{known:,} texts known to the attacker, {secret:,} read; means over texts, each from 0 to 1")
