"""Full vectors on disk, read row by row: bounded memory, and every read counted."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import EmbedlabError, InputError

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)  # Linux: read what is in memory, and say so when it is not


class TwoStageError(EmbedlabError):
    """The files of a two-stage index are missing, damaged, or of different indexes."""


class VectorStore(Protocol):
    """Vectors by row number.

    Attributes:
        dim: Width of the vectors.
        reads: Rows read so far.
        bytes_read: Bytes of these rows.
        disk_reads: Rows that were not in the system's page cache; -1 where nobody can tell.
    """

    dim: int
    reads: int
    bytes_read: int
    disk_reads: int

    def __len__(self) -> int: ...

    def read(self, rows: Rows) -> Floats:
        """Read some rows.

        Args:
            rows: Their numbers (n,).

        Returns:
            The vectors (n, D) in the same order.
        """
        ...


class VectorFile:
    """Rows of an ``.npy`` file (N, D) of float32 or float16.

    Rows are read one by one into one buffer, so the process holds no more than what was asked for; a memory map would
    count whatever was touched. What is not in the page cache is announced to the system first and read afterwards, so
    that the disk works on all rows at once instead of one after the other.

    Args:
        path: The file.

    Raises:
        TwoStageError: there is no such file, or it is no such array.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise TwoStageError(f"{path}: the file of full vectors is missing; build the index again") from error
        except (OSError, ValueError, EOFError) as error:
            raise TwoStageError(f"{path} is no npy file that can be read, or is cut short: {error}") from error
        plain = isinstance(mapped, np.memmap) and mapped.ndim == 2 and mapped.flags["C_CONTIGUOUS"]
        if not plain or mapped.dtype not in (np.float32, np.float16):
            raise TwoStageError(f"{path} holds {mapped.dtype} of {mapped.shape}: expected rows of float32 or float16")
        self._count, self.dim = mapped.shape
        self.dtype, self._start = mapped.dtype, mapped.offset
        self.row_bytes = self.dim * self.dtype.itemsize
        self.reads = self.bytes_read = self.disk_reads = 0
        self._file = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)  # neighbours of a row are of no use
        if not _NOWAIT:
            self.disk_reads = -1

    def __len__(self) -> int:
        return int(self._count)

    def read(self, rows: Rows) -> Floats:
        """Read some rows.

        Args:
            rows: Their numbers (n,), in any order.

        Returns:
            The vectors (n, D) in the same order, float32.

        Raises:
            InputError: there is no such row.
            TwoStageError: the file has become shorter.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise InputError(f"rows from {rows.min()} to {rows.max()}: the file has {len(self)}")
        found = np.empty((len(rows), self.dim), self.dtype)
        buffer = memoryview(found.view(np.uint8).reshape(-1))  # type: ignore[arg-type]
        offsets = (self._start + rows * self.row_bytes).tolist()
        missing = self._fill(buffer, offsets, range(len(rows)), _NOWAIT) if _NOWAIT else list(range(len(rows)))
        if missing and hasattr(os, "posix_fadvise"):
            for place in missing:
                os.posix_fadvise(self._file, offsets[place], self.row_bytes, os.POSIX_FADV_WILLNEED)
        if self._fill(buffer, offsets, missing, 0):
            raise TwoStageError(f"{self.path} has become shorter while it was in use; build the index again")
        self.reads += len(rows)
        self.bytes_read += found.nbytes
        if _NOWAIT:
            self.disk_reads += len(missing)
        return found.astype(np.float32, copy=False)

    def _fill(self, buffer: memoryview, offsets: list[int], places: Any, flags: int) -> list[int]:
        """Read rows into their places; return the places that stayed empty."""
        size, file, missing = self.row_bytes, self._file, []
        for place in places:
            try:
                if os.preadv(file, [buffer[place * size : (place + 1) * size]], offsets[place], flags) == size:
                    continue
            except OSError:  # not in memory (EAGAIN), or a file system that cannot tell (EOPNOTSUPP)
                if not flags:
                    raise
            missing.append(place)
        return missing


class VectorTable:
    """Rows of a LanceDB table with a column ``row``, numbered from 0 in the order of the codes, and ``vector``.

    Args:
        table: The table, as ``lancedb.connect(folder).open_table(name)`` gives it.

    Raises:
        TwoStageError: a column is missing or of another type.
    """

    def __init__(self, table: Any) -> None:
        import pyarrow as pa

        schema = table.schema
        if "row" not in schema.names or "vector" not in schema.names:
            raise TwoStageError(f"the table {table.name!r} has columns {schema.names}: expected 'row' and 'vector'")
        kind = schema.field("vector").type
        if not pa.types.is_fixed_size_list(kind):
            raise TwoStageError(f"column 'vector' of {table.name!r} is {kind}: expected vectors of one width")
        self.table, self.dim, self._count = table, int(kind.list_size), int(table.count_rows())
        self._row_bytes = self.dim * kind.value_type.bit_width // 8
        self.reads = self.bytes_read = 0
        self.disk_reads = -1

    def __len__(self) -> int:
        return self._count

    def read(self, rows: Rows) -> Floats:
        """Read some rows.

        Args:
            rows: Their numbers (n,), in any order.

        Returns:
            The vectors (n, D) in the same order, float32.

        Raises:
            TwoStageError: the table's rows are not those that were indexed.
        """
        if not len(rows):
            return np.empty((0, self.dim), np.float32)
        order = np.argsort(rows)
        taken = self.table.take_offsets(rows[order].tolist()).select(["row", "vector"]).to_arrow()
        numbers = taken["row"].to_numpy()
        back = np.argsort(numbers)
        if not np.array_equal(numbers[back], rows[order]):
            raise TwoStageError(
                f"the table {self.table.name!r} is not the one that was indexed: its rows have moved or were deleted; "
                "build the index again"
            )
        flat = taken["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        found = np.empty((len(rows), self.dim), np.float32)
        found[order] = flat.reshape(-1, self.dim)[back]
        self.reads += len(rows)
        self.bytes_read += len(rows) * self._row_bytes
        return found


def open_vectors(place: str | Path | Any) -> VectorStore:
    """Open full vectors wherever they lie.

    Args:
        place: Path of an ``.npy`` file, a LanceDB table, or something that is a ``VectorStore`` already.

    Returns:
        The store.

    Raises:
        TwoStageError: what is there cannot be used.
    """
    if isinstance(place, str | Path):
        return VectorFile(place)
    return VectorTable(place) if hasattr(place, "take_offsets") else place
