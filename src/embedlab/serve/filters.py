"""Filters that callers send: conditions yes, but no functions that could eat the machine's memory or time."""

from __future__ import annotations

import re

from embedlab.serve.errors import ApiError

ALLOWED = {
    "abs", "array_has", "cast", "coalesce", "contains", "date", "date_part", "ends_with", "length", "lower", "nullif",
    "regexp_like", "regexp_match", "round", "starts_with", "strpos", "timestamp", "trim", "try_cast", "upper",
}  # fmt: skip
_WORDS = {"all", "and", "any", "between", "else", "ilike", "in", "is", "like", "not", "or", "then", "when"}
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`")
_CALL = re.compile(r"([^\W\d]\w*)\s*\(")


def check_filter(condition: str | None, most_chars: int) -> str | None:
    """Refuse a filter that is too long or calls a function that is not on the list.

    Functions that make text, such as ``repeat``, could fill the memory with one short condition.

    Args:
        condition: SQL condition, or ``None``.
        most_chars: Longest condition.

    Returns:
        The condition as it was.

    Raises:
        ApiError: 400.

    Example:
        >>> check_filter("starts_with(source, 'a(')", 100)
        "starts_with(source, 'a(')"
    """
    if condition is None:
        return None
    if len(condition) > most_chars:
        raise ApiError(400, f"filter has {len(condition)} characters: at most {most_chars} are allowed", field="filter")
    # quoted names can be called, too, so a bracket behind a quote counts as a call of what is in the quote
    calls = _CALL.findall(_QUOTED.sub(lambda quoted: "?" if quoted[0][0] == "'" else quoted[0][1:-1], condition))
    unknown = [name for name in calls if name.lower() not in ALLOWED | _WORDS]
    if unknown:
        raise ApiError(
            400,
            f"filter calls {unknown[0][:60]!r}: only {', '.join(sorted(ALLOWED))} may be called here",
            field="filter",
        )
    return condition
