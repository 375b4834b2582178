"""The file of a collection that holds its heads: replaced in one step, checked when it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab._core.errors import CollectionError
from embedlab._core.files import atomic_write
from embedlab.search.places import Place
from embedlab.text.aspect_documents.heads import AspectHeads, AspectHeadsError

if TYPE_CHECKING:
    from pyarrow import fs

FILE = "aspects.safetensors"


def read_heads(spot: Place, *, model: str) -> AspectHeads | None:
    """Read the heads of a collection.

    Args:
        spot: Where the collection lies.
        model: Fingerprint of the model that made its vectors.

    Returns:
        The heads; None if there are none.

    Raises:
        CollectionError: the file is damaged, or belongs to another model.
    """
    try:
        if spot.folder is not None:
            data = (spot.folder / FILE).read_bytes()
        else:
            files, base = _filesystem(spot)
            with files.open_input_stream(f"{base}/{FILE}") as stream:
                data = bytes(stream.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CollectionError(f"the aspects of collection {spot.name!r} can't be read: {error}") from error
    try:
        return AspectHeads.from_bytes(data, fingerprint=model, where=f"{FILE} of collection {spot.name!r}")
    except AspectHeadsError as error:
        raise CollectionError(f"{error}; search without aspects works") from error


def write_heads(spot: Place, heads: AspectHeads | None) -> None:
    """Replace the heads of a collection in one step; the caller holds its lock.

    Args:
        spot: Where the collection lies.
        heads: The heads; None removes them.
    """
    if spot.folder is not None and heads is not None:
        atomic_write(spot.folder / FILE, heads.to_bytes())
    elif spot.folder is not None:
        (spot.folder / FILE).unlink(missing_ok=True)
    else:
        files, base = _filesystem(spot)
        if heads is None:
            files.delete_file(f"{base}/{FILE}")
            return
        with files.open_output_stream(f"{base}/{FILE}") as stream:
            stream.write(heads.to_bytes())


def heads_stamp(spot: Place) -> object:
    """Return what changes whenever the heads of a collection do; None if there are none.

    Args:
        spot: Where the collection lies.
    """
    if spot.folder is None:
        files, base = _filesystem(spot)
        found = files.get_file_info(f"{base}/{FILE}")
        return (found.mtime_ns, found.size) if found.is_file else None
    try:
        state = (spot.folder / FILE).stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def _filesystem(spot: Place) -> tuple[fs.FileSystem, str]:
    from pyarrow import fs

    files, base = fs.FileSystem.from_uri(spot.address)
    return files, base
