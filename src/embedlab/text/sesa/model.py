"""SESA: learn from relevant pairs to place texts and declared sets in a space whose axes are concepts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.files import atomic_folder
from embedlab._core.quiet import quiet_host
from embedlab.models.encoder import checked_texts
from embedlab.models.sentence_transformer import SentenceTransformerModel
from embedlab.text.sesa.encoders import LSTM_NAME, body_of
from embedlab.text.sesa.explaining import Explaining
from embedlab.text.sesa.layer import Activation, ExplicitLayer
from embedlab.text.sesa.objective import Objective
from embedlab.text.sesa.set_side import ConceptSetEncoder, Sets, co_occurrence
from embedlab.text.sesa.sides import Sides
from embedlab.text.sesa.space import Comparable, ConceptSpace, Declared, Item, as_item
from embedlab.text.sesa.training import Epoch, Pairs, Reading, check_steps, item_activations, train

Floats = NDArray[np.float32]
Mode: TypeAlias = Literal["both", "text_only", "set_only"]
AxisWeights: TypeAlias = Literal["ones", "idf", "learned"]
Init: TypeAlias = Literal["random", "names"]
_FILES = ("sesa.json", "sesa.safetensors")


class SESA(Explaining):
    r"""Embed texts and declared concept sets into named dimensions, learned from which pairs are relevant.

    A text becomes :math:`a = \phi(W z + b)` with z from a text encoder, a declared set :math:`a = \phi(P^\top s)` with
    P near the identity, and a pair scores :math:`s = \sum_k u_k v_k` with u, v the activations at length one: the score
    is what each concept contributes. Relevance trains both sides, and the declared concepts of the texts tell the axes
    what they mean.

    Args:
        space: The concepts.
        encoder: What reads texts: ``"lstm"``, made here; ``"default"`` or another name for ``load_model``; or a model
            of the host, which is copied.
        mode: What counts of an ``Item``: ``"both"``, ``"text_only"`` or ``"set_only"``. Plain texts always count.
        activation: ``"relu"``, ``"sigmoid"`` or ``"softmax"``. (paper: phi)
        init: Whether the vector of a concept starts at ``"random"``, or as the encoder's embedding of its article
            (``"names"``, for encoders that are trained already).
        sets: How declared concepts are read: ``"co_occurrence"``, ``"identity"`` or ``"dense"``; see
            ``ConceptSetEncoder``.
        gamma: What a declared concept passes on to those it comes with, at least 0.
        axis_weights: ``"ones"``, ``"idf"`` (ln of how rarely a concept is declared, so that common ones do not swamp
            the score) or ``"learned"``. (paper: w)
        objective: The loss.
        normalize: Whether the score is the cosine; otherwise the dot product.
        freeze: Whether the text encoder stays as it is, which is fast; not for ``"lstm"``.
        seed: Decides first weights and the order of the data.

    Raises:
        InputError: an option is unknown or out of range.

    Example:
        >>> space = ConceptSpace(["databases", "carpentry"])
        >>> texts = ["query the tables", "nails and wood", "store rows in tables", "saw the wood"]
        >>> sets = [["databases"], ["carpentry"], ["databases"], ["carpentry"]]
        >>> pairs = [(text, Item(concepts=[name])) for text in texts for name in space.names]
        >>> labels = [name in held for held in sets for name in space.names]
        >>> sesa = SESA(space, encoder="default", freeze=True)
        >>> sesa = sesa.fit(pairs, labels, concepts=dict(zip(texts, sets)), epochs=60, learning_rate=0.05)
        >>> [name for name, _ in sesa.explain("rows of a table", Item(concepts=["databases"]), top_k=1)]
        ['databases']

    References:
        Bogdanova and Yazdani (2017), SESA: Supervised Explicit Semantic Analysis, arXiv:1708.03246v1.
    """

    def __init__(
        self,
        space: ConceptSpace,
        *,
        encoder: str | SentenceTransformer = LSTM_NAME,
        mode: Mode = "both",
        activation: Activation = "relu",
        init: Init = "random",
        sets: Sets = "co_occurrence",
        gamma: float = 0.5,
        axis_weights: AxisWeights = "ones",
        objective: Objective | None = None,
        normalize: bool = True,
        freeze: bool = False,
        seed: int = 0,
    ) -> None:
        options = {"mode": Mode, "activation": Activation, "init": Init, "sets": Sets, "axis_weights": AxisWeights}
        given = {"mode": mode, "activation": activation, "init": init, "sets": sets, "axis_weights": axis_weights}
        for name, kind in options.items():
            if given[name] not in get_args(kind):
                raise unknown_name(name, str(given[name]), get_args(kind))
        if gamma < 0:
            raise InputError(f"gamma={gamma}: must be at least 0")
        if freeze and encoder == LSTM_NAME:
            raise InputError("freeze=True with encoder='lstm': an untrained network must be trained; give another one")
        self.space, self.mode, self.activation, self.init, self.sets = space, mode, activation, init, sets
        self.gamma, self.axis_weights, self.objective = gamma, axis_weights, objective or Objective()
        self.normalize, self.freeze, self.seed, self.encoder = normalize, freeze, seed, encoder
        self.history: list[Epoch] = []
        self._sides: Sides | None = None

    @classmethod
    def latent_twin(cls, space: ConceptSpace, **options: Any) -> Self:
        """Make the model that differs in one thing: nothing tells its axes what they mean.

        Its declared sets go through a dense network, and the concepts of texts are not asked for. The axes are named
        all the same, and the names are wrong: it is there to be compared with.

        Args:
            space: The concepts; the twin has as many axes.
            **options: As for ``SESA``, without ``sets`` and ``init``.

        Returns:
            The twin.
        """
        objective = options.pop("objective", Objective())
        values = {name: getattr(objective, name) for name in Objective.__dataclass_fields__}
        return cls(space, sets="dense", objective=Objective(**{**values, "concept": 0.0}), **options)

    @property
    def host(self) -> SentenceTransformer:
        """The text side as a model of sentence-transformers; its ``encode`` gives the activations.

        Raises:
            InputError: not fitted.
        """
        return self._fitted().host

    def fit(
        self,
        pairs: Sequence[tuple[str, Comparable]],
        labels: ArrayLike,
        *,
        concepts: Mapping[str, Declared] | None = None,
        validation: tuple[Sequence[tuple[str, Comparable]], ArrayLike] | None = None,
        learning_rate: float = 1e-3,
        batch_size: int = 128,
        epochs: int = 20,
        patience: int = 4,
    ) -> Self:
        """Learn from pairs.

        Args:
            pairs: A text and a text or item. A text comes with all its pairs in one batch, so give each text its
                relevant item and a few others (``negative_pairs`` finds these).
            labels: 1 for relevant pairs, 0 for others, (P,).
            concepts: The concepts that are true of texts of the first column, by text; what is missing is not asked
                for.
            validation: Pairs and labels that decide when to stop; None trains all epochs.
            learning_rate: Of Adam.
            batch_size: Texts in a batch.
            epochs: At most so many.
            patience: Stop after so many epochs without a better AUC on the validation pairs.

        Returns:
            The model itself.

        Raises:
            InputError: there are no pairs of either label, a concept is unknown, an item lacks what ``mode`` asks for,
                or a setting is out of range.
        """
        check_steps(learning_rate, batch_size, epochs, patience)
        numbered = self._numbered(pairs, labels)
        known = {text: concepts[text] for text in numbered.texts if concepts and text in concepts}
        sides = self._build(numbered, known)
        self.history = train(
            sides,
            numbered,
            self._declared(numbered, known),
            self.objective,
            validation=None if validation is None else self._numbered(*validation),
            freeze=self.freeze,
            normalize=self.normalize,
            learning_rate=learning_rate,
            batch_size=batch_size,
            epochs=epochs,
            patience=patience,
            seed=self.seed,
        )
        self._sides = sides
        return self

    def encode(self, texts: Sequence[str] | None = None, concepts: Sequence[Declared] | None = None) -> Floats:
        """Encode texts, declared sets, or items that have both.

        Args:
            texts: The texts.
            concepts: The declared concepts of each item.

        Shape:
            N texts, N sets, or both -> (N, m) float32

        Returns:
            Activations of at least 0, columns in the order of ``space.names``; the zero row where nothing is known.

        Raises:
            InputError: not fitted, neither is given, they are not as many, or a concept is unknown.
        """
        if texts is None and concepts is None:
            raise InputError("texts, concepts: give one of them, or both")
        count = len(texts if texts is not None else concepts or ())
        if texts is not None and concepts is not None and len(concepts) != count:
            raise InputError(f"concepts has {len(concepts)} entries for {count} texts: give the set of each")
        return self._activations(
            [
                Item(None if texts is None else texts[place], None if concepts is None else concepts[place])
                for place in range(count)
            ]
        )

    def vectors(self, items: Sequence[Comparable]) -> Floats:
        """Encode items by what ``mode`` lets count.

        Args:
            items: Texts or items.

        Shape:
            items N -> (N, m) float32

        Returns:
            Activations of at least 0.

        Raises:
            InputError: an item lacks what ``mode`` asks for, or a concept is unknown.
        """
        return self._activations([self._reduced(each) for each in items])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model; ``load_model`` opens the text side of the folder, and a collection can be made with it.

        Args:
            folder: The folder; an existing one is replaced.
        """
        sides = self._fitted()
        names = ("mode", "activation", "init", "sets", "gamma", "axis_weights", "normalize", "freeze", "seed")
        config = {name: getattr(self, name) for name in names}
        config |= {"names": self.space.names, "descriptions": self.space.descriptions}
        config["objective"] = {name: getattr(self.objective, name) for name in Objective.__dataclass_fields__}
        state = {name: value.contiguous() for name, value in sides.state_dict().items() if not name.startswith("host.")}
        with atomic_folder(folder) as fresh, quiet_host():
            sides.host.save(str(fresh), create_model_card=False)
            (fresh / _FILES[0]).write_text(json.dumps(config, ensure_ascii=False) + "\n", encoding="utf-8")
            save_file(state, fresh / _FILES[1])

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Open what ``save`` has written.

        Args:
            folder: The folder.

        Returns:
            The fitted model.

        Raises:
            InputError: the folder holds no such model, or a damaged one.
        """
        home = Path(folder)
        try:
            config = json.loads((home / _FILES[0]).read_text(encoding="utf-8"))
            state = load_file(home / _FILES[1])
            space = ConceptSpace(config.pop("names"), config.pop("descriptions"))
            made = cls(space, encoder=str(folder), **{**config, "objective": Objective(**config["objective"])})
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"folder={str(folder)!r} holds no SESA model that can be read: {error}") from error
        host = SentenceTransformerModel(str(folder), device="cpu").host
        layer: Any = host[-1]
        if list(layer.concepts) != list(space.names):
            raise InputError(f"folder={str(folder)!r} is damaged: its files name different concepts")
        sides = Sides(list(host)[:-1], layer, made._set_side())
        wrong = sides.load_state_dict(state, strict=False)
        if wrong.unexpected_keys or any(not name.startswith("host.") for name in wrong.missing_keys):
            raise InputError(f"folder={str(folder)!r} is damaged: {_FILES[1]} does not fit {_FILES[0]}")
        made._sides = sides.eval()
        return made

    def _fitted(self) -> Sides:
        if self._sides is None:
            raise InputError("SESA has not seen any pairs: call fit(pairs, labels) first")
        return self._sides

    def _reduced(self, given: Comparable) -> Item:
        """Leave of an item what counts in this mode."""
        item = as_item(given)
        if isinstance(given, str) or self.mode == "both":
            return item
        kept = Item(item.text) if self.mode == "text_only" else Item(None, item.concepts)
        if self.mode == "text_only" and kept.text is None:
            raise InputError(f"mode='text_only': {given!r:.80} has no text")
        if self.mode == "set_only" and not kept.concepts:
            raise InputError(f"mode='set_only': {given!r:.80} declares no concept; leave it out, or use another mode")
        return kept

    def _activations(self, items: Sequence[Item]) -> Floats:
        sides = self._fitted()
        texts = list(dict.fromkeys(checked_texts([item.text for item in items if item.text is not None])))  # each once
        number_of: dict[str | None, int] = {text: number for number, text in enumerate(texts)}
        place = np.array([number_of.get(item.text, -1) for item in items], np.int64)
        declared = torch.from_numpy(self.space.multi_hot([item.concepts or () for item in items]))
        with torch.no_grad():
            rows = torch.zeros(len(texts), len(self.space))
            said = np.array([number for number, text in enumerate(texts) if text.strip()], np.int64)
            if len(said):
                found = Reading(sides, [texts[number] for number in said], freeze=False).all()
                rows[torch.from_numpy(said)] = sides.of_texts(found)[0]
            return np.asarray(item_activations(sides, rows, torch.from_numpy(place), declared).numpy(), np.float32)

    def _numbered(self, pairs: Sequence[tuple[str, Comparable]], labels: ArrayLike) -> Pairs:
        marks = np.asarray(labels, np.float32)
        if marks.shape != (len(pairs),) or not ((marks > 0.5).any() and (marks <= 0.5).any()):
            raise InputError(f"labels of shape {marks.shape} for {len(pairs)} pairs: one each, some 1 and some 0")
        texts: dict[str, int] = {}
        firsts = [texts.setdefault(text, len(texts)) for text in checked_texts([pair[0] for pair in pairs])]
        numbers: dict[int, int] = {}  # an item that is the same object is one item
        items: list[Item] = []
        seconds = []
        for _, given in pairs:
            number = numbers.setdefault(id(given), len(items))
            if number == len(items):
                items.append(self._reduced(given))
            seconds.append(number)
        places = [-1 if item.text is None else texts.setdefault(item.text, len(texts)) for item in items]
        return Pairs(
            list(texts),
            np.array(firsts, np.int64),
            np.array(seconds, np.int64),
            np.array(places, np.int64),
            torch.from_numpy(self.space.multi_hot([item.concepts or () for item in items])),
            torch.from_numpy(marks),
        )

    def _declared(self, pairs: Pairs, concepts: dict[str, Declared]) -> torch.Tensor | None:
        if not concepts:
            return None
        rows = np.full((len(pairs.texts), len(self.space)), np.nan, np.float32)
        known = [place for place, text in enumerate(pairs.texts) if text in concepts]
        rows[known] = self.space.multi_hot([concepts[pairs.texts[place]] for place in known]) > 0
        return torch.from_numpy(rows)

    def _build(self, pairs: Pairs, concepts: dict[str, Declared]) -> Sides:
        body = body_of(self.encoder, [*pairs.texts, *self.space.articles], seed=self.seed)
        sides = Sides(body, self._layer(_width(body)), self._set_side())
        held = pairs.item_set.numpy()
        held = np.concatenate([held[held.any(axis=1)], self.space.multi_hot(concepts.values()) > 0])
        held = held if len(held) else np.zeros((1, len(self.space)))
        sides.sets.start_at(co_occurrence(held, gamma=self.gamma))
        shares = (held > 0).mean(axis=0)
        if self.axis_weights == "idf":
            weights = np.log((1 + len(held)) / (1 + len(held) * shares)) + 1e-3
            sides.layer.set_axis_weights(weights / weights.mean())
        with torch.no_grad():
            if self.init == "names":
                sides.eval()
                sides.layer.linear.weight.copy_(Reading(sides, self.space.articles, freeze=False).all())
            if self.activation == "sigmoid":
                sides.layer.linear.bias.copy_(torch.logit(torch.from_numpy(shares), eps=1e-3))
        return sides

    def _layer(self, width: int) -> ExplicitLayer:
        learned = self.axis_weights == "learned"
        return ExplicitLayer(width, self.space.names, self.activation, learn_weights=learned, seed=self.seed)

    def _set_side(self) -> ConceptSetEncoder:
        scale, shift = {"relu": (1.0, 0.0), "sigmoid": (8.0, -4.0), "softmax": (8.0, 0.0)}[self.activation]
        return ConceptSetEncoder(len(self.space), self.sets, scale=scale, shift=shift, seed=self.seed)


def _width(body: Sequence[Any]) -> int:
    """Return the width of what the last module that knows it gives."""
    for module in reversed(body):
        if hasattr(module, "get_embedding_dimension"):
            return int(module.get_embedding_dimension())
    raise InputError("encoder: none of its modules tells the length of its vectors")
