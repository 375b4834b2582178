"""Models of the sentence-transformers and model2vec libraries, by folder or hub name."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import EmbedlabError, InputError
from embedlab._core.extras import require
from embedlab.models.encoder import checked_texts, unit_rows

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class SentenceTransformerModel:
    """Encode with a sentence-transformers model, prompts for queries and documents included.

    Args:
        name: Folder or hub name; a folder of a model2vec model works too.
        device: Where torch runs, e.g. ``"cpu"``; None lets the library choose.

    Raises:
        MissingExtraError: the extra ``train`` is not installed.
        InputError: there is no such model, or it is not one of the two kinds.
    """

    def __init__(self, name: str, *, device: str | None = None) -> None:
        if not Path(name).is_dir() and not _HUB_NAME.fullmatch(name):  # the hub would be asked five times over
            raise InputError(
                f"name={name!r}: there is no such folder; a model is 'default', a folder, a hub name or an endpoint URL"
            )
        library = require("sentence_transformers", extra="train")
        self.name = name
        try:
            self.host = _load(library, name, device)
        except EmbedlabError:
            raise
        except Exception as error:
            raise InputError(
                f"name={name!r}: neither 'default', a folder with a model, an endpoint URL, nor a model that "
                f"sentence-transformers can load ({type(error).__name__}: {str(error)[:300]})"
            ) from error
        self.dim = _dim_of(self.host, name)

    @classmethod
    def of(cls, host: Any, *, name: str) -> Self:
        """Take a model that is loaded already.

        Args:
            host: A ``SentenceTransformer``; it is used as it is.
            name: What to call it.

        Returns:
            The model.

        Raises:
            InputError: the model does not tell the length of its vectors.
        """
        made = cls.__new__(cls)
        made.name, made.host, made.dim = name, host, _dim_of(host, name)
        return made

    @property
    def roles_alike(self) -> bool:
        """Whether documents, queries and other texts are encoded alike: the model has no prompt for either."""
        return not any(prompt and name in ("query", *_DOCUMENT_PROMPTS) for name, prompt in self.host.prompts.items())

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the dimensions, where the model has a layer of named concepts; otherwise nothing."""
        named = [tuple(module.concepts) for module in self.host if hasattr(module, "concepts")]
        return named[-1] if named and len(named[-1]) == self.dim else ()

    @cached_property
    def fingerprint(self) -> str:
        """``"sentence-transformers:<16 hex>"`` over weights, tokenizer, prompts and the modules' settings."""
        digest = hashlib.sha256(json.dumps(self.host.prompts, sort_keys=True).encode())
        digest.update(f"{self.host.default_prompt_name} {self.host.truncate_dim} {self.host.max_seq_length}".encode())
        for module in self.host:
            digest.update(type(module).__name__.encode())
            if hasattr(module, "get_config_dict"):
                digest.update(json.dumps(module.get_config_dict(), sort_keys=True, default=str).encode())
        for key, value in sorted(self.host.state_dict().items()):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(_bytes_type()).numpy())
        backend = getattr(self.host.tokenizer, "backend_tokenizer", self.host.tokenizer)
        if hasattr(backend, "to_str"):
            # Padding and truncation are set anew by every call, so they are no part of what the model is.
            spec = json.loads(backend.to_str())
            spec["padding"] = spec["truncation"] = None
            digest.update(json.dumps(spec, sort_keys=True).encode())
        return f"sentence-transformers:{digest.hexdigest()[:16]}"

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Encode documents, with the model's prompt for documents if it has one.

        Args:
            texts: The texts; beyond the model's own limit they are truncated by it.
            batch_size: Texts in one forward pass.
            on_progress: Called with the number of texts just finished.

        Shape:
            texts N -> (N, D) float32

        Returns:
            Unit rows; the zero row for a text that is empty or blank.

        Raises:
            InputError: something in ``texts`` is not a string.
        """
        prompts = [name for name in _DOCUMENT_PROMPTS if name in self.host.prompts]
        return self._encode(texts, prompts[0] if prompts else None, batch_size, on_progress)

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Encode texts that are neither queries nor documents, without a prompt; see ``encode_document``."""
        return self._encode(texts, None, batch_size, on_progress)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries, with the model's prompt for queries if it has one; see ``encode_document``."""
        return self._encode(texts, "query" if "query" in self.host.prompts else None, 32, None)

    def _encode(
        self, texts: Sequence[str], prompt: str | None, batch_size: int, on_progress: Callable[[int], None] | None
    ) -> NDArray[np.float32]:
        checked = checked_texts(texts)
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be at least 1")
        rows = np.zeros((len(checked), self.dim), dtype=np.float32)
        sent = [place for place, text in enumerate(checked) if text.strip()]
        sent.sort(key=lambda place: len(checked[place]))  # texts of like length waste no time on padding
        if on_progress is not None and len(sent) < len(checked):
            on_progress(len(checked) - len(sent))
        for start in range(0, len(sent), batch_size):
            places = sent[start : start + batch_size]
            rows[places] = self.host.encode(
                [checked[place] for place in places],
                prompt_name=prompt,
                batch_size=batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=False,
            )
            if on_progress is not None:
                on_progress(len(places))
        if not np.isfinite(rows).all():
            raise EmbedlabError(f"the model {self.name!r} gave NaN or infinite numbers: its weights may be damaged")
        return unit_rows(rows)


def _dim_of(host: Any, name: str) -> int:
    dim = host.get_embedding_dimension()
    if not dim:
        raise InputError(f"name={name!r}: the model does not tell the length of its vectors")
    return int(dim)


def _load(library: Any, name: str, device: str | None) -> Any:
    """Load by the library itself, or wrap the table of a model2vec folder in the library's own module for such."""
    folder = Path(name)
    config = folder / "config.json"
    if config.is_file() and not (folder / "modules.json").is_file():
        described = json.loads(config.read_text(encoding="utf-8"))
        if described.get("model_type") == "model2vec" or "StaticModel" in described.get("architectures", ()):
            require("model2vec", extra="train")
            table = _static_embedding().from_model2vec(name)
            return library.SentenceTransformer(modules=[table], device=device)
    own = _own_modules(name)
    if not own:
        return library.SentenceTransformer(name, device=device)
    # The host imports module classes from outside itself only with trust_remote_code, which would let in whatever else
    # the folder names. Classes of this package are imported already: they are handed over, and nothing is trusted.
    return library.SentenceTransformer._load_with_module_classes(name, own, device=device)


def _own_modules(name: str) -> dict[str, type]:
    """Return the modules of a model that are classes of this package, by the name it has for them.

    Raises:
        InputError: a class that claims to be of this package is none of its modules.
    """
    util = importlib.import_module("sentence_transformers.util")
    path = util.load_file_path(name, "modules.json")
    listed = [] if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    own: dict[str, type] = {}
    for kind in {entry["type"] for entry in listed if entry["type"].startswith("embedlab.")}:
        place, _, item = kind.rpartition(".")
        try:
            found = getattr(importlib.import_module(place), item)
        except (ImportError, AttributeError) as error:
            raise InputError(f"name={name!r}: it needs {kind}, which this version of embedlab does not have") from error
        if not (isinstance(found, type) and found.__module__ == place and hasattr(found, "load")):
            raise InputError(f"name={name!r}: {kind} is no module of a model")
        own[kind] = found
    return own


def _static_embedding() -> Any:
    try:
        modules = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    except ModuleNotFoundError:  # its home before version 6
        modules = importlib.import_module("sentence_transformers.models")
    return modules.StaticEmbedding


def _bytes_type() -> Any:
    return require("torch", extra="train").uint8
