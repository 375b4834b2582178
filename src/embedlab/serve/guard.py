"""The door: who may call, how often, how much, how long; then counts, headers and last-resort errors."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedlab.serve.errors import ApiError, error_response
from embedlab.serve.metrics import Metrics
from embedlab.serve.rates import Buckets
from embedlab.serve.settings import Settings

_log = logging.getLogger(__name__)

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_DRAIN_S = 2.0


class Guard:
    """Wrap an application (ASGI middleware).

    Args:
        app: What to guard.
        settings: Key, host names and limits.
        metrics: Where calls are counted.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._limits = settings.limits
        self._metrics = metrics
        self._buckets = Buckets(self._limits.requests_per_s, self._limits.burst)
        self._key = _digest(settings.api_key) if settings.api_key else None
        self._names = {name.lower() for name in settings.allowed_hosts}
        if settings.is_loopback:
            self._names |= _LOOPBACK_NAMES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call, or pass on what is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, scope, self._limits_of(scope), self._limits.idle_s)
        answer = _Answer(send, body, private=_is_private(scope["path"]))
        began = time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            await self._answer(scope, body, answer)
        finally:
            self._metrics.in_flight.dec()
            route = _route_of(scope)
            self._metrics.requests.labels(scope["method"], route, str(answer.status or 499)).inc()
            self._metrics.seconds.labels(scope["method"], route).observe(time.perf_counter() - began)

    async def _answer(self, scope: Scope, body: _Body, answer: _Answer) -> None:
        timeout_s = self._limits.upload_timeout_s if _is_upload(scope) else self._limits.timeout_s
        try:
            self._admit(scope)
            body.check_declared()
            async with asyncio.timeout(timeout_s) as deadline:
                await self._app(scope, body.receive, answer.send)
            return
        except ApiError as error:
            refusal = error
        except ClientDisconnect:
            return  # nobody is left to answer
        except TimeoutError:
            if not deadline.expired():
                raise
            refusal = ApiError(
                504, f"the call took longer than {timeout_s:g} s: ask for less at once, or raise timeout_s"
            )
        except Exception:  # noqa: BLE001 - the last resort
            # the trace goes to the log, only its number to the caller
            number = secrets.token_hex(4)
            _log.exception("%s %s failed (%s)", scope["method"], scope["path"], number)
            refusal = ApiError(500, f"the service failed: its log has the reason under {number}")
        if answer.status is None:
            response = error_response(
                scope["path"], refusal.status_code, str(refusal.detail), refusal.field, refusal.headers
            )
            await response(scope, body.receive, answer.send)

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        path: str = scope["path"]
        self._check_host(headers.get("host", ""))
        if not _is_private(path):
            return
        wait_s = self._buckets.take(scope["client"][0] if scope.get("client") else "")
        if wait_s > 0:
            raise ApiError(
                429,
                f"more than {self._limits.requests_per_s:g} calls per second: wait {wait_s:.2f} s",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
        if self._key is not None:
            self._check_key(headers.get("authorization", ""))
        else:
            _check_origin(scope["method"], scope["scheme"], headers)

    def _check_host(self, host: str) -> None:
        if not self._names:
            return  # reachable by any name, and then always with a key
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if name not in self._names:
            raise ApiError(
                403, f"host {host[:100]!r} is not served here: call {', '.join(sorted(self._names))}", field="Host"
            )

    def _check_key(self, header: str) -> None:
        scheme, _, key = header.partition(" ")
        given = _digest(key.strip()) if scheme.lower() == "bearer" else b""
        if self._key is None or not hmac.compare_digest(given, self._key):
            raise ApiError(
                401,
                "a valid key is needed: send Authorization: Bearer KEY",
                field="Authorization",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _limits_of(self, scope: Scope) -> int:
        return self._limits.upload_bytes if _is_upload(scope) else self._limits.body_bytes


class _Body:
    """The body of one call, counted while it comes in, with a bound on every pause."""

    def __init__(self, receive: Receive, scope: Scope, most: int, idle_s: float) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._most = most
        self._idle_s = idle_s
        self._seen = 0
        self._declared = headers.get("content-length", "")
        self._expects = "expect" in headers
        self._stalled = False
        self.complete = not self._declared and "transfer-encoding" not in headers

    def check_declared(self) -> None:
        if self._declared.isdecimal() and int(self._declared) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        if self.complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._idle_s) as pause:
                message = await self._receive()
        except TimeoutError:
            if not pause.expired():
                raise
            self._stalled = True
            raise ApiError(
                408, f"nothing came for {self._idle_s:g} s: send the whole body without long pauses"
            ) from None
        self._seen += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self._seen > self._most:
            raise self._too_large()
        return message

    async def drain(self) -> None:
        """Take in a little of what still comes: closing at once would reset the client before it can read why."""
        if self._stalled or (self._expects and not self._seen):
            return  # it sends nothing
        try:
            async with asyncio.timeout(_DRAIN_S):
                taken = 0
                while not self.complete and taken < self._most:
                    message = await self._receive()
                    taken += len(message.get("body", b""))
                    self.complete = not message.get("more_body", False)
        except TimeoutError:
            return

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self._most} bytes: send less at once", field="body")


class _Answer:
    """The answer to one call: remembers its status and adds the headers every answer has."""

    def __init__(self, send: Send, body: _Body, private: bool) -> None:
        self._send = send
        self._body = body
        self._private = private
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self._private:
                headers.setdefault("Cache-Control", "no-store")
            if not self._body.complete:
                await self._body.drain()
            if not self._body.complete:
                headers["Connection"] = "close"  # or the rest of the body would have to be read before the next call
        await self._send(message)


def _is_private(path: str) -> bool:
    """Whether a path can tell something about the collections or cost work."""
    return path.startswith(("/api/", "/v1/")) or path in ("/api", "/v1", "/metrics")


def _is_upload(scope: Scope) -> bool:
    return scope["method"] == "POST" and Headers(scope=scope).get("content-type", "").startswith("multipart/form-data")


def _check_origin(method: str, scheme: str, headers: Headers) -> None:
    """Without a key only the browser can tell our own page from a foreign one, and it says so in these headers."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise ApiError(403, "pages of other origins may not call this service", field="Sec-Fetch-Site")
    origin = headers.get("origin")
    if method not in _SAFE_METHODS and origin is not None and origin != f"{scheme}://{headers.get('host', '')}":
        raise ApiError(403, f"origin {origin[:100]!r} may not change anything here", field="Origin")


def _route_of(scope: Scope) -> str:
    """The route's template: paths themselves would make a new series for every document."""
    route = scope.get("route")
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    return str(path) if path else "other"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
