"""From a record, whichever format it came in, to a document: which column is the text, which the title."""

from __future__ import annotations

from collections.abc import Mapping

from embedlab.data.documents import Document, Value
from embedlab.data.limits import Refused
from embedlab.data.text import whole_characters

_TEXTS = ("text", "content", "contents", "body", "abstract", "passage", "document", "description", "long")
_TITLES = ("title", "name", "headline", "subject")
_SHORT = 200  # characters up to which a value is a fact to filter by rather than a text


def document_from(
    record: Mapping[str, object], source: str, form: str, *, max_chars: int, unnamed: bool = False
) -> Document:
    """Make a document of a record.

    With a column named like a text, that is the text, below the title if there is one; otherwise every column goes
    in as a line ``column: value``. The other short columns become metadata.

    Args:
        record: Values by column.
        source: Id of the record.
        form: Format of the file it came from.
        max_chars: Longest text allowed.
        unnamed: The columns have no names worth showing.

    Returns:
        The document.

    Raises:
        Refused: the record is too long.

    Example:
        >>> document_from({"title": "Tea", "text": "Boil.", "year": 1999}, "a.csv#row=1", "csv", max_chars=99).text
        'Tea\\n\\nBoil.'
    """
    columns = {key.strip().lower(): key for key in record if isinstance(key, str)}
    body = next((columns[name] for name in _TEXTS if name in columns and isinstance(record[columns[name]], str)), None)
    head = next((columns[name] for name in _TITLES if name in columns and isinstance(record[columns[name]], str)), None)
    title = " ".join(str(record[head]).split()) if head else ""
    if body is not None:
        text = str(record[body])
        if title and not text.lstrip().startswith(title):
            text = f"{title}\n\n{text}" if text else title
    else:
        shown = {key: text for key, value in record.items() if (text := _flat(value))}
        text = "\n".join(shown.values() if unnamed else (f"{key}: {value}" for key, value in shown.items()))
    if len(text) > max_chars:
        raise Refused(f"the record has {len(text):,} characters, {max_chars:,} are allowed")
    rest = [] if unnamed else [key for key in record if key not in (body, head)]
    facts = {key: fact for key in rest if (fact := _fact(record[key])) is not None}
    return Document(source, whole_characters(text), whole_characters(title)[:300], form, metadata=facts)


def _flat(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value if isinstance(item, str | int | float))
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _fact(value: object) -> Value | None:
    if isinstance(value, bool | int | float):
        return value
    text = _flat(value)
    return whole_characters(text) if 0 < len(text) <= _SHORT else None
