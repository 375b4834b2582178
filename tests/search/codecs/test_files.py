"""What is saved comes back to the last bit, and nothing else is ever taken for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab.search.codecs import Codec, CodecError, load_codec, make_codec, open_codes, save_codes
from embedlab.search.codecs.files import _with_checksum

Floats = NDArray[np.float32]


@pytest.fixture
def codec(documents: Floats) -> Codec:
    return make_codec("rotation", 64, bits=2).fit(documents)


@pytest.fixture
def saved(codec: Codec, tmp_path: Path) -> Path:
    codec.save(tmp_path / "codec")
    return tmp_path / "codec"


def restate(folder: Path, **changes: Any) -> None:
    """Change the record and make its checksum fit, as a program of another version would."""
    path = folder / "codec.json"
    record = {**json.loads(path.read_text()), **changes}
    del record["sha256"]
    path.write_text(_with_checksum(record))


def test_fingerprints_tell_settings_and_parameters_apart(documents: Floats) -> None:
    made = [
        make_codec("rotation", 64, bits=2),
        make_codec("rotation", 64, bits=2, seed=1),
        make_codec("rotation", 64, bits=4),
        make_codec("binary", 64),
    ]
    prints = [codec.fit(documents).fingerprint for codec in made]
    assert len(set(prints)) == 4
    assert make_codec("rotation", 64, bits=2).fit(documents).fingerprint == prints[0]
    assert prints[0].startswith("rotation:")
    assert make_codec("int8", 64).fit(documents).fingerprint != make_codec("int8", 64).fit(2 * documents).fingerprint


def test_a_codec_can_be_replaced(codec: Codec, saved: Path, documents: Floats) -> None:
    make_codec("int8", 64).fit(documents).save(saved)
    assert load_codec(saved).name == "int8"
    assert sorted(path.name for path in saved.parent.iterdir()) == ["codec"]


@pytest.mark.parametrize("file", ["codec.json", "parameters.safetensors"])
def test_damage_is_seen(saved: Path, file: str) -> None:
    whole = (saved / file).read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 3):
        (saved / file).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CodecError, match=str(saved)):
            load_codec(saved)
    (saved / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CodecError, match=str(saved)):
        load_codec(saved)
    (saved / file).unlink()
    with pytest.raises(CodecError, match=str(saved)):
        load_codec(saved)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    for content in (b"", b"[]", b"{}", b"\x80\x04N.", b'{"format": "faiss"}', b'{"format": "embedlab codec 1"}'):
        (folder / "codec.json").write_bytes(content)
        (folder / "parameters.safetensors").write_bytes(content)
        with pytest.raises(CodecError):
            load_codec(folder)
    with pytest.raises(CodecError, match="nowhere"):
        load_codec(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 99}, "version 99"),
        ({"name": "rotatoin"}, "did you mean 'rotation'"),
        ({"settings": {"bits": 7}}, "bits=7"),
        ({"settings": {"colour": 1}}, "colour"),
        ({"dim": 32}, "is stated"),
        ({"dim": "64"}, "m='64'"),
        ({"fingerprint": "rotation:0"}, "is stated"),
        ({"settings": None}, "cannot be opened"),
    ],
)
def test_what_does_not_fit_together_is_refused(saved: Path, changes: dict[str, Any], says: str) -> None:
    restate(saved, **changes)
    with pytest.raises(CodecError, match=says):
        load_codec(saved)


def test_codes_come_back_with_their_codec_only(codec: Codec, documents: Floats, tmp_path: Path) -> None:
    codes = codec.encode(documents)
    save_codes(tmp_path / "codes", codes, codec=codec)
    mapped = open_codes(tmp_path / "codes", codec=codec)
    assert np.array_equal(mapped, codes)
    assert isinstance(mapped, np.memmap)
    others = [
        make_codec("rotation", 64, bits=2, seed=1).fit(documents),  # trained anew: same bytes, other meaning
        make_codec("rotation", 64, bits=4).fit(documents),
        make_codec("rotation", 64, bits=2),
    ]
    for other in others:
        with pytest.raises(CodecError, match="were made by rotation:"):
            open_codes(tmp_path / "codes", codec=other)
    for wrong in (codes[:, 1:], codes.astype(np.int16), codes[0]):
        with pytest.raises(CodecError, match=r"stores uint8 of shape \(N, 18\)"):
            codec.scanner(wrong)
        with pytest.raises(CodecError):
            save_codes(tmp_path / "more", wrong, codec=codec)


def test_damaged_codes_are_seen(codec: Codec, documents: Floats, tmp_path: Path) -> None:
    save_codes(tmp_path / "codes", codec.encode(documents), codec=codec)
    path = tmp_path / "codes" / "codes.npy"
    whole = path.read_bytes()
    for content in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-100], b"", b"\x93NUMPY", whole[1:]):
        path.write_bytes(content)
        with pytest.raises(CodecError, match="codes"):
            open_codes(tmp_path / "codes", codec=codec)
    shutil.rmtree(tmp_path / "codes")
    with pytest.raises(CodecError, match="codes"):
        open_codes(tmp_path / "codes", codec=codec)
