"""What a grid measures on rows of a user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import InputError

if TYPE_CHECKING:
    from embedlab.text.matryoshka_2d.grid import Evaluator
    from embedlab.text.training import TrainingData


def measure_for(data: TrainingData) -> Evaluator:
    """Choose what to measure by what the rows are.

    Args:
        data: Scored pairs, or pairs of texts that belong together.

    Returns:
        Spearman correlation of cosines with the scores; or the share of first texts whose own second text is nearest
        among all second texts, where a tie with another text counts against it.

    Raises:
        InputError: the rows are of another kind.
    """
    if data.kind == "scored":
        from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

        first, second, scores = (data.rows[name][:] for name in ("sentence1", "sentence2", "score"))
        made: Evaluator = EmbeddingSimilarityEvaluator(
            first, second, scores, main_similarity="cosine", name=data.name, write_csv=False
        )
        return made
    if data.kind not in ("pairs", "tuples"):
        raise InputError(f"data {data.name!r} holds {data.kind}: give pairs (anchor, positive) or scored pairs")
    anchors, positives = data.rows["anchor"][:], data.rows["positive"][:]
    places = {text: place for place, text in enumerate(dict.fromkeys(positives))}
    own = np.array([places[text] for text in positives])

    def found_first(model: Any) -> dict[str, float]:
        left, right = (model.encode(texts, normalize_embeddings=True) for texts in (anchors, list(places)))
        scores = left @ right.T  # (B, distinct)
        mine = scores[np.arange(len(own)), own]
        scores[np.arange(len(own)), own] = -np.inf
        return {"accuracy@1": float((mine > scores.max(axis=1)).mean())}

    return found_first
