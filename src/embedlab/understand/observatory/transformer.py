"""Embeddings of columns, rows, cells and whole tables out of the hidden states of a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.data.tables import Table
from embedlab.understand.observatory.encoders import ByLevel, largest
from embedlab.understand.observatory.levels import Serialisation, serialise

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Floats = NDArray[np.float64]


class TableEncoder(ByLevel):
    """Embed the objects of tables in their context, with any text encoder of the transformers library.

    A table is written as one text in which every column (row) begins with the model's own mark, ``[CLS] header v1 v2
    .. [CLS] header v1 .. [SEP]``; its embedding is the last hidden state at that mark. A cell's embedding is the mean
    over its tokens. Cells are tokenised one by one, as they would be after a space, so a reordered table has the same
    tokens, and a prefix of rows that fits for one order fits for all.

    Args:
        model: The model, e.g. ``AutoModel.from_pretrained(...)``; it is put into evaluation mode for the call only.
        tokenizer: Its tokenizer.
        max_length: Longest text in tokens, all marks included. (paper: L) Published default 512.
        pooling: ``"mark"`` reads an object at its mark, ``"mean"`` as the mean over its tokens, as the paper does for
            models that know columns. By default the mark, or the mean for models without one (and decoders, whose mark
            sees nothing of what follows).
        batch_size: Tables in one forward pass.
        name: What reports call it.

    Raises:
        InputError: an option has a value that is not allowed.
        MissingExtraError: the extra ``train`` is not installed.

    References:
        Cong et al. (2023), arXiv:2310.07736v1, section 4.2.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int = 512,
        *,
        pooling: Literal["mark", "mean"] | None = None,
        batch_size: int = 16,
        name: str | None = None,
    ) -> None:
        self._torch: Any = require("torch", extra="train")
        if max_length < 3:
            raise InputError(f"max_length={max_length} must be at least 3: a mark, a token and an end")
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} must be at least 1")
        if pooling not in ("mark", "mean", None):
            raise InputError(f"pooling={pooling!r} must be 'mark', 'mean' or None")
        mark = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
        config = model.config
        positions = getattr(config, "max_position_embeddings", None)
        if positions and positions < max_length:
            raise InputError(f"max_length={max_length}: the model has {positions} positions only")
        sees_on = not (getattr(config, "is_decoder", False) or type(model).__name__.startswith("GPT"))
        if pooling == "mark" and mark is None:
            raise InputError("pooling='mark': the tokenizer has neither a CLS nor a BOS token; use 'mean'")
        self.model: Any = model
        self.tokenizer: Any = tokenizer
        self.max_length = max_length
        self.pooling = pooling or ("mark" if tokenizer.cls_token_id is not None and sees_on else "mean")
        self.batch_size = batch_size
        self.name = name or str(getattr(config, "name_or_path", "") or type(model).__name__)
        self._mark: int | None = mark
        self._end: int | None = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
        self._pad: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._known: dict[str, list[int]] = {"": []}

    def embed(self, tables: Sequence[Table], *, level: str) -> list[Floats]:
        """Return for each table one row per object of the level.

        Args:
            tables: The tables; each must fit, see ``num_rows_that_fit``.
            level: ``"column"``, ``"row"``, ``"table"``, ``"cell"`` or a registered name.

        Returns:
            Arrays (objects, D) float64; NaN for an object without any token.

        Raises:
            InputError: a table does not fit into ``max_length`` tokens, or there is no such level.
        """
        inputs = []
        for table in tables:
            written = serialise(table, level=level)
            tokens, owners, marks = self._tokens(written)
            if len(tokens) > self.max_length:
                raise InputError(
                    f"table {table.name!r} takes {len(tokens)} tokens at level {level!r}, max_length is "
                    f"{self.max_length}: take fewer rows (num_rows_that_fit) or fewer columns"
                )
            inputs.append((written, tokens, marks if written.at_mark and self.pooling == "mark" else owners))
        results: list[Floats] = [np.zeros((0, 0))] * len(inputs)
        order = sorted(range(len(inputs)), key=lambda place: len(inputs[place][1]))  # like lengths waste no padding
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            states = self._forward([inputs[place][1] for place in batch])
            for place, hidden in zip(batch, states, strict=True):
                written, tokens, owners = inputs[place]
                results[place] = _pool(hidden[: len(tokens)], owners, written.num_objects)
        return results

    def num_rows_that_fit(self, tables: Sequence[Table], *, level: str) -> int:
        """Return the largest number of leading rows with which every one of these tables fits.

        Args:
            tables: Tables that are to be compared, so that all are cut at the same row.
            level: As in ``embed``.

        Returns:
            The number of rows; 0 if nothing but the headers fits.

        Raises:
            InputError: not even the headers of a table fit.
        """

        def size(table: Table, rows: int) -> int:
            return len(self._tokens(serialise(table.head(rows), level=level))[0])

        for table in tables:
            if (bare := size(table, 0)) > self.max_length:
                raise InputError(
                    f"table {table.name!r} has {table.num_columns} columns whose headers alone take {bare} tokens, "
                    f"max_length is {self.max_length}: leave columns out (Table.take_columns)"
                )
        most = min((table.num_rows for table in tables), default=0)
        return largest(most, lambda rows: all(size(table, rows) <= self.max_length for table in tables))

    def _tokens(self, written: Serialisation) -> tuple[list[int], NDArray[np.intp], NDArray[np.intp]]:
        """Token ids, the object each token is text of, and the object each token is the mark of (-1 for none)."""
        tokens: list[int] = []
        owners: list[int] = []
        marks: list[int] = []
        for text, owner in written.pieces:
            ids = ([] if self._mark is None else [self._mark]) if text is None else self._ids(text)
            tokens += ids
            owners += [-1 if text is None else owner] * len(ids)
            marks += [owner if text is None else -1] * len(ids)
        if self._end is not None:
            tokens.append(self._end)
            owners.append(-1)
            marks.append(-1)
        return tokens, np.array(owners, dtype=np.intp), np.array(marks, dtype=np.intp)

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            found = self.tokenizer(" " + text, add_special_tokens=False, truncation=False, verbose=False)
            self._known[text] = list(found["input_ids"])
        return self._known[text]

    def _forward(self, texts: list[list[int]]) -> Floats:
        """Last hidden states of a batch, (B, T, D)."""
        torch, device = self._torch, self.model.device
        width = max(1, *map(len, texts))
        ids = torch.tensor([text + [self._pad] * (width - len(text)) for text in texts], device=device)
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts], device=device)
        more = {"decoder_input_ids": ids, "decoder_attention_mask": mask}
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                asked = more if hasattr(self.model, "decoder") and self.model.config.is_encoder_decoder else {}
                states = self.model(input_ids=ids, attention_mask=mask, **asked).last_hidden_state
        finally:
            self.model.train(was_training)
        return np.asarray(states.float().cpu().numpy(), dtype=np.float64)


def random_weights(model: PreTrainedModel, *, seed: int = 0) -> PreTrainedModel:
    """Make a model of the same shape that has learned nothing: the negative control.

    Args:
        model: The model to imitate; it is left alone.
        seed: Decides the weights.

    Returns:
        A new model, on the CPU in evaluation mode.

    Raises:
        MissingExtraError: the extra ``train`` is not installed.
    """
    torch = require("torch", extra="train")
    with torch.random.fork_rng(devices=[]):  # the host draws its weights from the global state
        torch.manual_seed(seed)
        fresh: Any = type(model)(model.config)
    made: PreTrainedModel = fresh.eval()
    return made


def _pool(hidden: Floats, owners: NDArray[np.intp], num_objects: int) -> Floats:
    """Mean of the states of each object, (T, D) and (T,) -> (objects, D)."""
    kept = owners >= 0
    sums, counts = np.zeros((num_objects, hidden.shape[1])), np.bincount(owners[kept], minlength=num_objects)
    np.add.at(sums, owners[kept], hidden[kept])
    return np.asarray(np.divide(sums, counts[:, None], out=np.full(sums.shape, np.nan), where=counts[:, None] > 0))
