"""Plain texts become pairs: a query for each passage, kept if searching for it brings the passage back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedlab._core.errors import InputError
from embedlab.data.corpus import CorpusPassage
from embedlab.text.training.recipe import TrainingData
from embedlab.text.training.rows import dataset_of
from embedlab.text.training.sources import Loaded

if TYPE_CHECKING:
    from embedlab.models.encoder import Encoder
    from embedlab.text.synthesis.offline import SyntheticPair

OFFLINE = "offline"


def with_queries(loaded: Loaded, *, folder: Path, seed: int = 0) -> Loaded:
    """Make pairs out of plain texts.

    Args:
        loaded: Rows of the kind ``"texts"``; its source says who writes the queries.
        folder: Where the answers of an endpoint are kept, so that no query is paid for twice.
        seed: Decides what is drawn.

    Returns:
        The pairs, each in the group of its passage.

    Raises:
        InputError: too few queries came out of the texts.
    """
    texts: list[str] = loaded.data.rows["text"][:]
    headings = loaded.headings if loaded.headings is not None else [()] * len(texts)
    passages = [CorpusPassage(text, above) for text, above in zip(texts, headings, strict=True)]
    name = loaded.data.name
    made = _written(passages, loaded.source.queries, loaded.source.per_passage, folder / f"{name}.jsonl", seed)
    if len(made) < 2:
        raise InputError(
            f"data {name!r}: {len(made)} queries came out of {len(texts)} passages: give more or longer texts"
        )
    columns = {"anchor": [each.query for each in made], "positive": [each.passage for each in made]}
    groups = [str(loaded.groups[each.source] if loaded.groups is not None else each.source) for each in made]
    return Loaded(
        TrainingData(name, "pairs", dataset_of("pairs", columns, name)), groups, None, loaded.source, made=True
    )


def consistent(data: TrainingData, encoder: Encoder, *, top_k: int | None) -> tuple[TrainingData, str]:
    """Keep the pairs whose query leads back to its passage.

    For training data only: held-out queries that were chosen by a model would make that model look better than others.

    Args:
        data: Pairs made by ``with_queries``.
        encoder: Searches for each query; as a rule the model that will be trained.
        top_k: Lowest rank that is kept; None to keep all.

    Returns:
        The pairs that are kept, and a sentence on what was done.

    Raises:
        InputError: fewer than two are kept.
    """
    from embedlab.text.synthesis.consistency import consistency_filter

    about = f"{data.name}: queries were made from the texts, and stand in for those of people"
    if top_k is None:
        return data, f"{about}."
    pairs = list(zip(data.rows["anchor"], data.rows["positive"], strict=True))
    _, report = consistency_filter(pairs, [passage for _, passage in pairs], encoder, top_k=top_k)
    kept = [place for place, keep in enumerate(report.kept) if keep]
    if len(kept) < 2:
        raise InputError(
            f"data {data.name!r}: {len(kept)} of {len(pairs)} queries lead back to their passage: give more texts, or "
            f"raise top_k={top_k}"
        )
    rows = data.rows.select(kept).flatten_indices()
    return TrainingData(data.name, data.kind, rows), f"{about}; {len(kept)} of {len(pairs)} lead back to their passage."


def _written(
    passages: Sequence[CorpusPassage], writer: str, per_passage: int, rows: Path, seed: int
) -> Sequence[SyntheticPair]:
    from embedlab.text.synthesis.offline import offline_queries
    from embedlab.text.synthesis.pipelines import pairs_of, synthesize_pairs

    if writer == OFFLINE:
        return offline_queries(passages, per_passage=per_passage, seed=seed)
    if not writer.startswith(("http://", "https://")):
        raise InputError(f"queries={writer!r}: expected 'offline', or the URL of a chat endpoint, http://host/v1#model")
    rows.parent.mkdir(parents=True, exist_ok=True)
    return pairs_of(synthesize_pairs(passages, writer, rows, per_passage=per_passage, seed=seed).rows)
