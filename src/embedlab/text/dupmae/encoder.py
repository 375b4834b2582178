"""Encode queries and documents with both halves of a pre-trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embedlab._core.errors import InputError
from embedlab._core.quiet import quiet_host
from embedlab.models.encoder import checked_texts
from embedlab.text.dupmae.export import duplex_sentence_transformer, plain_sentence_transformer
from embedlab.text.dupmae.heads import masked_lm
from embedlab.text.dupmae.pooling import Mode, pooling_of
from embedlab.text.dupmae.vectors import DuplexDocuments, DuplexQueries, joined, score, strongest_words

Floats = NDArray[np.float32]
_BATCHES_AT_ONCE = 16  # sorted by length together; decides memory and padding, not the result


class DuplexEncoder:
    r"""Encode texts as a short dense part from [CLS] and the scores of words from the other tokens.

    A document is stored as :math:`d'` numbers and its k strongest words; a query keeps the scores of all words. An
    empty text gives zeros. Texts longer than the limit are truncated.

    Args:
        base: A masked language model, such as ``MAEPretrainer.save`` writes: folder, hub name, or loaded; or a
            sentence-transformers model that has a ``DuplexPooling`` already, which is used as it is.
        dense_dim: Width of the dense part, at most the encoder's (paper: d').
        sparse_k: Words kept of a document (paper: k).
        mode: ``"both"``, ``"cls"`` (dense part alone) or ``"ot"`` (words alone).
        max_length: Longest text in tokens; None takes the tokenizer's limit, at most 512.
        tokenizer: Needed with a transformers model that is handed over.
        device: Where it runs; None stays where the model is.
        seed: Decides the first projection of the dense part.

    Raises:
        InputError: an option is out of range, or ``base`` cannot be loaded.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> texts = ["the cat sat", "a dog ran far"]
        >>> model, tokenizer = masked_lm(tiny_encoder(texts))
        >>> encoder = DuplexEncoder(model, dense_dim=8, sparse_k=4, tokenizer=tokenizer)
        >>> documents = encoder.encode_document(texts)
        >>> encoder.score(encoder.encode_query(["cat"]), documents).shape, documents.words.nnz
        ((1, 2), 8)

    References:
        Liu, Xiao, Shao, Cao (2023), RetroMAE-2, arXiv:2305.02564v1, section 3.4.
    """

    def __init__(
        self,
        base: str | Path | PreTrainedModel | SentenceTransformer,
        *,
        dense_dim: int = 384,
        sparse_k: int = 384,
        mode: Mode = "both",
        max_length: int | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        device: str | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(base, SentenceTransformer):
            self.host = base
        else:
            model, found = masked_lm(base, tokenizer, seed=seed)
            self.host = duplex_sentence_transformer(
                model, found, dense_dim=dense_dim, sparse_k=sparse_k, mode=mode, max_length=max_length, seed=seed
            )
        if device is not None:
            self.host.to(device)
        self.pooling = pooling_of(self.host)

    @property
    def mode(self) -> Mode:
        """Which parts are used."""
        return self.pooling.mode

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
    ) -> DuplexDocuments:
        """Encode documents as they are stored.

        Args:
            texts: The texts.
            batch_size: Texts in one forward pass.
            on_progress: Called with the number of texts just finished.

        Returns:
            Dense parts, and of the words the ``sparse_k`` strongest of each text that is not empty.

        Raises:
            InputError: something in ``texts`` is not a string, or ``batch_size`` is below 1.
        """
        dense = [np.zeros((0, self._dense_width), np.float32)]
        words = []
        for empty, first, second in self._blocks(texts, batch_size):
            dense.append(first)
            kept = strongest_words(second, self.pooling.sparse_k if self.mode != "cls" else 0)
            if empty.any():  # a stored zero is a word that the text does not have
                kept = kept.multiply(~empty[:, None]).tocsr()
                kept.eliminate_zeros()
            words.append(kept)
            if on_progress is not None:
                on_progress(len(first))
        return DuplexDocuments(np.concatenate(dense), joined(words, self.pooling.vocabulary))

    def encode_query(self, texts: Sequence[str], *, batch_size: int = 32) -> DuplexQueries:
        """Encode queries.

        Args:
            texts: The texts.
            batch_size: Texts in one forward pass.

        Returns:
            Dense parts, and the scores of all words.

        Raises:
            InputError: something in ``texts`` is not a string, or ``batch_size`` is below 1.
        """
        dense = [np.zeros((0, self._dense_width), np.float32)]
        words = [np.zeros((0, self.pooling.vocabulary), np.float32)]
        for _, first, second in self._blocks(texts, batch_size):
            dense.append(first)
            words.append(second)
        return DuplexQueries(np.concatenate(dense), np.concatenate(words))

    def score(self, queries: DuplexQueries, documents: DuplexDocuments) -> Floats:
        """Score every document for every query; see ``embedlab.text.dupmae.score``.

        Args:
            queries: From ``encode_query``.
            documents: From ``encode_document``.

        Returns:
            Scores (Q, N), larger is nearer.
        """
        return score(queries, documents)

    def balance(self, texts: Sequence[str]) -> None:
        """Scale the dense part so that its scores differ between texts as much as those of the words do.

        Pre-training leaves the halves at scales of their own; before fine-tuning, the larger would decide alone. No
        labels are needed. Does nothing where only one half is used.

        Args:
            texts: A few dozen texts of the corpus or more.

        Raises:
            InputError: fewer than two texts, or all give the same scores.
        """
        if self.mode != "both":
            return
        documents, queries = self.encode_document(texts), self.encode_query(texts)
        apart = ~np.eye(len(documents), dtype=bool)
        dense = (queries.dense @ documents.dense.T)[apart]
        words = (documents.words @ queries.words.T)[apart]
        if len(dense) == 0 or not dense.std() > 0 or not words.std() > 0:
            raise InputError(f"texts: {len(texts)} that all score alike say nothing of the scale: give more of them")
        factor = float(np.sqrt(words.std() / dense.std()))  # both sides of a score are scaled
        self.pooling.project.weight.data *= factor

    def save(self, folder: str | Path) -> None:
        """Write the encoder to a folder, head and projection included; ``DuplexEncoder.load`` opens it.

        Args:
            folder: The folder.
        """
        with quiet_host("transformers", "sentence_transformers"):
            self.host.save_pretrained(str(folder), create_model_card=False)

    @classmethod
    def load(cls, folder: str | Path, *, mode: Mode | None = None, device: str | None = None) -> Self:
        """Open what ``save`` has written, or the trainer by one of this method's recipes.

        Args:
            folder: The folder.
            mode: Which parts to use; None leaves it as it was saved. The trainer saves ``"cls"``.
            device: Where it runs; None lets the host choose.

        Returns:
            The encoder.

        Raises:
            InputError: there is no such folder, or no such encoder in it.
        """
        if not Path(folder).is_dir():
            raise InputError(f"folder={str(folder)!r}: there is no such folder")
        with quiet_host("transformers", "sentence_transformers"):
            # our own module is named in the folder's list of modules; no code of the folder is run
            made = cls(SentenceTransformer(str(folder), device=device, trust_remote_code=True))
        if mode is not None:
            made.pooling.mode = mode
        return made

    def to_sentence_transformer(self, *, pooling: str = "cls", normalize: bool = False) -> SentenceTransformer:
        """Give the encoder as a plain sentence-transformers model, without projection and head.

        Args:
            pooling: One of the host's pooling modes.
            normalize: Whether vectors are brought to length one.

        Returns:
            A model of its own, which saves and loads without this package.
        """
        model, tokenizer = masked_lm(self.host)
        return plain_sentence_transformer(
            model, tokenizer, max_length=self.host.max_seq_length or 512, pooling=pooling, normalize=normalize
        )

    def _blocks(self, texts: Sequence[str], batch_size: int) -> Iterator[tuple[NDArray[np.bool_], Floats, Floats]]:
        """Go through the texts in blocks: which are empty, their dense parts, the scores of all words."""
        checked = checked_texts(texts)
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be at least 1")
        size = batch_size * _BATCHES_AT_ONCE
        width = self._dense_width
        for start in range(0, len(checked), size):
            block = checked[start : start + size]
            empty = np.array([not text.strip() for text in block])
            rows = self.host.encode(block, batch_size=batch_size, show_progress_bar=False, normalize_embeddings=False)
            rows[empty] = 0
            words = (
                rows[:, width:] if self.mode != "cls" else np.zeros((len(rows), self.pooling.vocabulary), rows.dtype)
            )
            yield empty, rows[:, :width], words

    @property
    def _dense_width(self) -> int:
        return 0 if self.mode == "ot" else self.pooling.dense_dim
