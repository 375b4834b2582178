"""The column of codes: what the table itself says about it, and where the codec it names lies.

``_code`` stands beside the vectors, or instead of them. Its metadata name the codec, the model and the number of
candidates to verify, so the schema of a version says all there is to know about that version, and one commit switches.
A row whose vector is zero has no code: it is near to nothing. Names that begin with an underscore are never those of
metadata columns.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import CollectionError
from embedlab.search.places import copy_folder, is_uri

if TYPE_CHECKING:
    import pyarrow as pa

    from embedlab.search.codecs import Codec

CODE = "_code"
PENDING = "_pending"  # being written: nothing reads it
FORMER = "_former"  # replaced a moment ago: nothing reads it any more
_MADE_AGAIN = 64  # of each batch
_KEYS = ("codec", "model", "verify")


@dataclass(frozen=True, slots=True)
class CodeColumn:
    """What a column of codes says about itself.

    Args:
        codec: Fingerprint of the codec.
        model: Fingerprint of the model whose vectors were encoded.
        verify: How many candidates are scored again by their vectors; 0 for none.
        bytes_per_vector: Bytes of one code.
    """

    codec: str
    model: str
    verify: int
    bytes_per_vector: int

    @classmethod
    def of(cls, schema: pa.Schema, name: str = CODE) -> CodeColumn | None:
        """Read it from the schema of a version of the table.

        Args:
            schema: The schema.
            name: The column.

        Returns:
            What is said; None if there is no such column.
        """
        if name not in schema.names:
            return None
        field = schema.field(name)
        said = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        return cls(said.get("codec", ""), said.get("model", ""), int(said.get("verify", 0)), field.type.list_size)

    def field(self, name: str = CODE) -> pa.Field:
        """Return the column's field.

        Args:
            name: Name of the column.

        Returns:
            The field, with everything said in its metadata.
        """
        import pyarrow as pa

        said = {key: str(getattr(self, key)) for key in _KEYS}
        return pa.field(name, pa.list_(pa.uint8(), self.bytes_per_vector), metadata=said)


def codec_folder(address: str, fingerprint: str) -> str:
    """Return where a collection keeps a codec.

    Args:
        address: Folder or URI of the collection.
        fingerprint: The codec's.

    Returns:
        The folder, as a path or URI.
    """
    return f"{address}/codecs/{fingerprint.replace(':', '-')}"


def save_codec(codec: Codec, address: str) -> None:
    """Keep a codec with a collection; one of the same fingerprint that is there already is replaced by the same.

    Args:
        codec: The codec, fitted.
        address: Folder or URI of the collection.
    """
    target = codec_folder(address, codec.fingerprint)
    if not is_uri(address):
        codec.save(Path(target))
        return
    with tempfile.TemporaryDirectory() as folder:
        codec.save(Path(folder) / "codec")
        copy_folder(f"{folder}/codec", target)


def forget_codecs(address: str, *, keep: set[str]) -> None:
    """Delete codecs that nothing uses any more; on object storage they stay.

    Args:
        address: Folder or URI of the collection.
        keep: Fingerprints of those that stay.
    """
    folder = Path(f"{address}/codecs")
    if is_uri(address) or not folder.is_dir():
        return
    names = {Path(codec_folder(address, fingerprint)).name for fingerprint in keep}
    for found in folder.iterdir():
        if found.name not in names:
            shutil.rmtree(found, ignore_errors=True)


def open_codec(column: CodeColumn, address: str, *, name: str, dim: int, model: str) -> Codec:
    """Load the codec of a column of codes, if it can be the one that made them.

    Args:
        column: What the column says.
        address: Folder or URI of the collection.
        name: Name of the collection, for what is said when something is wrong.
        dim: Width of the collection's vectors.
        model: Fingerprint of the model whose vectors the collection holds; empty if that is not known.

    Returns:
        The codec.

    Raises:
        CollectionError: it is missing, damaged, or not that of these codes.
    """
    from embedlab.search.codecs import CodecError, load_codec

    where = codec_folder(address, column.codec)
    try:
        if is_uri(address):
            with tempfile.TemporaryDirectory() as folder:
                copy_folder(where, f"{folder}/codec")
                codec = load_codec(Path(folder) / "codec")
        else:
            codec = load_codec(where)
    except (CodecError, OSError) as error:
        raise broken(name, str(error)) from error
    if codec.fingerprint != column.codec:
        raise broken(name, f"the codec at {where} is {codec.fingerprint}, the codes are of {column.codec}")
    if (codec.dim, codec.bytes_per_vector) != (dim, column.bytes_per_vector):
        raise broken(
            name,
            f"the codec is for vectors of {codec.dim} dimensions in {codec.bytes_per_vector} bytes, the collection has "
            f"{dim} dimensions and codes of {column.bytes_per_vector} bytes",
        )
    if model and column.model != model:
        raise broken(name, f"the codes are of vectors of model {column.model}, the collection's model is {model}")
    return codec


def broken(name: str, reason: str) -> CollectionError:
    """Build the error for codes that can't be used.

    Args:
        name: Name of the collection.
        reason: What is wrong.

    Returns:
        The error: what is wrong, what still works, what to do.
    """
    return CollectionError(
        f"the codes of collection {name!r} can't be used: {reason}. Search by words (mode 'lexical') still works; "
        f"`embedlab doctor {name} --repair` makes its vectors searchable again"
    )


def codes_array(codec: Codec, vectors: NDArray[np.float32]) -> pa.Array:
    """Encode vectors for storing.

    Args:
        codec: The codec.
        vectors: Vectors (N, D) as they are stored; a zero row gets no code.

    Returns:
        The column (N,).
    """
    import pyarrow as pa

    there = vectors.any(axis=1)
    codes = np.zeros((len(vectors), codec.bytes_per_vector), np.uint8)
    if there.any():
        codes[there] = codec.encode(vectors[there])
    return pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codec.bytes_per_vector, mask=pa.array(~there))


def codes_of(column: Any, bytes_per_vector: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a column of codes as a matrix.

    Args:
        column: The column, chunked.
        bytes_per_vector: Bytes of one code.

    Returns:
        Codes (N, B), zeros where there is none, and whether there is one (N,).
    """
    codes = np.zeros((len(column), bytes_per_vector), np.uint8)
    there = np.zeros(len(column), np.bool_)
    at = 0
    for chunk in column.chunks:
        part = slice(at, at + len(chunk))
        there[part] = chunk.is_valid().to_numpy(zero_copy_only=False)
        codes[part][there[part]] = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, bytes_per_vector)
        at += len(chunk)
    return codes, there


def in_step(codec: Codec, codes: NDArray[np.uint8], there: NDArray[np.bool_], vectors: NDArray[np.float32]) -> bool:
    """Tell whether codes are those of vectors: one for each that is not zero, and some of them made again.

    Args:
        codec: The codec.
        codes: Codes (N, B).
        there: Whether there is one (N,).
        vectors: The vectors (N, D).

    Returns:
        Whether they are.
    """
    if not np.array_equal(there, vectors.any(axis=1)):
        return False
    some = np.flatnonzero(there)
    some = some[:: max(1, len(some) // _MADE_AGAIN)]
    return bool(np.array_equal(codes[some], codec.encode(vectors[some])))


def vectors_from(codec: Codec, column: Any) -> NDArray[np.float32]:
    """Decode a column of codes.

    Args:
        codec: The codec.
        column: The column, chunked.

    Returns:
        Vectors (N, D); zero where there is no code.
    """
    codes, there = codes_of(column, codec.bytes_per_vector)
    vectors = np.zeros((len(codes), codec.dim), np.float32)
    if there.any():
        vectors[there] = codec.decode(codes[there])
    return vectors
