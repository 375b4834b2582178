"""Bytes to text: encodings told, guessed and mixed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedlab.data.limits import Refused
from embedlab.data.text import decode, whole_characters

GERMAN = "Größere Übungen für Anfänger beginnen später."
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. Широкая электрификация южных губерний. " * 3
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 3


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs", "Cc"])))
def test_utf8_is_exact(text: str) -> None:
    assert decode(text.encode()) == (text.removeprefix("\ufeff"), "utf-8")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_with_and_without_mark(encoding: str) -> None:
    text = "Plain enough to guess — with a dash."
    assert decode(text.encode(encoding))[0] == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(GERMAN, "cp1252"), ("un été à la française", "latin-1"), (RUSSIAN, "cp1251"), (JAPANESE, "cp932")],
)
def test_legacy_encodings_are_guessed(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding))[0] == text


def test_declared_encoding_decides_where_letters_cannot() -> None:
    assert decode("žlutý".encode("iso8859-2"), "iso-8859-2") == ("žlutý", "iso8859-2")
    assert decode("été".encode("latin-1") + b" text", "no-such-encoding")[0] == "été text"


def test_stray_bytes_in_utf8_are_read_one_by_one() -> None:
    assert decode(GERMAN.encode() + " “naïve”".encode("cp1252")) == (GERMAN + " “naïve”", "utf-8")


@pytest.mark.parametrize(
    "data", [bytes(range(256)), b"\x7fELF\x02\x01\x01\0\0\0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"text\0"]
)
def test_binary_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match="binary data"):
        decode(data)


def test_cut_off_utf16_is_read_as_far_as_it_goes() -> None:
    assert decode("abc".encode("utf-16")[:-1])[0] == "ab\ufffd"


@given(st.text())
def test_whole_characters_can_be_stored(text: str) -> None:
    whole = whole_characters(text)
    assert len(whole) == len(text)
    whole.encode()
