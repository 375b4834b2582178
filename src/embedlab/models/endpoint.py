"""Vectors from any OpenAI-compatible embedding endpoint, checked before anyone else sees them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import EndpointError, InputError
from embedlab.models.encoder import checked_texts, unit_rows

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger(__name__)

KEY_VARIABLES = ("EMBEDLAB_ENDPOINT_API_KEY", "OPENAI_API_KEY")
_RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_SHOWN_CHARS = 200


class EndpointModel:
    """Encode texts at an OpenAI-compatible endpoint.

    One text is encoded on construction, to learn the length of the vectors. Every answer is checked: one vector per
    text, all of that length, all numbers finite. A server that is busy or fails for a moment is asked again, after the
    time it names itself or after pauses that double, until ``total_timeout_s`` of one batch is used up.

    Args:
        url: Base URL and model name, ``"https://host/v1#model-name"``.
        api_key: Key sent as bearer token; None takes ``EMBEDLAB_ENDPOINT_API_KEY`` or ``OPENAI_API_KEY`` if set.
        timeout_s: Longest time one request may take, in seconds.
        total_timeout_s: Longest time one batch may take with all its repetitions; None for four times ``timeout_s``.
        batch_size: Most texts in one request.
        transport: Another way to send requests, for tests.

    Raises:
        InputError: the URL has no model name, or a number is out of range.
        EndpointError: the endpoint does not answer the first request as it should.
    """

    roles_alike = True  #: documents and queries are encoded alike

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        total_timeout_s: float | None = None,
        batch_size: int = 64,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        import httpx

        base, model = address(url)
        for argument, value in (
            ("timeout_s", timeout_s),
            ("total_timeout_s", total_timeout_s),
            ("batch_size", batch_size),
        ):
            if value is not None and not value > 0:
                raise InputError(f"{argument}={value}: must be above 0")
        self.name = url
        self.dim = 0
        self._url = base + "/embeddings"
        self._model = model
        self._batch_size = int(batch_size)
        self._total_timeout_s = 4 * timeout_s if total_timeout_s is None else total_timeout_s
        # Redirects stay off: the key would follow them to another host.
        self._client = httpx.Client(
            headers=key_headers(api_key), timeout=timeout_s, transport=transport, follow_redirects=False
        )
        self.dim = self._embed(["dimension"]).shape[1]

    @property
    def fingerprint(self) -> str:
        """``"endpoint:<16 hex>"`` over URL, model name and dimension: what can be known from outside."""
        digest = hashlib.sha256(f"{self._url} {self._model} {self.dim}".encode())
        return f"endpoint:{digest.hexdigest()[:16]}"

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int | None = None, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Encode documents.

        Args:
            texts: The texts; an empty one is not sent, as many servers refuse it.
            batch_size: Most texts in one request; None takes the model's.
            on_progress: Called with the number of texts just finished.

        Shape:
            texts N -> (N, D) float32

        Returns:
            Unit rows; the zero row for a text that is empty or blank.

        Raises:
            InputError: something in ``texts`` is not a string.
            EndpointError: the endpoint failed or gave something other than usable vectors.
        """
        checked = checked_texts(texts)
        size = self._batch_size if batch_size is None else batch_size
        if size < 1:
            raise InputError(f"batch_size={size}: must be at least 1")
        rows = np.zeros((len(checked), self.dim), dtype=np.float32)
        for start in range(0, len(checked), size):
            batch = checked[start : start + size]
            sent = [place for place, text in enumerate(batch) if text.strip()]
            if sent:
                rows[[start + place for place in sent]] = self._embed([batch[place] for place in sent])
            if on_progress is not None:
                on_progress(len(batch))
        return unit_rows(rows)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries, as ``encode_document`` does."""
        return self.encode_document(texts)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Send one batch and check what comes back."""
        body = {"model": self._model, "input": texts, "encoding_format": "base64"}
        return self._vectors(
            post(self._client, self._url, body, total_timeout_s=self._total_timeout_s, failure=self._failure),
            len(texts),
        )

    def _vectors(self, response: httpx.Response, count: int) -> NDArray[np.float32]:
        """Read and check the answer to ``count`` texts."""
        try:
            entries = response.json()["data"]
            listed = [(int(entry["index"]), _vector(entry["embedding"])) for entry in entries]
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            shown = " ".join(response.text[:_SHOWN_CHARS].split())
            raise self._failure(f"answered no OpenAI embeddings ({type(error).__name__}): {shown!r}") from error
        if sorted(place for place, _ in listed) != list(range(count)):
            raise self._failure(f"answered {len(listed)} vectors for {count} texts")
        dim = self.dim or len(listed[0][1])
        rows = np.empty((count, dim), dtype=np.float32)
        for place, vector in listed:
            if vector.shape != (dim,) or dim == 0:
                raise self._failure(f"answered a vector of shape {vector.shape}, the others have {dim} numbers")
            rows[place] = vector
        if not np.isfinite(rows).all():
            raise self._failure("answered NaN or infinite numbers")
        return rows

    def _failure(self, problem: str) -> EndpointError:
        return EndpointError(f"endpoint {self._url} (model {self._model!r}) {problem}")


def post(
    client: httpx.Client,
    url: str,
    body: dict[str, Any],
    *,
    total_timeout_s: float,
    failure: Callable[[str], EndpointError],
) -> httpx.Response:
    """Post to an endpoint, again where that may help.

    Args:
        client: Sends the requests.
        url: Where to.
        body: What to send, as JSON.
        total_timeout_s: Longest time to go on trying, in seconds.
        failure: Makes the error of a sentence that says what happened.

    Returns:
        An answer of success.

    Raises:
        EndpointError: the endpoint refused, or did not answer in time.
    """
    import httpx

    deadline = time.monotonic() + total_timeout_s
    attempt = 0
    while True:
        attempt += 1
        cause: httpx.TransportError | None = None
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1)) * random.SystemRandom().uniform(0.5, 1)
        try:
            response = client.post(url, json=body)
        except httpx.TimeoutException as error:
            problem, cause = "did not answer in time", error
        except httpx.TransportError as error:
            problem, cause = f"cannot be reached ({type(error).__name__}: {error})", error
        else:
            if response.is_success:
                return response
            if response.status_code not in _RETRIED_STATUS:
                raise failure(_status_problem(response))
            problem = _status_problem(response)
            pause_s = _asked_pause_s(response) or pause_s
        if time.monotonic() + pause_s >= deadline:
            raise failure(f"{problem}, {attempt} times within {total_timeout_s:g} s") from cause
        _log.info("endpoint %s %s; trying again in %.1f s", url, problem, pause_s)
        time.sleep(pause_s)


def address(name: str) -> tuple[str, str]:
    """Take an endpoint's name apart.

    Args:
        name: ``"https://host/v1#model-name"``.

    Returns:
        Base URL without a slash at the end, and the model's name.

    Raises:
        InputError: the name has another form, or holds a password.
    """
    base, _, model = name.partition("#")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or not model:
        raise InputError(f"name={_without_secrets(name)!r}: an endpoint is 'https://host/v1#model-name'")
    if parts.username or parts.password:
        raise InputError("the endpoint's URL holds a user name or password: give the key as api_key instead")
    return base.rstrip("/"), model


def key_headers(api_key: str | None) -> dict[str, str]:
    """Return the header that carries the key: the one given, or the one of the environment."""
    key = api_key or next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _vector(embedding: Any) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
    return np.array(embedding, dtype=np.float32)


def _status_problem(response: httpx.Response) -> str:
    hints = {
        401: f"refused the key: set {KEY_VARIABLES[0]} or pass api_key",
        403: "refused the key: it has no right to this model",
        404: "does not know this address or model: check the part before and after '#'",
        413: "found the batch too large: use a smaller batch_size",
        429: "is over its rate limit",
    }
    hint = hints.get(response.status_code, "failed" if response.status_code >= 500 else "refused the request")
    shown = " ".join(response.text[:_SHOWN_CHARS].split())
    return f"{hint} (HTTP {response.status_code}{': ' + shown if shown else ''})"


def _asked_pause_s(response: httpx.Response) -> float | None:
    """Return the pause that the server asks for, in seconds."""
    value = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass  # it may also be a date
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _without_secrets(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return scheme + mark + rest.rpartition("@")[2]
