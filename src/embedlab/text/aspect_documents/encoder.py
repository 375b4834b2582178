"""One encoder, one vector for each aspect: heads on a frozen model, a fine-tuned model or an adapter for each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.files import atomic_folder
from embedlab.models.encoder import Encoder, checked_texts, unit_rows
from embedlab.text.aspect_documents.comparison import fit_head
from embedlab.text.aspect_documents.heads import AspectHeads, AspectHeadsError
from embedlab.text.aspect_documents.names import check_aspect
from embedlab.text.aspect_documents.pairs import AspectPairs, Rows
from embedlab.text.aspect_documents.retrofit import ExplicitRetrofit
from embedlab.text.aspect_documents.training import WAYS, HeadSettings, Way

if TYPE_CHECKING:
    from embedlab.text.aspect_documents.finetuning import FineTuning, TunedModels

Floats = NDArray[np.float32]
EncoderMode = Literal["heads", "separate", "lora"]
_ABOUT, _HEADS = "aspects.json", "aspects.safetensors"
_ALLOWED: dict[EncoderMode, tuple[Way, ...]] = {
    "heads": WAYS,
    "separate": ("siamese", "classification"),
    "lora": ("siamese",),
}


class AspectEncoder:
    """Encode texts into one vector for each aspect.

    Args:
        backbone: A loaded model, or a name for ``embedlab.models.load_model``; it is never changed.
        aspects: Names of the aspects.
        mode: ``"heads"``: the model stays frozen, a small network for each aspect lies on its vectors, and a text is
            encoded once for all of them. ``"separate"``: a fine-tuned copy for each aspect (published). ``"lora"``: one
            model with a low-rank adapter for each. The last two need a sentence-transformers model.
        way: ``"siamese"``; ``"classification"`` (not with adapters); ``"retrofitting"`` (heads alone).
        settings: How heads are trained; None for the defaults.
        tuning: How models and adapters are fine-tuned; None for the published settings.
        retrofit: Makes a fresh ``ExplicitRetrofit``.
        seed: Decides first weights and order.

    Raises:
        InputError: a name is not allowed or unknown, or mode and way do not go together.

    Example:
        >>> from embedlab.models import load_model
        >>> texts = ["a red car", "a red bus", "an old car", "an old bus"]
        >>> labels = {"colour": [{"red"}, {"red"}, {"old"}, {"old"}], "kind": [{"car"}, {"bus"}] * 2}
        >>> pairs = AspectPairs.from_labels(texts, labels, folds=2)
        >>> encoder = AspectEncoder(load_model(), pairs.aspects).fit(pairs)
        >>> {aspect: rows.shape for aspect, rows in encoder.encode(["a red bicycle"]).items()}
        {'colour': (1, 256), 'kind': (1, 256)}

    References:
        Ostendorff et al. (2022), Specialized Document Embeddings for Aspect-based Similarity of Research Papers,
        arXiv:2203.14541v1. Official code malteos/aspect-document-embeddings (read, not copied).
    """

    def __init__(
        self,
        backbone: Encoder | str,
        aspects: Sequence[str],
        *,
        mode: EncoderMode = "heads",
        way: Way = "siamese",
        settings: HeadSettings | None = None,
        tuning: FineTuning | None = None,
        retrofit: Callable[[], ExplicitRetrofit] = ExplicitRetrofit,
        seed: int = 0,
    ) -> None:
        if mode not in get_args(EncoderMode):
            raise unknown_name("mode", mode, get_args(EncoderMode))
        if way not in WAYS:
            raise unknown_name("way", way, WAYS)
        if way not in _ALLOWED[mode]:
            raise InputError(f"way={way!r} does not go with mode={mode!r}: use {' or '.join(_ALLOWED[mode])}")
        if isinstance(backbone, str):
            from embedlab.models import load_model

            backbone = load_model(backbone)
        if mode != "heads" and not hasattr(backbone, "host"):
            raise InputError(f"mode={mode!r} needs a sentence-transformers model, {backbone.name!r} is none: use heads")
        if not aspects:
            raise InputError("aspects: none given; at least one is needed")
        self.backbone, self.aspects = backbone, tuple(check_aspect(name) for name in aspects)
        self.mode, self.way, self.settings, self.tuning = mode, way, settings, tuning
        self.retrofit, self.seed = retrofit, seed
        #: The fitted heads, for mode ``"heads"``.
        self.heads: AspectHeads | None = None
        self._tuned: TunedModels | None = None

    def fit(self, pairs: AspectPairs, *, rows: Rows | None = None, vectors: Floats | None = None) -> AspectEncoder:
        """Learn every aspect.

        Args:
            pairs: Documents and labels.
            rows: Places of the documents to learn from; None for all.
            vectors: Vectors of all documents by the model, if they are at hand; used by heads alone.

        Returns:
            The encoder itself.

        Raises:
            InputError: an aspect is not among the pairs, or has none.
            MissingExtraError: the extra ``train`` is not installed.
        """
        for aspect in self.aspects:
            pairs.relation(aspect)
        if self.mode == "heads":
            base = self.backbone.encode_document(pairs.docs) if vectors is None else vectors
            if len(base) != len(pairs):
                raise InputError(f"vectors: {len(base)} rows for {len(pairs)} documents")
            options = {"way": self.way, "settings": self.settings, "retrofit": self.retrofit, "seed": self.seed}
            fitted = {a: fit_head(pairs, a, base, rows=rows, **options) for a in self.aspects}  # type: ignore[arg-type]
            self.heads = AspectHeads(fitted, self.backbone.fingerprint)
            return self
        from embedlab.text.aspect_documents.finetuning import FineTuning, tune

        host = self.backbone.host  # type: ignore[attr-defined]
        self._tuned = tune(
            host, pairs, self.aspects, rows=rows, adapters=self.mode == "lora",
            classify=self.way == "classification", tuning=self.tuning or FineTuning(), seed=self.seed,
        )  # fmt: skip
        return self

    @overload
    def encode(self, texts: Sequence[str], *, aspect: str) -> Floats: ...
    @overload
    def encode(self, texts: Sequence[str], *, aspect: None = None) -> dict[str, Floats]: ...

    def encode(self, texts: Sequence[str], *, aspect: str | None = None) -> Floats | dict[str, Floats]:
        """Encode texts.

        Args:
            texts: The texts.
            aspect: The aspect wanted; None for all.

        Shape:
            texts N -> (N, d) float32 for each aspect

        Returns:
            Unit rows; a dict by aspect if none was named. A text without a known word gives the zero row.

        Raises:
            InputError: the aspect is unknown, or ``fit`` was not called.
        """
        if aspect is not None and aspect not in self.aspects:
            raise unknown_name("aspect", aspect, self.aspects)
        if self.heads is None and self._tuned is None:
            raise InputError("nothing is learnt yet: call fit first")
        wanted = self.aspects if aspect is None else (aspect,)
        checked = checked_texts(texts)
        if self.heads is not None:
            base = self.backbone.encode_document(checked)  # once for all aspects
            found = {name: self.heads.heads[name](base) for name in wanted}
        else:
            known = np.array([bool(text.strip()) for text in checked])
            found = {}
            for name in wanted:
                rows = self._tuned.encode(name, checked)  # type: ignore[union-attr]
                found[name] = unit_rows(np.where(known[:, None], rows, 0).astype(np.float32))
        return found if aspect is None else found[aspect]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what was learnt to a folder, in one step; the backbone is named in it, not copied.

        Heads are one file with a checksum; fine-tuned copies are a sentence-transformers model for each aspect, and
        adapters one folder for each, as peft writes them.

        Args:
            folder: The folder; what is there is replaced.

        Raises:
            InputError: ``fit`` was not called.
        """
        about = {"backbone": self.backbone.name, "fingerprint": self.backbone.fingerprint, "aspects": self.aspects}
        about |= {"mode": self.mode, "way": self.way}
        with atomic_folder(folder) as fresh:
            if self.heads is not None:
                (fresh / _HEADS).write_bytes(self.heads.to_bytes())
            elif self._tuned is not None:
                self._tuned.save(fresh)
            else:
                raise InputError("nothing is learnt yet: call fit first")
            (fresh / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, backbone: Encoder | None = None) -> AspectEncoder:
        """Read what ``save`` has written.

        Args:
            folder: The folder.
            backbone: The model, if it is at hand; otherwise it is loaded by its recorded name.

        Returns:
            The encoder, fitted.

        Raises:
            AspectHeadsError: the folder is damaged, or the model is not the one it was learnt on.
            InputError: there is no such folder.
        """
        place = Path(folder)
        try:
            about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
            found = cls(backbone or about["backbone"], about["aspects"], mode=about["mode"], way=about["way"])
            known = about["fingerprint"]
        except FileNotFoundError as error:
            raise InputError(f"folder={str(folder)!r}: no aspect encoder there; write one with save") from error
        except (ValueError, KeyError, TypeError) as error:
            raise AspectHeadsError(f"{place / _ABOUT} is damaged ({error}): learn the aspects again") from error
        if found.backbone.fingerprint != known:
            raise AspectHeadsError(
                f"{place} belongs to model {known}, but the model is {found.backbone.fingerprint}: give the right one, "
                "or learn the aspects again"
            )
        if found.mode == "heads":
            data = (place / _HEADS).read_bytes() if (place / _HEADS).is_file() else b""
            found.heads = AspectHeads.from_bytes(data, fingerprint=known, where=str(place / _HEADS))
        else:
            from embedlab.text.aspect_documents.finetuning import TunedModels

            host = found.backbone.host  # type: ignore[attr-defined]
            found._tuned = TunedModels.load(place, host, found.aspects, adapters=found.mode == "lora")
        return found
