"""Answers of a language model at any OpenAI-compatible chat endpoint: a function from prompt to text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab._core.errors import EndpointError, InputError
from embedlab.models.endpoint import address, key_headers, post

if TYPE_CHECKING:
    import httpx

_SHOWN_CHARS = 200


class ChatEndpoint:
    """Ask a language model at an OpenAI-compatible chat endpoint; ``endpoint(prompt)`` gives its answer.

    A server that is busy or fails for a moment is asked again, after the time it names itself or after pauses that
    double, until ``total_timeout_s`` of one prompt is used up. Safe to call from several threads.

    Args:
        url: Base URL and model name, ``"https://host/v1#model-name"``.
        api_key: Key sent as bearer token; None takes ``EMBEDLAB_ENDPOINT_API_KEY`` or ``OPENAI_API_KEY`` if set.
        temperature: How freely the model draws its words, at least 0.
        max_tokens: Longest answer, at least 1.
        seed: Sent along; servers that know it answer the same again. None sends none.
        timeout_s: Longest time one request may take, in seconds.
        total_timeout_s: Longest time one prompt may take with all repetitions; None for four times ``timeout_s``.
        transport: Another way to send requests, for tests.

    Attributes:
        name: The model's name.
        prompt_tokens: Tokens sent so far, as far as the server counts them.
        completion_tokens: Tokens received so far.

    Raises:
        InputError: the URL has no model name, or a number is out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        temperature: float = 0.7,
        max_tokens: int = 1024,
        seed: int | None = 0,
        timeout_s: float = 120.0,
        total_timeout_s: float | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        import httpx

        base, self.name = address(url)
        if not temperature >= 0:
            raise InputError(f"temperature={temperature}: must be at least 0")
        for argument, value in (
            ("max_tokens", max_tokens),
            ("timeout_s", timeout_s),
            ("total_timeout_s", total_timeout_s),
        ):
            if value is not None and not value > 0:
                raise InputError(f"{argument}={value}: must be above 0")
        self.prompt_tokens = self.completion_tokens = 0
        self._url = base + "/chat/completions"
        self._total_timeout_s = 4 * timeout_s if total_timeout_s is None else total_timeout_s
        self._body: dict[str, Any] = {"model": self.name, "temperature": temperature, "max_tokens": max_tokens}
        if seed is not None:
            self._body["seed"] = seed
        self._client = httpx.Client(
            headers=key_headers(api_key), timeout=timeout_s, transport=transport, follow_redirects=False
        )

    def __call__(self, prompt: str, *, max_tokens: int | None = None, seed: int | None = None) -> str:
        """Ask.

        Args:
            prompt: The prompt, sent as one message of the user.
            max_tokens: Longest answer, for this prompt.
            seed: Sent along, for this prompt.

        Returns:
            The answer; empty if the model gave none.

        Raises:
            EndpointError: the endpoint failed, or answered something other than a chat completion.
        """
        body = {**self._body, "messages": [{"role": "user", "content": prompt}]}
        body |= {key: value for key, value in (("max_tokens", max_tokens), ("seed", seed)) if value is not None}
        response = post(self._client, self._url, body, total_timeout_s=self._total_timeout_s, failure=self._failure)
        try:
            found = response.json()
            content = found["choices"][0]["message"]["content"]
            usage = found.get("usage") or {}
            self.prompt_tokens += int(usage.get("prompt_tokens") or 0)
            self.completion_tokens += int(usage.get("completion_tokens") or 0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            shown = " ".join(response.text[:_SHOWN_CHARS].split())
            raise self._failure(f"answered no chat completion ({type(error).__name__}): {shown!r}") from error
        if not isinstance(content, str | None):
            raise self._failure(f"answered a message of type {type(content).__name__}, not text")
        return content or ""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _failure(self, problem: str) -> EndpointError:
        return EndpointError(f"endpoint {self._url} (model {self.name!r}) {problem}")
