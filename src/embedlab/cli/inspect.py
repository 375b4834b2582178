"""What an embedding space looks like: inspect, with the default sub-command ``space``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from embedlab.cli import inspect_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from embedlab.models import Encoder
    from embedlab.understand.inspection import Space

_LAYER_TEXTS = 16  # the time of a filter rate grows with the cube of the length
_PROFILE_ROWS = 50_000
_COMPARED_TEXTS = 1_000
_EDGES = (0, 100, 200, 400, 800, 1600, 3200)


class _DefaultsToSpace(TyperGroup):
    """`embedlab inspect notes` is `embedlab inspect space notes`."""

    default_command = "space"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_DefaultsToSpace,
    help="Look at an embedding space: `embedlab inspect NAME` for a collection or a file, `inspect tables` for tables.",
    no_args_is_help=True,
)


@app.command()
def space(
    what: Annotated[
        str, typer.Argument(help="Collection, or a file: .npy or .parquet with vectors, .txt with one text per line.")
    ],
    texts: Annotated[Path | None, typer.Option(help="Texts of a .npy file, one per line.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="File of labels, one per line, or a column of a collection or .parquet file.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another collection or file in the same space, to be compared with this one.")
    ] = None,
    against_texts: Annotated[Path | None, typer.Option(help="Texts of a .npy file given as --against.")] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="Row i of --against belongs to row i here, like a caption to its image.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Another model: embed the texts with it as well, and compare the two spaces.")
    ] = None,
    made_by: Annotated[
        str | None,
        typer.Option(help="Model that made the vectors of a file; embeds .txt files ('default' if not given)."),
    ] = None,
    layers: Annotated[
        bool, typer.Option(help="Measure the filter rate of each layer, if the model is a transformer.")
    ] = True,
    neighbours: Annotated[int, typer.Option("--neighbours", "-k", min=1, help="Neighbours of a text.")] = 10,
    show: Annotated[int, typer.Option(min=0, help="Texts to name for each thing that makes texts stand out.")] = 5,
    max_rows: Annotated[
        int, typer.Option(min=50, help="Rows to look at, drawn at random, for what goes over pairs.")
    ] = (5_000),
    seed: Annotated[int, typer.Option(help="Decides samples and resamples.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Write the report as one self-contained page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Describe the vectors of a collection or a file from every side.

    How evenly they point, how many dimensions they fill, which texts are everybody's neighbour and which nobody's, what
    goes with the length of texts, which texts are central; with --against whether another corpus comes from the same
    distribution and how far apart the two lie, with --model how alike another model's space is.
    """
    from embedlab._core.errors import InputError
    from embedlab.cli.console import err, out, print_json
    from embedlab.cli.inspect_inputs import read_space
    from embedlab.understand.inspection import inspect_space, print_inspection, write_page

    inspected, encoder = read_space(what, texts, labels, made_by)
    other_corpus = None
    if against is not None:
        other_corpus, _ = read_space(against, against_texts, None, made_by or inspected.model)
        if None not in (inspected.model, other_corpus.model) and inspected.model != other_corpus.model:
            raise InputError(
                f"against={against!r} is by model {other_corpus.model!r} and {what!r} by {inspected.model!r}: "
                "vectors of two models can't be compared; --model compares two models on the same texts"
            )
    found = inspect_space(
        inspected,
        against=other_corpus,
        other=None if model is None else _by_other_model(inspected, model, seed),
        paired=paired,
        profiles=_profiles(inspected, seed),
        layers=_layers(inspected, encoder, made_by) if layers else None,
        k=neighbours,
        show=show,
        max_rows=max_rows,
        seed=seed,
    )
    if html is not None:
        write_page(found, html)
        err.print(f"wrote {html}", markup=False)
    if as_json:
        print_json(found.to_dict())
    elif html is None:
        print_inspection(found, out)


app.command()(inspect_tables.tables)


def _by_other_model(inspected: Space, model: str, seed: int) -> Space:
    """Embed a sample of the texts with another model; all other rows stay zero, so they are left out."""
    import numpy as np

    from embedlab._core.errors import InputError
    from embedlab.models import load_model
    from embedlab.understand.inspection import Space

    if inspected.texts is None:
        raise InputError(f"model={model!r} needs texts to embed: give them with --texts")
    encoder = load_model(model)
    chosen = _draw(len(inspected), _COMPARED_TEXTS, seed)
    last = int(inspected.rows[-1]) + 1
    vectors = np.zeros((last, encoder.dim), dtype=np.float32)
    vectors[inspected.rows[chosen]] = encoder.encode_document([inspected.texts[place] for place in chosen])
    return Space(vectors, name=f"{inspected.name} by {model}", model=model)


def _profiles(inspected: Space, seed: int) -> Sequence[Any]:
    """Quantities by length of text, if there are texts of different lengths."""
    import numpy as np

    from embedlab.text.temp_scale import centroid_distance_by_length, pairwise_cosine_by_length

    lengths = inspected.lengths
    if lengths is None or np.ptp(lengths) == 0:
        return ()
    chosen = _draw(len(inspected), _PROFILE_ROWS, seed)
    edges = [edge for edge in _EDGES if edge <= lengths.max()]
    measures = (pairwise_cosine_by_length, centroid_distance_by_length)
    return [measure(inspected.vectors[chosen], lengths[chosen], edges=edges) for measure in measures]


def _layers(inspected: Space, encoder: Encoder | None, made_by: str | None) -> Any:
    """Filter rates of the model that made the vectors, if it is a transformer, on texts from short to long."""
    from importlib.util import find_spec

    import numpy as np

    model = made_by or inspected.model
    remote = model is not None and model.startswith(("http://", "https://"))
    if inspected.texts is None or model in (None, "default") or remote or find_spec("torch") is None:
        return None
    if encoder is None:
        from embedlab.models import load_model

        encoder = load_model(str(model))
    host = getattr(encoder, "host", None)
    if host is None:
        return None
    from embedlab._core.errors import InputError
    from embedlab.text.temp_scale import filter_rate
    from embedlab.understand.length_collapse import rates_by_layer

    lengths = np.array([len(text) for text in inspected.texts])
    known = np.flatnonzero(lengths > 0)
    by_length = known[np.argsort(lengths[known], kind="stable")]
    spread = np.unique(np.linspace(0, len(by_length) - 1, _LAYER_TEXTS).astype(np.intp))
    try:
        rates = filter_rate(host, [inspected.texts[place] for place in by_length[spread]])
    except InputError:
        return None  # no transformer, or one that keeps its attention to itself
    middle = [int(edge) for edge in np.unique(np.quantile(rates.num_tokens, [1 / 3, 2 / 3]).round())]
    return rates_by_layer(rates, edges=sorted({0, *middle}))


def _draw(count: int, most: int, seed: int) -> NDArray[np.intp]:
    import numpy as np

    if count <= most:
        return np.arange(count, dtype=np.intp)
    return np.sort(np.random.default_rng(seed).permutation(count)[:most]).astype(np.intp)
