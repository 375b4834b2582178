"""One shape for every error, naming the field that is to blame; nothing of the inside leaks."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from embedlab._core.errors import CollectionError, EmbedlabError, EndpointError, InputError, MissingExtraError

_log = logging.getLogger(__name__)

# our messages begin with the argument: "top_k=0: ...", "filter 'x' can't be used ..."
_FIRST_WORD = re.compile(r"[a-z_]+")
_ARGUMENTS = frozenset(
    {"query", "mode", "top_k", "filter", "weight", "explain", "model", "name", "input", "dimensions"}
)
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "busy_error",
    504: "timeout_error",
    507: "server_error",
}


class ApiError(HTTPException):
    """An answer that is not the one hoped for.

    Args:
        status: HTTP status.
        message: What was received, what is allowed, what to do; shown to people as it is.
        field: The argument to blame, or ``None``.
        headers: Headers to send with it.
    """

    def __init__(
        self, status: int, message: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.field = field


def error_response(
    path: str, status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Build the answer for an error.

    Args:
        path: Path of the call; under ``/v1`` the error also has what openai clients look for.
        status: HTTP status.
        message: Text for the reader.
        field: The argument to blame, or ``None``.
        headers: Headers to send with it.

    Returns:
        The response with ``{"error": {"message", "type", "field"}}``.
    """
    error: dict[str, Any] = {
        "message": message,
        "type": _TYPES.get(status, "invalid_request_error"),
        "field": field,
    }
    if path.startswith("/v1/"):
        error |= {"param": field, "code": None}
    return JSONResponse({"error": error}, status, dict(headers or {}))


def install_error_handlers(app: FastAPI) -> None:
    """Give every error of an application our shape.

    Args:
        app: The application to change.
    """
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(EmbedlabError, _failed)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    problems: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    first: dict[str, Any] = problems[0] if problems else {"loc": (), "msg": "not valid", "type": ""}
    if first["type"] == "json_invalid":
        return error_response(request.url.path, 400, f"the body is not JSON: {first['ctx']['error']}")
    location = [str(part) for part in first["loc"]]
    field = ".".join(location[1:]) or None
    if first["type"] == "missing":
        if not field:
            message = "a JSON body is needed, sent with Content-Type: application/json"
        else:
            message = f"{field} is missing from the {location[0]}: it is needed"
    elif first["type"] == "extra_forbidden":
        message = f"{field} is not known here: leave it out, or see /docs for what is"
    else:
        message = f"{field or 'body'}={_shown(first.get('input'))}: {_lower_first(str(first['msg']))}"
    return error_response(request.url.path, 400, message, field)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    message = str(error.detail)
    if error.status_code == 404 and not isinstance(error, ApiError):
        message = f"there is nothing at {request.url.path[:200]!r}: see /docs for what there is"
    elif error.status_code == 405:
        message = f"{request.method} is not allowed at {request.url.path[:200]!r}: see /docs for what is"
    return error_response(request.url.path, error.status_code, message, getattr(error, "field", None), error.headers)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """Errors of ours that reach the surface: their texts are made for people."""
    status = 500
    if isinstance(error, InputError):
        status = 400
    elif isinstance(error, CollectionError):
        status = 409
    elif isinstance(error, EndpointError):
        status = 502
    elif isinstance(error, MissingExtraError):
        status = 400
    if status >= 500:
        _log.warning("%s %s: %s", request.method, request.url.path, error)
    begins = _FIRST_WORD.match(str(error))
    field = begins.group() if begins is not None and begins.group() in _ARGUMENTS else None
    return error_response(request.url.path, status, str(error), field)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _lower_first(text: str) -> str:
    text = text.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
