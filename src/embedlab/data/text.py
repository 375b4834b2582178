"""From bytes to text: byte order marks, legacy encodings, mixed encodings, and binary data that poses as text."""

from __future__ import annotations

import codecs
import re

from embedlab.data.limits import Refused

_MARKS = (  # the longer first: the mark of UTF-32-LE begins with that of UTF-16-LE
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 1 << 15
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_UTF8_SEQUENCE = re.compile(b"[\xc2-\xf4][\x80-\xbf]+")
_BEYOND_ASCII = re.compile("[^\x00-\x7f]")
_LETTER = re.compile(r"[^\W\d_]")
_WESTERN = re.compile("[À-ÖØ-öø-ÿŒœŠšŽžŸ‘’“”‚„–—…•€£§©®°«»¿¡ªº²³´·\xa0\xad]")
_EASTERN = re.compile("[a-z][ðþ³¹¿¼¾][a-z]|[ðþ]{2}|ý[a-z]*ý")  # Turkish or Polish letters, read as Windows-1252
_NEVER_UNMARKED = ["utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be", "utf_7"]
_BINARY = "this is binary data under the ending of a text file"


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """Decode the bytes of a text file.

    A byte order mark decides; then UTF-8; then what the file declares; then what its letters look like. UTF-8 with
    stray bytes in it, as left by joining files, stays UTF-8, and the stray bytes are read as Windows-1252.

    Args:
        data: The whole file.
        declared: Encoding named by the file itself, e.g. in an HTML header.

    Returns:
        The text without its mark, and the name of the encoding.

    Raises:
        Refused: the bytes are not text.

    Example:
        >>> decode("größer".encode("utf-16"))
        ('größer', 'utf-16-le')
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace"), encoding
    if b"\0" in data:
        return _decode_unmarked_utf16(data)
    try:
        text, encoding = data.decode(), "utf-8"
    except UnicodeDecodeError as error:
        text, encoding = _decode_legacy(data, error.start, declared)
    sample = text[:_SAMPLE]
    if len(_CONTROLS.findall(sample)) > len(sample) // 20:
        raise Refused(_BINARY)
    return text, encoding


def whole_characters(text: str) -> str:
    """Put U+FFFD for halves of surrogate pairs, which JSON and PDF can hold but no UTF-8 store accepts.

    Args:
        text: Any text.

    Returns:
        A text of the same length that can be encoded.
    """
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _decode_unmarked_utf16(data: bytes) -> tuple[str, str]:
    sample = data[: _SAMPLE - _SAMPLE % 2]
    low, high = sample[::2].count(0), sample[1::2].count(0)
    for encoding, here, there in (("utf-16-le", high, low), ("utf-16-be", low, high)):
        if here > len(sample) // 5 and there <= len(sample) // 100 and len(data) % 2 == 0:
            try:
                return data.decode(encoding), encoding
            except UnicodeDecodeError:
                break
    raise Refused(_BINARY)


def _decode_legacy(data: bytes, first_bad: int, declared: str | None) -> tuple[str, str]:
    sequences = sum(1 for _ in _UTF8_SEQUENCE.finditer(data))
    stray = data.decode("utf-8", "replace").count("\ufffd") - data.count("\ufffd".encode())
    if sequences >= stray:  # by chance, other encodings have few sequences that are UTF-8
        return data.decode("utf-8", "embedlab-stray"), "utf-8"
    if declared:
        try:
            return data.decode(declared), codecs.lookup(declared).name
        except (LookupError, UnicodeDecodeError):
            pass  # a wrong declaration is common; the letters decide below
    around = max(0, first_bad - _SAMPLE // 4)
    encoding = _guess(data[around : around + _SAMPLE])
    return data.decode(encoding, "replace"), encoding


def _guess(sample: bytes) -> str:
    """Windows-1252 if that reads like a Western language, for short texts mislead statistics; else by statistics."""
    try:
        western = sample.decode("cp1252")
    except UnicodeDecodeError:
        western = ""
    letters = len(_LETTER.findall(western))
    foreign = len(_WESTERN.findall(western))
    if foreign == len(_BEYOND_ASCII.findall(western)) and 0 < 3 * foreign <= letters and not _EASTERN.search(western):
        return "cp1252"
    from charset_normalizer import from_bytes

    guess = from_bytes(sample, cp_exclusion=_NEVER_UNMARKED).best()
    if guess is None:
        raise Refused(_BINARY)
    return guess.encoding


def _stray_byte(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    byte = error.object[error.start : error.start + 1]
    return byte.decode("cp1252", "replace"), error.start + 1


codecs.register_error("embedlab-stray", _stray_byte)
