"""Codecs and codes on disk, with checksums, and with the fingerprint that ties the ones to the other.

A codec is a folder: ``codec.json`` with its settings, ``parameters.safetensors`` with what was learned. Codes are a
folder too: ``codes.npy``, which can be mapped into memory, and ``codes.json``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab._core.errors import EmbedlabError
from embedlab._core.files import atomic_folder, atomic_write
from embedlab.search.codecs.codec import Codec, CodecError, Codes

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMAT, _CODES_FORMAT = "embedlab codec 1", "embedlab codes 1"


def write_codec(codec: Codec, folder: Path) -> None:
    """Write a fitted codec.

    Args:
        codec: The codec.
        folder: Where to; replaced in one step if it is there.
    """
    from safetensors.numpy import save

    learned = save(codec.parameters)
    record = {
        "format": _FORMAT,
        "name": codec.name,
        "version": codec.version,
        "dim": codec.dim,
        "settings": codec.settings,
        "bytes_per_vector": codec.bytes_per_vector,
        "fingerprint": codec.fingerprint,
        "parameters_sha256": hashlib.sha256(learned).hexdigest(),
    }
    with atomic_folder(folder) as fresh:
        atomic_write(fresh / "parameters.safetensors", learned)
        atomic_write(fresh / "codec.json", _with_checksum(record))


def read_codec(folder: Path) -> Codec:
    """Read a codec back.

    Args:
        folder: What ``write_codec`` has written.

    Returns:
        The codec.

    Raises:
        CodecError: anything is missing, damaged or not known here.
    """
    from safetensors.numpy import load

    from embedlab.search.codecs.registry import build, find

    record = _read_record(folder / "codec.json", _FORMAT)
    try:
        learned = (folder / "parameters.safetensors").read_bytes()
    except OSError as error:
        raise CodecError(f"{folder} holds no codec that can be read: {error}") from error
    if hashlib.sha256(learned).hexdigest() != record["parameters_sha256"]:
        raise CodecError(f"{folder}/parameters.safetensors is damaged: its checksum does not fit; save the codec again")
    try:
        version = find(record["name"]).version
        if version != record["version"]:
            raise CodecError(
                f"{folder} is version {record['version']} of the {record['name']} codec, this is {version}"
            )
        codec = build(record["name"], record["dim"], record["settings"])
        codec._adopt(load(learned))
    except CodecError:
        raise
    except (EmbedlabError, KeyError, TypeError, ValueError) as error:
        raise CodecError(f"the codec in {folder} cannot be opened: {error}") from error
    if (codec.fingerprint, codec.bytes_per_vector) != (record["fingerprint"], record["bytes_per_vector"]):
        raise CodecError(f"{folder}: parameters of {codec.fingerprint}, {record['fingerprint']} is stated")
    return codec


def save_codes(folder: str | Path, codes: Codes, *, codec: Codec) -> None:
    """Write codes to a folder, in one step.

    Args:
        folder: The folder; one that is there is replaced.
        codes: Codes (N, B).
        codec: The codec that made them.

    Raises:
        CodecError: these are no codes of this codec.
    """
    codes = np.ascontiguousarray(codec.checked_codes(codes))
    record = {
        "format": _CODES_FORMAT,
        "fingerprint": codec.fingerprint,
        "shape": list(codes.shape),
        "codes_sha256": hashlib.sha256(codes.data).hexdigest(),
    }
    with atomic_folder(folder) as fresh:
        np.save(fresh / "codes.npy", codes)
        atomic_write(fresh / "codes.json", _with_checksum(record))


def open_codes(folder: str | Path, *, codec: Codec, check: bool = True) -> Codes:
    """Map codes that ``save_codes`` has written into memory.

    Args:
        folder: The folder.
        codec: The codec that shall read them.
        check: Whether to read all of them once and compare their checksum.

    Returns:
        Codes (N, B), read-only, not yet in memory.

    Raises:
        CodecError: they are missing, damaged, or were made by another codec, or by this one before it was trained anew.
    """
    place = Path(folder)
    record = _read_record(place / "codes.json", _CODES_FORMAT)
    if record["fingerprint"] != codec.fingerprint:
        raise CodecError(
            f"the codes in {place} were made by {record['fingerprint']}, not by {codec.fingerprint or 'a fitted one'}: "
            f"open them with the codec that made them, or encode the vectors again"
        )
    try:
        codes = np.load(place / "codes.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise CodecError(f"{place} holds no codes that can be read: {error}") from error
    codes = codec.checked_codes(codes)
    if list(codes.shape) != record["shape"] or (
        check and hashlib.sha256(codes.data).hexdigest() != record["codes_sha256"]
    ):
        raise CodecError(f"{place}/codes.npy is damaged: its checksum does not fit; encode the vectors again")
    return codes


def _read_record(path: Path, form: str) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CodecError(f"{path} cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("format") != form:
        raise CodecError(f"{path} is not of the form {form!r}: was it written by a later release?")
    if record.pop("sha256", None) != _checksum(record):
        raise CodecError(f"{path} is damaged: its checksum does not fit; save it again")
    return record


def _with_checksum(record: Mapping[str, Any]) -> str:
    return json.dumps({**record, "sha256": _checksum(record)}, indent=2) + "\n"


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
