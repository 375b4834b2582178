"""Distil any sentence-transformers model into a static table, or go on training a table on texts of one's own.

The pieces are plain functions on arrays, so that each can be used alone: choose a vocabulary, ask the teacher (kept on
disk, to be resumed), start from the teacher's view of single tokens, train the table, round it to 8 bits.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab._core.files import atomic_write
from embedlab.models.words import load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = "[UNK]"
_SHARD = 4096
_WORD = re.compile(r"[^\W\d_]{3,30}")
_SIGNS_KEPT = "+#"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How ``train_table`` learns.

    Attributes:
        epochs: Passes over the texts with targets (over the pairs, if there are no targets).
        batch_size: Texts with targets in one step.
        pair_batch_size: Pairs in one step.
        learning_rate: Of Adam, in units of the table's mean row length; rises in the first 5 % and falls to zero.
        cosine_weight: Of the loss 1 - cosine to the target.
        ranking_weight: Of the loss that keeps the teacher's ranking of a batch's other texts.
        pair_weight: Of the contrastive loss on pairs.
        ranking_temperature: Of the softmax over a batch in the ranking loss.
        pair_temperature: Of the softmax over a batch in the contrastive loss.
        seed: Of the order of the batches.
    """

    epochs: int = 5
    batch_size: int = 1024
    pair_batch_size: int = 768
    learning_rate: float = 0.006
    cosine_weight: float = 3.0
    ranking_weight: float = 1.0
    pair_weight: float = 0.2
    ranking_temperature: float = 0.05
    pair_temperature: float = 0.05
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TokenBags:
    """The token ids of many texts behind one another.

    Attributes:
        ids: Token ids of all texts.
        starts: Where each text starts, and where the last one ends.

    Shape:
        ids (T,) int32; starts (N + 1,) int64
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer_json: str, *, max_tokens: int = 512) -> TokenBags:
        """Cut texts into tokens.

        Args:
            texts: The texts.
            tokenizer_json: The tokenizer in the format of the tokenizers library.
            max_tokens: Tokens of a text beyond these are left out.

        Returns:
            The bags, unknown tokens left out.
        """
        tokenizer = load_tokenizer(tokenizer_json)
        tokenizer.enable_truncation(max_tokens)
        unknown = tokenizer.token_to_id(UNKNOWN)
        parts: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), _SHARD):
            for encoding in tokenizer.encode_batch(list(texts[start : start + _SHARD]), add_special_tokens=False):
                ids = np.array(encoding.ids, dtype=np.int32)
                parts.append(ids[ids != unknown])
        starts = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=starts[1:])
        return cls(np.concatenate([np.zeros(0, dtype=np.int32), *parts]), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ids of some texts behind one another, and where each of them starts."""
        lengths = self.starts[places + 1] - self.starts[places]
        starts = np.cumsum(lengths) - lengths
        inside = np.arange(lengths.sum()) - np.repeat(starts, lengths)
        return self.ids[np.repeat(self.starts[places], lengths) + inside].astype(np.int64), starts


def choose_vocabulary(texts: Sequence[str], tokenizer_json: str, *, size: int, min_count: int = 5) -> str:
    """Make a word-piece tokenizer for these texts: the teacher's pieces in Latin script and the words it would cut.

    Pieces in scripts the texts do not use go, and the room is spent on the most frequent words that had to be cut,
    since a word of its own is remembered better than a sum of pieces.

    Args:
        texts: What the tokenizer shall be good at.
        tokenizer_json: The teacher's tokenizer, a BERT tokenizer.
        size: Number of tokens.
        min_count: How often a word must occur to get a token.

    Returns:
        The tokenizer in the format of the tokenizers library.

    Raises:
        InputError: the teacher's tokenizer is of another kind.
    """
    spec = json.loads(tokenizer_json)
    if spec["model"].get("type") != "WordPiece" or (spec.get("normalizer") or {}).get("type") != "BertNormalizer":
        raise InputError(
            "tokenizer_json is no BERT tokenizer: pass that of a BERT-like model, it need not be the teacher's"
        )
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(_WORD.findall(text.lower())))
    pieces = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].__getitem__)
    kept = [token for token in pieces if _is_kept(token)]
    known = set(kept)
    missing = [
        word for word, count in counts.most_common() if count >= min_count and word not in known and word.isascii()
    ]
    tokens = [UNKNOWN, *kept, *missing[: max(0, size - len(kept) - 1)]]
    spec["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    spec["model"]["unk_token"] = UNKNOWN
    # Names in brackets are words like all others here; what only a transformer needs goes.
    spec |= {"added_tokens": [], "truncation": None, "padding": None, "post_processor": None}
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"))


def teacher_vectors(
    teacher: Any, texts: Sequence[str], cache: Path, *, on_progress: Callable[[int], None] | None = None
) -> NDArray[np.float16]:
    """Encode texts with the teacher, in shards kept on disk, so that an interrupted run goes on where it was.

    Args:
        teacher: A sentence-transformers model.
        texts: The texts; the same texts in the same order find their shards again.
        cache: Folder of the shards.
        on_progress: Called with the number of texts just finished.

    Shape:
        texts N -> (N, H) float16

    Returns:
        Unit rows.
    """
    shards = []
    for start in range(0, len(texts), _SHARD):
        part = list(texts[start : start + _SHARD])
        path = cache / f"{hashlib.sha256(json.dumps(part).encode()).hexdigest()[:24]}.npy"
        if not path.is_file():
            order = sorted(range(len(part)), key=lambda place: len(part[place]))
            rows = np.empty((len(part), teacher.get_embedding_dimension()), dtype=np.float16)
            for places in _batches_of_like_length([part[place] for place in order]):
                chosen = [order[place] for place in places]
                rows[chosen] = teacher.encode(
                    [part[place] for place in chosen],
                    batch_size=len(chosen),
                    normalize_embeddings=True,
                    show_progress_bar=False,
                )
            atomic_write(path, _npy_bytes(rows))
        shards.append(np.load(path, allow_pickle=False))
        if on_progress is not None:
            on_progress(len(part))
    return np.concatenate(shards)


def principal_axes(vectors: NDArray[np.float16], dim: int) -> NDArray[np.float32]:
    """Return the directions that keep most of the inner products of vectors.

    Args:
        vectors: The vectors, not centred: their inner products are what is to be kept.
        dim: Number of directions.

    Shape:
        vectors (N, H) -> (H, dim) float32

    Returns:
        Orthonormal columns, the most important first.
    """
    moments = np.zeros((vectors.shape[1],) * 2)
    for start in range(0, len(vectors), 65_536):
        part = vectors[start : start + 65_536].astype(np.float32)
        moments += part.T @ part
    _, axes = np.linalg.eigh(moments)
    return np.ascontiguousarray(axes[:, ::-1][:, :dim], dtype=np.float32)


def starting_rows(
    token_vectors: NDArray[np.floating[Any]], axes: NDArray[np.float32], bags: TokenBags, *, smoothing: float = 1e-3
) -> NDArray[np.float32]:
    """Make a first table: the teacher's vectors of single tokens, the less weight the more frequent the token.

    Args:
        token_vectors: The teacher's vector of each token alone.
        axes: From ``principal_axes``.
        bags: The texts, for how frequent the tokens are.
        smoothing: Frequency at which a token has half the weight of a rare one; (paper: a).

    Shape:
        token_vectors (V, H), axes (H, D) -> (V, D) float32

    Returns:
        The table; row 0, the unknown token, is zero.

    References:
        Arora, Liang, Ma (2017), A simple but tough-to-beat baseline for sentence embeddings, equation 3 (the weight).
    """
    counts = np.bincount(bags.ids, minlength=len(token_vectors)) + 1.0
    weights = smoothing / (smoothing + counts / counts.sum())
    vectors = token_vectors.astype(np.float32)
    rows: NDArray[np.float32] = ((vectors - vectors[1:].mean(axis=0)) @ axes * weights[:, None]).astype(np.float32)
    rows[0] = 0
    return rows


def train_table(
    rows: NDArray[np.float32],
    bags: TokenBags,
    *,
    targets: NDArray[np.floating[Any]] | None = None,
    target_places: NDArray[np.int64] | None = None,
    axes: NDArray[np.float32] | None = None,
    pairs: NDArray[np.int64] | None = None,
    settings: TrainingSettings | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> NDArray[np.float32]:
    r"""Train the rows of a static model on texts, towards a teacher's vectors, on pairs, or both.

    With the student's unit vectors :math:`s_i`, the teacher's :math:`t_i` and the axes P, the loss of a batch is
    :math:`1 - \cos(s_i, P^T t_i)`, plus the Kullback-Leibler divergence between the softmax of
    :math:`t_i \cdot t_j / \tau` and that of :math:`s_i \cdot s_j / \tau` over the batch's other texts (the ranking is
    kept), plus the cross-entropy of finding the partner of a pair among all partners of the batch.

    Args:
        rows: The table to start from; not changed.
        bags: The texts as tokens.
        targets: The teacher's unit vectors; None trains on pairs alone.
        target_places: Which texts the targets belong to; None for the first ones.
        axes: From the teacher's space to the table's; None if both have the same width.
        pairs: Places of two texts about the same thing; None trains on targets alone.
        settings: How to learn; None for the published settings.
        on_step: Called with step, number of steps and loss.

    Shape:
        rows (V, D); targets (N, H); target_places (N,); axes (H, D); pairs (P, 2) -> (V, D) float32

    Returns:
        The trained table.

    Raises:
        InputError: neither targets nor pairs, or shapes that do not fit.
    """
    chosen = settings or TrainingSettings()
    places = _checked_places(rows, bags, targets, target_places, axes, pairs)
    torch = require("torch", extra="train")
    functional = torch.nn.functional
    rng = np.random.default_rng(chosen.seed)
    table = torch.nn.EmbeddingBag.from_pretrained(torch.from_numpy(rows.copy()), freeze=False, mode="sum")
    lengths = np.linalg.norm(rows, axis=1)
    rate = chosen.learning_rate * float(lengths[lengths > 0].mean())
    optimizer = torch.optim.Adam(table.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
    to_table = None if axes is None else torch.from_numpy(axes)

    def encode(texts: NDArray[np.int64]) -> Tensor:
        ids, starts = bags.take(texts)
        unit: Tensor = functional.normalize(table(torch.from_numpy(ids), torch.from_numpy(starts)), dim=-1)
        return unit

    text_batches = _shuffled(len(places), chosen.batch_size, rng) if targets is not None else None
    pair_batches = _shuffled(len(pairs), chosen.pair_batch_size, rng) if pairs is not None else None
    per_epoch = len(places) // chosen.batch_size
    if targets is None and pairs is not None:
        per_epoch = len(pairs) // chosen.pair_batch_size
    steps = chosen.epochs * max(1, per_epoch)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / max(1, 0.05 * steps)) * (1 - step / steps)
        loss = torch.zeros(())
        if text_batches is not None and targets is not None:
            batch = next(text_batches)
            taught = torch.from_numpy(targets[batch].astype(np.float32))
            student = encode(places[batch])
            wanted = taught if to_table is None else taught @ to_table
            loss = loss + chosen.cosine_weight * (1 - functional.cosine_similarity(student, wanted)).mean()
            if chosen.ranking_weight:
                loss = loss + chosen.ranking_weight * _ranking_loss(student, taught, chosen.ranking_temperature)
        if pair_batches is not None and pairs is not None:
            first, second = pairs[next(pair_batches)].T
            scores = encode(first) @ encode(second).T / chosen.pair_temperature
            same = torch.from_numpy((second[:, None] == second) | (first[:, None] == first))
            scores = scores.masked_fill(same & ~torch.eye(len(first), dtype=torch.bool), -torch.inf)
            goal = torch.arange(len(first))
            both = functional.cross_entropy(scores, goal) + functional.cross_entropy(scores.T, goal)
            loss = loss + chosen.pair_weight * both / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if on_step is not None:
            on_step(step + 1, steps, float(loss.detach()))
    trained: NDArray[np.float32] = table.weight.detach().numpy()
    return trained


def _ranking_loss(student: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Divergence of the student's from the teacher's distribution over a batch's other texts."""
    torch = require("torch", extra="train")
    itself = torch.eye(len(student), dtype=torch.bool)
    wanted, got = (
        torch.log_softmax((rows @ rows.T / temperature).masked_fill(itself, -1e4), dim=1) for rows in (taught, student)
    )
    divergence: Tensor = torch.nn.functional.kl_div(got, wanted, log_target=True, reduction="batchmean")
    return divergence


def _checked_places(
    rows: NDArray[np.float32],
    bags: TokenBags,
    targets: NDArray[np.floating[Any]] | None,
    target_places: NDArray[np.int64] | None,
    axes: NDArray[np.float32] | None,
    pairs: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    if targets is None and pairs is None:
        raise InputError("targets and pairs are both None: give at least one to learn from")
    if len(bags.ids) and bags.ids.max() >= len(rows):
        raise InputError(f"bags hold token {bags.ids.max()}, rows has {len(rows)}: use the tokenizer of the table")
    if pairs is not None and (pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.max(initial=0) >= len(bags)):
        raise InputError(f"pairs has shape {pairs.shape}: expected (P, 2) places of the {len(bags)} texts")
    if targets is None:
        return np.zeros(0, dtype=np.int64)
    width = targets.shape[1] if axes is None else axes.shape[1]
    if width != rows.shape[1] or (axes is not None and axes.shape[0] != targets.shape[1]):
        raise InputError(f"targets {targets.shape} do not lead to rows {rows.shape}: give axes (H, D) that do")
    places = np.arange(len(targets)) if target_places is None else target_places
    if len(places) != len(targets) or places.max(initial=0) >= len(bags):
        raise InputError(f"{len(targets)} targets for {len(places)} of {len(bags)} texts: they must go together")
    return places


def _shuffled(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield batches without end, every item once a round; a remainder waits for another round."""
    size = min(batch_size, count)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _batches_of_like_length(texts: Sequence[str], *, max_chars: int = 6000) -> Iterator[list[int]]:
    """Cut sorted texts into batches that cost a transformer about the same each."""
    batch: list[int] = []
    for place, text in enumerate(texts):
        if batch and (len(batch) + 1) * (len(text) + 8) > max_chars:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _is_kept(token: str) -> bool:
    """Tell whether a token is in Latin or Greek script and says something: no special token, no punctuation.

    Punctuation takes part in a fifth of all additions and, measured, changes no ranking; C++ and C# need theirs.
    """
    if token in string.punctuation:
        return token in _SIGNS_KEPT
    if len(token) > 2 and token.startswith("[") and token.endswith("]"):
        return False
    return all(ord(sign) < 0x250 or 0x370 <= ord(sign) < 0x400 or 0x2010 <= ord(sign) < 0x2200 for sign in token)


def _npy_bytes(rows: NDArray[np.float16]) -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, rows, allow_pickle=False)
    return file.getvalue()
