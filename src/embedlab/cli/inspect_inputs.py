"""What `embedlab inspect` can look at: collections, and files of vectors or texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedlab.models import Encoder
    from embedlab.understand.inspection import Space


def read_space(what: str, texts: Path | None, labels: str | None, made_by: str | None) -> tuple[Space, Encoder | None]:
    """Read what `embedlab inspect` was given.

    Args:
        what: Name of a collection, or a file ending in .npy, .parquet or .txt.
        texts: Texts of a .npy file, one per line.
        labels: File of labels, or a column.
        made_by: Model that made the vectors of a file, or that is to embed the lines of a text file.

    Returns:
        The space, and the encoder if it had to be loaded.

    Raises:
        InputError: a file is missing or can't be used, or something does not go with it.
    """
    from embedlab._core.errors import InputError
    from embedlab.understand.inspection import Space

    path = Path(what)
    kind = path.suffix.lower()
    if kind not in (".npy", ".parquet", ".txt"):
        if texts is not None:
            raise InputError(f"texts={str(texts)!r}: only a .npy file needs them; {what!r} is read as a collection")
        return _collection(what, labels), None
    if not path.is_file():
        raise InputError(f"there is no file {what!r}")
    if kind == ".parquet":
        return _parquet(path, labels, made_by), None
    named = None if labels is None else _lines(Path(labels))
    if kind == ".txt":
        from embedlab.models import load_model

        lines = _lines(path)
        encoder = load_model(made_by or "default")
        vectors = encoder.encode_document(lines)
        return Space(vectors, name=path.name, texts=lines, labels=named, model=encoder.name), encoder
    told = None if texts is None else _lines(texts)
    return Space(_npy(path), name=path.name, texts=told, labels=named, model=made_by), None


def _npy(path: Path) -> NDArray[Any]:
    import numpy as np

    from embedlab._core.errors import InputError

    try:
        with path.open("rb") as file:
            start = file.read(6)
        if start[:2] == b"PK":
            raise InputError(f"{path} holds several arrays: save one matrix with numpy.save")
        if start != b"\x93NUMPY":
            raise InputError(f"{path} is no .npy file: save the matrix with numpy.save")
        loaded: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is no .npy file of numbers (files with Python objects are not opened): {error}"
        ) from error
    return loaded


def _parquet(path: Path, labels: str | None, made_by: str | None) -> Space:
    """Read columns ``vector`` and, if they are there, ``text``, ``id`` and one of labels."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from embedlab._core.errors import InputError
    from embedlab.understand.inspection import Space

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} can't be read as Parquet: {error}") from error
    with file:
        names = file.schema_arrow.names
        if "vector" not in names:
            raise InputError(f"{path} has no column 'vector': it has {', '.join(names)}")
        if labels is not None and labels not in names:
            raise InputError(f"{path} has no column {labels!r} for labels: it has {', '.join(names)}")
        wanted = [name for name in dict.fromkeys(("vector", "text", "id", labels)) if name in names]
        table = file.read(columns=wanted)
    rows = table["vector"].combine_chunks()
    kind = rows.type
    if not pa.types.is_list(kind) and not pa.types.is_fixed_size_list(kind) and not pa.types.is_large_list(kind):
        raise InputError(f"{path}: column 'vector' holds {kind}, not lists of numbers")
    widths = set(rows.value_lengths().to_pylist())
    if len(widths) != 1 or None in widths:
        raise InputError(
            f"{path}: column 'vector' must hold lists of one length, got lengths {sorted(map(str, widths))}"
        )
    flat = rows.flatten().to_numpy(zero_copy_only=False)
    columns = {name: [str(value) for value in table[name].to_pylist()] for name in wanted if name != "vector"}
    return Space(
        np.asarray(flat).reshape(len(rows), -1),
        name=path.name,
        texts=columns.get("text"),
        ids=columns.get("id"),
        labels=None if labels is None else columns[labels],
        model=made_by,
    )


def _collection(name: str, labels: str | None) -> Space:
    from embedlab._core.errors import InputError
    from embedlab.search import Collection
    from embedlab.understand.inspection import Space

    collection = Collection.open(name)
    ids, vectors = collection.vectors()
    passages = {passage.id: passage for passage in collection.passages()}
    rows = [row for row, each in enumerate(ids) if each in passages]
    if not rows:
        raise InputError(f"collection {collection.name!r} holds no passages: add documents with `embedlab index`")
    found = [passages[ids[row]] for row in rows]
    named = None
    if labels is not None:
        values = [passage.metadata.get(labels, getattr(passage, labels, None)) for passage in found]
        if all(value is None for value in values):
            raise InputError(f"labels={labels!r}: no passage has that; take a column that `embedlab info` lists")
        named = ["none" if value is None else str(value) for value in values]
    return Space(
        vectors[rows],
        name=collection.name,
        texts=[passage.text for passage in found],
        ids=[passage.source for passage in found],
        labels=named,
        model=collection.model,
    )


def _lines(path: Path) -> list[str]:
    """Read a file of one entry per line; empty lines count, so that line and row stay together."""
    from embedlab._core.errors import InputError
    from embedlab.cli.text_files import read_utf8

    content = read_utf8(path)
    lines = content.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise InputError(f"{path} is empty: give one entry per line")
    return lines
