"""The half of a collection that neither writes nor searches: what it holds, read in bulk."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedlab.search import contents
from embedlab.search.records import DocumentInfo, PassageInfo
from embedlab.search.store import Store


class Holdings(ABC):
    """Vectors, passages and documents of a collection."""

    @abstractmethod
    def _tables(self) -> Store:
        """Return the open tables."""

    def vectors(self, ids: Sequence[str] | None = None) -> tuple[list[str], NDArray[np.float32]]:
        """Return passage ids and their vectors.

        Args:
            ids: The passages wanted; None for all, in storage order.

        Returns:
            Ids (N,) and vectors (N, D) float32, row by row.

        Raises:
            InputError: there is no passage of that id.
        """
        return contents.vectors(self._tables(), ids)

    def passages(self, *, filter: str | None = None, limit: int | None = None) -> Iterator[PassageInfo]:  # noqa: A002
        """Yield the passages as they are stored.

        Args:
            filter: SQL condition as for ``search``.
            limit: Most passages to yield; None for all.
        """
        return contents.passages(self._tables(), filter, limit)

    def documents(self, *, filter: str | None = None, limit: int | None = None) -> list[DocumentInfo]:  # noqa: A002
        """Return the documents, sorted by source.

        Args:
            filter: SQL condition as for ``search``.
            limit: Most documents to return; None for all.
        """
        return contents.documents(self._tables(), filter, limit)

    def __len__(self) -> int:
        """Return the number of passages."""
        return int(self._tables().passages.count_rows("content != ''"))

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all passages with their vectors to a Parquet file, which appears when it is whole.

        Args:
            path: The file to write; an existing one is replaced.

        Returns:
            Number of passages written.
        """
        return contents.export(self._tables(), Path(path))
