"""How good and how fast a model is at every depth and width, and which of these sizes are worth having."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.text.matryoshka_2d.blocks import check_dim, check_layer, check_readout, find_blocks, view, width_of
from embedlab.text.matryoshka_2d.reading import reading

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

    Evaluator = Callable[[SentenceTransformer], float | Mapping[str, float]]

_WARM_UP, _REPEATS = 1, 3


@dataclass(frozen=True, slots=True)
class Grid:
    """Scores and costs of a model at every depth and width.

    Attributes:
        layers: The depths, ascending.
        dims: The widths, ascending.
        scores: One score per depth and width, (L, W); larger is better.
        ms_per_text: Time to encode a text at each depth, (L,), in milliseconds.
        metric: What the scores are called.
    """

    layers: tuple[int, ...]
    dims: tuple[int, ...]
    scores: NDArray[np.float64]
    ms_per_text: NDArray[np.float64]
    metric: str

    def front(self) -> NDArray[np.bool_]:
        """Return which sizes are worth having, (L, W): none is as fast and as small, and better.

        A size of the same costs cannot be another one, so ties are between sizes of different costs: the cheaper wins.
        """
        time_of, bytes_of = np.meshgrid(self.ms_per_text, self.dims, indexing="ij")
        rows = np.stack([time_of.ravel(), bytes_of.ravel(), -self.scores.ravel()], axis=1)  # smaller is better
        beaten = [bool(((rows <= row).all(axis=1) & (rows < row).any(axis=1)).any()) for row in rows]
        return ~np.array(beaten).reshape(self.scores.shape)

    def frame(self) -> pd.DataFrame:
        """Return one row per size: layer, dim, score, milliseconds per text, bytes per vector, on the front or not."""
        import pandas as pd

        front = self.front()
        return pd.DataFrame(
            [
                {
                    "layer": layer,
                    "dim": dim,
                    "score": float(self.scores[i, j]),
                    "ms_per_text": float(self.ms_per_text[i]),
                    "bytes_per_vector": 4 * dim,
                    "worth_having": bool(front[i, j]),
                }
                for i, layer in enumerate(self.layers)
                for j, dim in enumerate(self.dims)
            ]
        )


def evaluate_grid(
    model: SentenceTransformer,
    evaluator: Evaluator,
    *,
    layers: Sequence[int] | None = None,
    dims: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
) -> Grid:
    """Evaluate a model at every depth and width.

    Each text is encoded once, with the vectors of all depths read from that one pass. Times are measured separately,
    with models that end at each depth.

    Args:
        model: The model.
        evaluator: An evaluator of the host, or any function of a model that gives a score or a dict with one; it is
            called with a model of each size, whose ``encode`` looks the texts up.
        layers: The depths; None for all.
        dims: The widths; None for powers of two from 8, and the full one.
        texts: Texts to measure times on; None for the first 256 that the evaluator encodes.

    Returns:
        Scores and times.

    Raises:
        InputError: there are not as many layers or dimensions, the architecture is unknown, or the evaluator gives no
            single score.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> model = tiny_encoder(["a cat sat", "a dog ran"], num_layers=3)
        >>> score = lambda part: float(part.similarity(*part.encode(["a cat", "a dog"])))
        >>> evaluate_grid(model, score, dims=(8, 32)).frame().shape
        (6, 6)
    """
    check_readout(model)
    blocks, width = find_blocks(model), width_of(model)
    depths = tuple(sorted({check_layer(n, blocks) for n in layers or range(1, len(blocks) + 1)}))
    ladder = [2**power for power in range(3, 16) if 2**power < width] + [width]
    widths = tuple(sorted({check_dim(d, width) for d in dims or ladder}))
    known = _Known(model, depths)
    scores, metric = np.zeros((len(depths), len(widths))), "score"
    for i, layer in enumerate(depths):
        for j, dim in enumerate(widths):
            part: Any = view(model, layer, dim)
            part.encode = partial(known.encode, part, i, dim)
            scores[i, j], metric = _score(evaluator, evaluator(part))
    timed = list(texts) if texts is not None else [text for _, text in known.rows][:256]
    times = np.array([_ms_per_text(view(model, layer, width), timed) for layer in depths])
    return Grid(depths, widths, scores, times, metric)


class _Known:
    """The vectors of all depths of every text that has been asked for."""

    def __init__(self, model: SentenceTransformer, layers: tuple[int, ...]) -> None:
        self.model, self.layers = model, layers
        self.rows: dict[tuple[str | None, str], Tensor] = {}  # prompt, text -> (layers, D), before normalisation

    def encode(
        self, part: SentenceTransformer, place: int, dim: int, sentences: str | Sequence[str], **options: Any
    ) -> Any:
        import torch
        from sentence_transformers.util import quantize_embeddings

        alone = isinstance(sentences, str)
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        prompt = options.get("prompt")
        if prompt is None:
            prompt = part.prompts.get(options.get("prompt_name") or part.default_prompt_name or "")
        new = [text for text in dict.fromkeys(texts) if (prompt, text) not in self.rows]
        if new:
            size = options.get("batch_size", 32)
            with reading(self.model, self.layers):
                found = self.model.encode(new, prompt=prompt or "", batch_size=size, convert_to_tensor=True)
            self.rows.update({(prompt, text): row for text, row in zip(new, found, strict=True)})
        rows = torch.stack([self.rows[prompt, text][place, :dim] for text in texts])
        for module in part.children():  # what comes after the cut: normalisation, if anything
            if type(module).__name__ == "Normalize":
                rows = module({"sentence_embedding": rows})["sentence_embedding"]
        if options.get("truncate_dim"):
            rows = rows[:, : options["truncate_dim"]]
        if options.get("normalize_embeddings"):
            rows = torch.nn.functional.normalize(rows, dim=-1)
        made: Any = rows if options.get("convert_to_tensor") else rows.float().cpu().numpy()
        if options.get("precision") not in (None, "float32"):
            made = quantize_embeddings(made, precision=options["precision"])
        return made[0] if alone else made


def _score(evaluator: Any, result: float | Mapping[str, float]) -> tuple[float, str]:
    if not isinstance(result, Mapping):
        return float(result), "score"
    name = str(getattr(evaluator, "primary_metric", None) or (next(iter(result)) if len(result) == 1 else None))
    if name not in result:
        raise InputError(
            f"evaluator: it gives {', '.join(result) or 'nothing'} and no primary_metric says which counts"
        )
    return float(result[name]), name


def _ms_per_text(model: SentenceTransformer, texts: Sequence[str]) -> float:
    """Milliseconds per text: the median of three runs after one that does not count."""
    if not texts:
        raise InputError("texts: none to measure times on")
    taken = []
    for _ in range(_WARM_UP + _REPEATS):
        start = time.perf_counter()
        model.encode(list(texts), show_progress_bar=False)
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken[_WARM_UP:])) / len(texts)
