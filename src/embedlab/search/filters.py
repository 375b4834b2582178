"""Filters: SQL conditions as people write them, made fit for Lance, with one clear message when they are wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from embedlab._core.errors import InputError

_TOKEN = re.compile(r"""(?P<single>'(?:[^']|'')*')|"(?P<double>(?:[^"]|"")*)"|(?P<tick>`[^`]*`)|--|.""", re.S)
_COMPARES = re.compile(r"\s*(?:[=<>!]|(?:is|in|not|like|ilike|between)\b)", re.I)


def normalise_filter(text: str, columns: Callable[[], Mapping[str, str]] = dict) -> str:
    """Write a filter in the SQL that Lance reads, where double quotes may hold a string or a column name.

    ``lang = "en"`` is what people write and what other databases take for a string: a quoted word is a column only
    where a comparison follows it.

    Args:
        text: SQL condition, e.g. ``lang = "en" AND mtime > timestamp '2024-01-01'``.
        columns: Gives the columns and their types for the message, if something is wrong.

    Returns:
        The condition with single-quoted strings and backtick-quoted columns.

    Raises:
        InputError: it is empty, more than one condition, or its brackets or quotes do not match.

    Example:
        >>> normalise_filter('lang = "en" AND "last author" LIKE "O\\'%"')
        "lang = 'en' AND `last author` LIKE 'O''%'"
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"filter is empty ({text!r}): give a condition such as lang = 'en', or leave it out")
    out = []
    depth = 0
    for match in _TOKEN.finditer(text):
        token, quoted = match.group(), match.group("double")
        if quoted is not None and _COMPARES.match(text, match.end()):
            token = f"`{quoted}`"
        elif quoted is not None:
            token = "'" + quoted.replace('""', '"').replace("'", "''") + "'"
        elif token in (";", "--", "'", '"', "`", "\0"):
            raise _unusable(text, f"{token!r} at character {match.start()} does not belong there", columns())
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0:
            break
        out.append(token)
    if depth:  # the filter is put between brackets beside other conditions: it must not reach out of them
        raise _unusable(text, "its brackets do not match", columns())
    return "".join(out)


@contextmanager
def filter_errors(where: str | None, columns: Callable[[], Mapping[str, str]]) -> Iterator[None]:
    """Turn what Lance says about a filter into a message that lists the columns; without a filter, do nothing.

    Args:
        where: The condition in use.
        columns: Gives the columns and their types, asked only if something is wrong.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if where is None or isinstance(error, InputError):
            raise
        reason = re.split(r", \S+\.rs:\d", str(error).splitlines()[0].removeprefix("Invalid input, "))[0]
        sql_error = re.search(r"sql parser error: (.*?)\)?$", reason)
        reason = sql_error.group(1) if sql_error else reason.split(". Valid fields are")[0]
        raise _unusable(where, reason, columns()) from error


def _unusable(where: str, reason: str, columns: Mapping[str, str]) -> InputError:
    known = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
    over = f" over these columns: {known}" if known else ""
    return InputError(f"filter {where!r} can't be used: {reason}. It is one SQL condition, e.g. lang = 'en'{over}")
