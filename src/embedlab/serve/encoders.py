"""The models that callers may use, loaded once, and their tokens counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from embedlab.models import Encoder, load_model
from embedlab.serve.errors import ApiError


class Encoders:
    """Loaded models by name.

    Args:
        names: Models that may be used; the first is the default.
        load: Finds a model by its name.
    """

    def __init__(self, names: Sequence[str], load: Callable[[str], Encoder] = load_model) -> None:
        self.names = tuple(names)
        self._load = load
        self._lock = threading.Lock()
        self._loaded: dict[str, Encoder] = {}
        self._counters: dict[str, Callable[[Sequence[str]], int]] = {}

    def check(self, name: str) -> str:
        """Return the name if callers may use it.

        Raises:
            ApiError: 404, it is not offered here.
        """
        if name not in self.names:
            known = ", ".join(self.names)
            raise ApiError(404, f"model {name[:100]!r} is not offered here: use one of {known}", field="model")
        return name

    def get(self, name: str) -> Encoder:
        """Return a model, loading it if this is its first use; others wait meanwhile.

        Args:
            name: One of ``names``.

        Returns:
            The model.
        """
        encoder = self._loaded.get(name)
        if encoder is None:
            with self._lock:
                encoder = self._loaded.get(name)
                if encoder is None:
                    encoder = self._loaded[name] = self._load(name)
        return encoder

    def is_loaded(self, name: str) -> bool:
        """Whether a model is in memory."""
        return name in self._loaded

    def count_tokens(self, name: str, texts: Sequence[str]) -> int:
        """Count tokens with the model's own tokenizer, without the special ones it may add.

        Args:
            name: One of ``names``.
            texts: The texts.

        Returns:
            The tokens of all texts; 0 for models that keep their tokenizer to themselves (endpoints).
        """
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters.setdefault(name, _counter(self.get(name)))
        return counter(texts)


def _counter(encoder: Encoder) -> Callable[[Sequence[str]], int]:
    own: Callable[[Sequence[str]], int] | None = getattr(encoder, "count_tokens", None)
    if own is not None:
        return own
    tokenizer_json = getattr(encoder, "tokenizer_json", None)
    if tokenizer_json is None:
        return lambda texts: 0
    from embedlab.models.words import load_tokenizer

    tokenizer: Any = load_tokenizer(tokenizer_json)

    def count(texts: Sequence[str]) -> int:
        encodable = [text.encode("utf-8", "replace").decode() for text in texts]
        return sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(encodable, add_special_tokens=False))

    return count
