"""The losses: any sentence loss, summed over depths and widths that are read from one forward pass."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sentence_transformers.base.losses.gradcache import uses_gradient_cache
from sentence_transformers.sentence_transformer.losses import AnglELoss
from torch import Tensor, nn
from torch.nn.functional import kl_div, mse_loss, normalize

from embedlab._core.errors import InputError, unknown_name
from embedlab.text.matryoshka_2d.blocks import check_readout, find_blocks, width_of
from embedlab.text.matryoshka_2d.reading import VECTORS, reading, replaying, trailing_normalisation, unwrapped

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    Base = Callable[[list[Tensor]], Tensor]  # the base loss of one vector per text: columns of (B, d) -> ()

_LAYERS = "read_layers"  # travels with a column of a cached loss, from the step to its backward pass


@dataclass(frozen=True, slots=True)
class Draw:
    """What a step trains beside the whole model."""

    layers: tuple[int, ...]
    dims: tuple[int, ...]


class _Elastic(nn.Module):
    """What both losses share: one forward pass per column, read after several layers, given to the base loss in parts.

    A base loss that caches gradients embeds in mini-batches and takes the gradient of its vectors; here its vectors
    are stacks of one per layer, and its ``calculate_loss`` is called on each part of them.
    """

    model: SentenceTransformer
    loss: Any

    def __init__(self, model: SentenceTransformer, loss: Any) -> None:
        super().__init__()
        check_readout(model)
        if getattr(loss, "model", model) is not model:
            raise InputError("loss: its model is another one than model: make both with the same object")
        self.model, self.loss = model, loss
        self.num_layers, self.width = len(find_blocks(model)), width_of(model)
        self._draw = Draw((), ())
        self._cached = uses_gradient_cache(loss)
        if self._cached:
            loss.embed_minibatch = partial(self._embed_minibatch, loss.embed_minibatch)
            loss.calculate_loss = partial(self._calculate_loss, loss.calculate_loss)

    @abstractmethod
    def draw(self) -> Draw:
        """Say what this step trains."""

    @abstractmethod
    def combine(self, stacks: list[Tensor], draw: Draw, base: Base) -> Tensor:
        """Put the terms together; ``stacks`` are (B, 1 + drawn layers, D) per column, the last layer first."""

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        columns, draw = list(sentence_features), self.draw()
        layers = (self.num_layers, *draw.layers)
        value: Tensor
        if self._cached:
            self._draw = draw
            value = self.loss([{**column, _LAYERS: layers} for column in columns], labels)
            return value
        with reading(self.model, layers):
            stacks = [self.model(dict(column))[VECTORS] for column in columns]  # of (B, layers, D)

        def base(vectors: list[Tensor]) -> Tensor:
            with replaying(self.model, columns, vectors):
                term: Tensor = self.loss(columns, labels)
            return term

        return self.combine(stacks, draw, base)

    def part(self, stacks: list[Tensor], place: int, dim: int | None = None) -> list[Tensor]:
        """Return the vectors of one layer as the model would give them, or cut and of unit length."""
        vectors = [stack[:, place] for stack in stacks]
        if dim is None and not trailing_normalisation(unwrapped(self.model)):
            return vectors
        return [normalize(rows[:, :dim], dim=-1) for rows in vectors]

    def _embed_minibatch(
        self, original: Callable[..., Any], *, sentence_feature: dict[str, Any], **options: Any
    ) -> Any:
        # the backward pass embeds anew, when other layers may have been drawn: the batch itself says which were its own
        features = dict(sentence_feature)
        with reading(self.model, features.pop(_LAYERS)):
            return original(sentence_feature=features, **options)

    def _calculate_loss(
        self, original: Callable[..., Tensor], reps: list[list[Tensor]], *others: Any, with_backward: bool = False
    ) -> Tensor:
        def base(vectors: list[Tensor]) -> Tensor:
            if not with_backward:
                return original([[rows] for rows in vectors], *others)
            leaves = [rows.detach().requires_grad_() for rows in vectors]
            value = original([[leaf] for leaf in leaves], *others, with_backward=True)
            pairs = [(rows, leaf.grad) for rows, leaf in zip(vectors, leaves, strict=True) if leaf.grad is not None]
            linear = torch.stack([(rows * slope).sum() for rows, slope in pairs]).sum()
            return value + (linear - linear.detach())  # the value, with the gradient that was taken already

        value = self.combine([torch.cat(column) for column in reps], self._draw, base)
        if with_backward:
            value.backward()  # type: ignore[no-untyped-call]
        return value.detach() if with_backward else value


class TwoDMatryoshkaLoss(_Elastic):
    """Train an encoder whose vectors serve after any of its layers and cut to any width (2D Matryoshka).

    Each step draws one layer n and one width d; the whole model and the whole width are always trained. With V_n^d the
    vector after layer n cut to its first d dimensions, and L any sentence loss::

        loss  = L(V_N^D) + L(V_N^d) + w_n [L(V_n^D) + L(V_n^d)] + align
        align = kl_weight T u_n KL(softmax(V_N^D / T) || softmax(V_n^D / T))         mean over texts

    The transformer runs once per column. States before the last layer get the final norm of pre-norm families, and the
    alignment is taken before any normalisation, where it has a gradient to speak of. Cut vectors are of unit length.

    Args:
        model: The sentence-transformers model to train; adapters (peft) may be in it.
        loss: A loss of the host (or ours) on the same model; one that caches gradients is bound to this one.
        dims: Widths to draw from, each below that of the model. (paper: d.) None for the powers of two from 8; none at
            all, ``()``, leaves both width terms out.
        layers: Layers to draw from, 1 to N-1. (paper: n.) None for all of them; ``()`` leaves the shallow terms out,
            which is a plain Matryoshka loss; one only is a fixed layer.
        layer_weight: ``"inverse"`` has w_n = 1/n and u_n = ln(2 + n), the published code since its second version;
            ``"uniform"`` has w_n = 1 and u_n = T, the first version; or a function of n for w_n, beside ln(2 + n).
        kl_weight: Weight of the alignment, from 0; 0 leaves it out. Published 1.
        kl_temperature: T, above 0. Published 1.
        sample: ``"one"`` layer and width a step, or ``"all"``, which is what ``"one"`` is on average.
        detach_teacher: Whether the alignment moves the shallow layer only; the published code moves both.
        seed: Decides the draws, with ``step``. Every process draws the same.

    Attributes:
        step: Number of the next draw; counts the calls with gradients, and can be set to go on where a run stopped.

    Shape:
        columns of B texts, embedded as (B, D) at each layer -> loss () float

    Returns:
        On call, the sum above. Without gradients nothing is drawn: it is that of ``"all"``, which can be compared.

    Raises:
        InputError: an argument is out of range; the architecture is unknown; the loss has another model.

    Example:
        >>> from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> anchors, positives = ["a cat sat", "stocks fell"], ["the cat slept", "shares dropped"]
        >>> model = tiny_encoder(anchors + positives)
        >>> loss = TwoDMatryoshkaLoss(model, MultipleNegativesRankingLoss(model))
        >>> loss.layers, loss.dims
        ((1,), (8, 16))
        >>> loss([model.preprocess(column) for column in (anchors, positives)]).item() > 0
        True

    References:
        Li, Li, Li, Xie and Li (2024), 2D Matryoshka Sentence Embeddings, arXiv:2402.14776v1, section 3. Official code
        SeanLee97/AnglE (read, not copied); ``METHOD["deviations"]`` says where it differs.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        loss: nn.Module,
        *,
        dims: Sequence[int] | None = None,
        layers: Sequence[int] | None = None,
        layer_weight: Literal["inverse", "uniform"] | Callable[[int], float] = "inverse",
        kl_weight: float = 1.0,
        kl_temperature: float = 1.0,
        sample: Literal["one", "all"] = "one",
        detach_teacher: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(model, loss)
        self.dims = _widths(dims, self.width, loss)
        self.layers = _shallow(layers, self.num_layers)
        if isinstance(layer_weight, str) and layer_weight not in ("inverse", "uniform"):
            raise unknown_name("layer_weight", layer_weight, ("inverse", "uniform"))
        if not (0 <= kl_weight < math.inf and 0 < kl_temperature < math.inf):
            raise InputError(f"kl_weight={kl_weight}, kl_temperature={kl_temperature}: expected from 0, and above 0")
        if sample not in ("one", "all"):
            raise unknown_name("sample", sample, ("one", "all"))
        self.layer_weight, self.kl_weight, self.kl_temperature = layer_weight, float(kl_weight), float(kl_temperature)
        self.sample, self.detach_teacher, self.seed, self.step = sample, detach_teacher, seed, 0

    def draw(self) -> Draw:
        """Draw a layer and a width by seed and step alone, so that every process of a run draws the same."""
        if self.sample == "all" or not torch.is_grad_enabled():
            return Draw(self.layers, self.dims)
        rng = np.random.default_rng((self.seed, self.step))
        self.step += 1
        layers, dims = ([int(rng.choice(pool))] if pool else [] for pool in (self.layers, self.dims))
        return Draw(tuple(layers), tuple(dims))

    def combine(self, stacks: list[Tensor], draw: Draw, base: Base) -> Tensor:
        def at(place: int) -> Tensor:  # L(V^D) + L(V^d)
            value = base(self.part(stacks, place))
            for dim in draw.dims:
                value = value + base(self.part(stacks, place, dim)) / len(draw.dims)
            return value

        value = at(0)
        for place, n in enumerate(draw.layers, start=1):
            weight, gain = self._weights(n)
            shallow = weight * at(place)
            if self.kl_weight and gain:
                teacher, student = (torch.cat([stack[:, p] for stack in stacks]) for p in (0, place))
                shallow = shallow + self.kl_weight * gain * self._divergence(teacher, student)
            value = value + shallow / len(draw.layers)
        return value

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "loss": type(self.loss).__name__,
            "dims": list(self.dims),
            "layers": list(self.layers),
            "layer_weight": self.layer_weight if isinstance(self.layer_weight, str) else "custom",
            "kl_weight": self.kl_weight,
            "kl_temperature": self.kl_temperature,
            "sample": self.sample,
            "detach_teacher": self.detach_teacher,
            "seed": self.seed,
        }

    def _weights(self, n: int) -> tuple[float, float]:
        """w_n and u_n."""
        if self.layer_weight == "uniform":
            return 1.0, self.kl_temperature
        weight = 1 / n if self.layer_weight == "inverse" else float(self.layer_weight(n))
        return weight, math.log(2 + n)

    def _divergence(self, teacher: Tensor, student: Tensor) -> Tensor:
        teacher = teacher.detach() if self.detach_teacher else teacher
        return self.kl_temperature * _softmax_kl(teacher, student, self.kl_temperature)


class EspressoLoss(_Elastic):
    """Train all layers at once, each pressing what it holds into its first dimensions (Espresso, ESE).

    With V_n^k the vector after layer n cut to k dimensions, and L any sentence loss::

        loss     = L(V_N^D) + L(V_N^k) + C(V_N) + 1/|layers| sum_n [L(V_n^k) + C(V_n)] / (1 + ln(1 + n))
        C(V)     = MSE(V^k, P) + T KL(softmax(P / T) || softmax(V^k / T))                         P = PCA_k(V)
        PCA_k(V) = V U diag(s)     with U, s of the k largest singular values of softmax(V'V / sqrt(D))

    P carries no gradient: V^k learns to hold what V does.

    Args:
        model: The sentence-transformers model to train; adapters (peft) may be in it.
        loss: A loss of the host (or ours) on the same model; one that caches gradients is bound to this one.
        dim: The small width, below that of the model. (paper: k.) Published 128.
        layers: Layers beside the last, 0 (the embedding layer's output) to N-1. None for 1 to N-1; ``"official"`` for
            0 to N-2 as the published code has it, whose last layer but one is never trained.
        compression_weight: Weight of every C, from 0; 0 leaves it out. Published 1.
        temperature: T, above 0. Published 1.

    Shape:
        columns of B texts, embedded as (B, D) at each layer -> loss () float

    Returns:
        On call, the sum above.

    Raises:
        InputError: an argument is out of range; the architecture is unknown; the loss has another model.

    Example:
        >>> from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> anchors, positives = ["a cat sat", "stocks fell"], ["the cat slept", "shares dropped"]
        >>> model = tiny_encoder(anchors + positives, num_layers=3)
        >>> loss = EspressoLoss(model, MultipleNegativesRankingLoss(model), dim=8)
        >>> loss.layers
        (1, 2)
        >>> loss([model.preprocess(column) for column in (anchors, positives)]).item() > 0
        True

    References:
        Li, Li, Li, Xie and Li (2025), ESE: Espresso Sentence Embeddings, ICLR, arXiv:2402.14776 (revised). Official
        code SeanLee97/AnglE (read, not copied); ``METHOD["deviations"]`` says where it differs.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        loss: nn.Module,
        *,
        dim: int = 128,
        layers: Sequence[int] | Literal["official"] | None = None,
        compression_weight: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(model, loss)
        (self.dim,) = _widths((dim,), self.width, loss)
        if layers == "official":
            layers = range(self.num_layers - 1)
        elif isinstance(layers, str):
            raise unknown_name("layers", layers, ("official",))
        self.layers = _shallow(layers, self.num_layers, first=0)
        if not (0 <= compression_weight < math.inf and 0 < temperature < math.inf):
            raise InputError(
                f"compression_weight={compression_weight}, temperature={temperature}: expected from 0, and above 0"
            )
        self.compression_weight, self.temperature = float(compression_weight), float(temperature)

    def draw(self) -> Draw:
        """Return all layers: nothing is drawn."""
        return Draw(self.layers, (self.dim,))

    def combine(self, stacks: list[Tensor], draw: Draw, base: Base) -> Tensor:
        def small(place: int) -> Tensor:  # L(V^k) + C(V)
            value = base(self.part(stacks, place, self.dim))
            if self.compression_weight:
                vectors = torch.cat([stack[:, place] for stack in stacks])
                value = value + self.compression_weight * compression(vectors, self.dim, self.temperature)
            return value

        value = base(self.part(stacks, 0)) + small(0)
        for place, n in enumerate(draw.layers, start=1):
            value = value + small(place) / (1 + math.log(1 + n)) / len(draw.layers)
        return value

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "loss": type(self.loss).__name__,
            "dim": self.dim,
            "layers": list(self.layers),
            "compression_weight": self.compression_weight,
            "temperature": self.temperature,
        }


def compression(vectors: Tensor, dim: int, temperature: float = 1.0) -> Tensor:
    """Measure how far the first dimensions are from holding what the principal ones hold: C(V) of ``EspressoLoss``.

    Args:
        vectors: The vectors, not normalised. (paper: V.)
        dim: Number of dimensions that shall hold them. (paper: k.)
        temperature: T of the divergence.

    Shape:
        vectors (B, D) float -> () float

    Returns:
        Mean squared error plus divergence; the gradient reaches the first dimensions only.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        front = vectors[:, :dim].to(torch.promote_types(vectors.dtype, torch.float32))
        target = principal(vectors.detach(), dim).to(front.dtype)
        return mse_loss(front, target) + temperature * _softmax_kl(target, front, temperature)


def principal(vectors: Tensor, dim: int) -> Tensor:
    """Project vectors on the main directions of their feature attention: PCA_k of ``EspressoLoss``.

    Args:
        vectors: The vectors, not normalised. (paper: V.)
        dim: Number of directions. (paper: k.)

    Shape:
        vectors (B, D) float -> (B, k) float64

    Returns:
        The projections, times the singular values. A direction points where its largest entry is positive.
    """
    rows = vectors.double()  # for the squares below
    attention = torch.softmax(rows.T @ rows / math.sqrt(rows.shape[1]), dim=-1)  # (D, D)
    squares, directions = torch.linalg.eigh(attention @ attention.T)  # ascending
    squares, directions = squares.flip(0)[:dim], directions.flip(1)[:, :dim]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))  # (1, k)
    projected: Tensor = rows @ (directions * largest.sign() * squares.clamp(min=0).sqrt())
    return projected


def _softmax_kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) over the features, mean over the rows."""
    with torch.autocast(student.device.type, enabled=False):
        dtype = torch.promote_types(student.dtype, torch.float32)
        log_p, log_q = (torch.log_softmax(rows.to(dtype) / temperature, dim=-1) for rows in (teacher, student))
        divergence: Tensor = kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        return divergence


def _widths(dims: Sequence[int] | None, width: int, loss: nn.Module) -> tuple[int, ...]:
    if dims is None:
        dims = [2**power for power in range(3, 16) if 2**power < width]
    for dim in dims:
        if not isinstance(dim, int) or isinstance(dim, bool) or not 1 <= dim < width:
            raise InputError(f"dims: {dim!r} is not in 1 to {width - 1}; the full width of {width} is trained anyway")
        if dim % 2 and any(isinstance(module, AnglELoss) for module in loss.modules()):
            raise InputError(f"dims: {dim} is odd, but an angle needs a real and an imaginary half: use even widths")
    return tuple(sorted(set(dims)))


def _shallow(layers: Sequence[int] | None, count: int, *, first: int = 1) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(1, count))
    for layer in layers:
        if not isinstance(layer, int) or isinstance(layer, bool) or not first <= layer < count:
            raise InputError(
                f"layers: {layer!r} is not in {first} to {count - 1}; the last, {count}, is trained anyway"
            )
    return tuple(sorted(set(layers)))
