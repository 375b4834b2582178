"""How much one file may ask of the machine, and the refusal a reader answers with."""

from __future__ import annotations

from dataclasses import dataclass

from embedlab._core.errors import EmbedlabError

MIB = 1 << 20


class Refused(EmbedlabError):
    """A file or record will not be read; the text is the reason, one sentence for a person."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds that keep one file, broken or hostile, from taking the whole machine.

    Args:
        max_file_bytes: Largest file of a format that is read whole (all but csv, jsonl and parquet, which stream).
        max_stream_bytes: Largest csv, jsonl or parquet file.
        max_record_chars: Longest record of those formats.
        max_markup_bytes: Largest html file, XML part of a docx and page of a PDF; parsed they take many times the size.
        max_outline_bytes: Largest md or rst file whose headings are worked out; larger ones are read as plain text.
        max_code_bytes: Largest Python source; its syntax tree takes several hundred times the size.
        max_pages: Most pages of a PDF.
        max_expanded_bytes: Most bytes a compressed file may unpack to.
        max_expansion: Most times its own size a compressed file may unpack to.
        max_seconds: Longest time for the pages of a PDF.
    """

    max_file_bytes: int = 64 * MIB
    max_stream_bytes: int = 16 * 1024 * MIB
    max_record_chars: int = 1_000_000
    max_markup_bytes: int = 8 * MIB
    max_outline_bytes: int = 2 * MIB
    max_code_bytes: int = 1 * MIB
    max_pages: int = 5_000
    max_expanded_bytes: int = 256 * MIB
    max_expansion: int = 200
    max_seconds: float = 60.0


def check_size(size: int, limit: int, what: str = "the file") -> None:
    """Refuse a size beyond its limit.

    Args:
        size: Bytes found.
        limit: Bytes allowed.
        what: What has that size.

    Raises:
        Refused: size is beyond limit.
    """
    if size > limit:
        raise Refused(f"{what} has {size / MIB:,.1f} MiB, {limit / MIB:,.1f} MiB are allowed: split it")
