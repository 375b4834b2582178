"""A codec on disk: ``codec.json`` with settings and checksums, ``parameters.safetensors`` with what was learned."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import EmbedlabError
from embedlab._core.files import atomic_folder, atomic_write
from embedlab.search.codecs.codec import Codec, CodecError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMAT = "embedlab codec 1"


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
        atomic_write(fresh / "codec.json", json.dumps({**record, "sha256": _checksum(record)}, indent=2) + "\n")


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

    try:
        record = json.loads((folder / "codec.json").read_bytes())
        learned = (folder / "parameters.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise CodecError(f"{folder} holds no codec that can be read: {error}") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise CodecError(f"{folder}/codec.json is not of the form {_FORMAT!r}: was it written by a later release?")
    if record.pop("sha256", None) != _checksum(record):
        raise CodecError(f"{folder}/codec.json is damaged: its checksum does not fit; fit and save the codec again")
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


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
