"""The host's guided losses, with the guide read from a store instead of run at every step, and the paper's options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from sentence_transformers.sentence_transformer.losses import CachedGISTEmbedLoss, GISTEmbedLoss
from sentence_transformers.util import all_gather, all_gather_with_grad, get_rank
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from embedlab._core.errors import InputError
from embedlab.text.gist.arguments import check_guiding, check_options, name_of
from embedlab.text.gist.store import GuideStore

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

VECTORS = "guide_vectors"  # the feature that carries them, beside input_ids and attention_mask
TIE = 1e-6  # two cosines of the guide this close are the same cosine, rounded


class _FromFeatures(nn.Module):
    """Stands where the host runs its guide, and hands over the vectors that came with the batch."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        # The host compares the guide's tokenizer with the student's, to see if it must re-tokenise: never. It asks both
        # to be of transformers, though nothing here depends on it; that of a static student is wrapped.
        own = model.tokenizer
        self.tokenizer = (
            own if isinstance(own, PreTrainedTokenizerBase) else PreTrainedTokenizerFast(tokenizer_object=own)  # type: ignore[no-untyped-call]
        )
        self.max_seq_length = model.max_seq_length

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        if VECTORS not in features:
            raise InputError(
                f"sentence_features lack {VECTORS!r}: pass data_collator=loss.data_collator(args) to the trainer, "
                "or tokenise with loss.preprocess"
            )
        return {"sentence_embedding": features[VECTORS].squeeze(1)}  # (B, D)


class _OnlyViolators(nn.Module):
    """Cross entropy over the positive and the candidates that the student still ranks above it.

    Stands where the host takes its cross entropy; what the guide has dropped comes with a logit of minus infinity.
    """

    def forward(self, logits: Tensor, positive: Tensor) -> Tensor:
        own = logits.gather(1, positive[:, None])  # (B, 1)
        return cross_entropy(logits.masked_fill(logits < own, -torch.inf), positive)


class _Guided(nn.Module):
    """What the stock loss and its cached form share here; stands before the host class among the bases."""

    model: SentenceTransformer
    guide: Any
    margin_strategy: Any
    cross_entropy_loss: Any
    margin: float
    contrast_anchors: bool
    gather_across_devices: bool

    def __init__(
        self,
        model: SentenceTransformer,
        guide: GuideStore | SentenceTransformer | None,
        *,
        temperature: float,
        margin_strategy: Literal["absolute", "relative"],
        margin: float,
        negative_mode: Literal["all", "hard"],
        triplet: Literal["hard", "soft"] | None,
        triplet_margin: float,
        **options: Any,
    ) -> None:
        check_guiding(model, guide, temperature, margin_strategy, margin)
        check_options(guide, negative_mode, triplet, triplet_margin)
        config = {"temperature": temperature, "margin_strategy": margin_strategy, "margin": margin, **options}
        config |= {"negative_mode": negative_mode, "triplet": triplet, "triplet_margin": triplet_margin}
        # A strict > alone keeps whatever ties with the positive: its exact duplicates and, when it repeats the anchor,
        # the self pairs, each a negative of logit 1 / temperature. A slack of one rounding error drops every one.
        if margin_strategy == "absolute" or margin == 0:
            margin_strategy, margin = "absolute", margin + TIE
        runs: nn.Module
        shown: nn.Module
        if isinstance(guide, nn.Module):
            runs, shown = guide.eval().requires_grad_(False), model
        else:
            runs = _FromFeatures(model)
            # all the plain loss wants of a model here is its tokenizer; the cached one looks at its modules too
            shown = model if getattr(self, "uses_gradient_cache", False) else runs
        super().__init__(
            shown, runs, temperature=temperature, margin_strategy=margin_strategy, margin=margin, **options
        )
        self.model = model
        self.store = guide if isinstance(guide, GuideStore) else None
        self.triplet, self.triplet_margin = triplet, triplet_margin
        if negative_mode == "hard":
            self.cross_entropy_loss = _OnlyViolators()
        self._unguided = guide is None
        self._config = {"guide": name_of(guide), **config}

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        columns = list(sentence_features)
        if self._unguided:
            _number_pairs(columns)
        value: Tensor = super().forward(columns, labels)
        return value

    def _triplets(self, columns: Sequence[Tensor], seen: Sequence[Tensor]) -> Tensor:
        """Give each row's guided triplet, from the student's and the guide's embeddings of all columns.

        The texts that the guide finds as near as the positive are the row's positives, all others its negatives.
        """
        (anchors, *texts), (seen_anchors, *seen_texts) = columns, seen  # (B, D) each
        rows = torch.arange(len(anchors), device=anchors.device)
        own, size = rows, len(anchors)
        if self.gather_across_devices:
            texts, seen_texts = (
                [all_gather_with_grad(each) for each in texts],
                [all_gather(each) for each in seen_texts],
            )
            own = rows + get_rank() * size
        if self.contrast_anchors:
            texts, seen_texts = [*texts, anchors], [*seen_texts, seen_anchors]
        distance = 1 - torch.cat([self.sim_matrix(anchors, each) for each in texts], 1)  # (B, N)
        likeness = torch.cat([self.sim_matrix(seen_anchors, each) for each in seen_texts], 1)
        bar = likeness.gather(1, own[:, None])
        bar = bar - (bar.abs() * self.margin if self.margin_strategy == "relative" else self.margin)
        positive = (likeness > bar).scatter(1, own[:, None], True)
        negative = ~positive
        if self.contrast_anchors:
            positive[rows, distance.shape[1] - size + rows] = False  # the anchor itself; it is no negative either
        if self.triplet == "hard":
            far = distance.masked_fill(~positive, -torch.inf).amax(1)
            near = distance.masked_fill(~negative, torch.inf).amin(1)
        else:
            far, near = ((distance * mask).sum(1) / mask.sum(1).clamp(min=1) for mask in (positive, negative))
        # a row without negatives teaches nothing; a positive there always is
        return torch.where(negative.any(1), (far - near + self.triplet_margin).relu(), 0.0)

    def sim_matrix(self, embed1: Tensor, embed2: Tensor) -> Tensor:
        # One product of unit rows; the host's broadcast form holds B x B x D numbers. Never in half precision: the
        # temperature multiplies a rounding error by a hundred, and ties at the threshold would fall at random.
        dtype = torch.promote_types(embed1.dtype, torch.float32)
        with torch.autocast(embed1.device.type, enabled=False):
            return normalize(embed1.to(dtype), dim=-1) @ normalize(embed2.to(dtype), dim=-1).T

    def preprocess(self, inputs: Sequence[str], **options: Any) -> dict[str, Any]:
        """Tokenise one column as the student does, and bring the guide's vectors of the raw texts along."""
        features: dict[str, Any] = self.model.preprocess(inputs, **options)
        if self.store is not None:
            vectors = torch.from_numpy(self.store.vectors(inputs))  # (B, D)
            # (B, 1, D): the cached loss trims the padding of all features as wide as the tokens, D may be that width
            features[VECTORS] = vectors[:, None]
        return features

    def data_collator(
        self, args: SentenceTransformerTrainingArguments | None = None
    ) -> SentenceTransformerDataCollator:
        """Make the host's collator for its trainer, with the prompts and routes of ``args``."""
        from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

        return SentenceTransformerDataCollator(
            preprocess_fn=self.preprocess,
            prompts=args.prompts if args else None,
            router_mapping=args.router_mapping if args else None,  # type: ignore[arg-type]  # a dict once parsed
        )

    def get_config_dict(self) -> dict[str, Any]:
        return self._config


class GuidedContrastiveLoss(_Guided, GISTEmbedLoss):
    """Contrast pairs or triples within a batch, leaving out what a stronger guide takes for a false negative.

    For anchor ``q_i`` the guide's cosine with its own positive, ``t_i = ~QP_ii``, is the bar: every other text of the
    batch that the guide finds nearer than that is dropped from the partition function. The student's cosines are
    ``QP, QN, QQ, PP`` (anchors with positives, negatives, anchors; positives with positives), the guide's ``~M``::

        M_ij = -inf  where ~M_ij > t_i          (each row i of all four blocks against its own t_i)
        L    = cross_entropy([QP | QN | QQ | PP] / tau, labels = i)

    The guide's vectors of a store travel with the batch: pass ``data_collator=loss.data_collator(args)`` to
    ``SentenceTransformerTrainer``, or tokenise with ``loss.preprocess`` in a loop of your own.

    Args:
        model: The student, a sentence-transformers model.
        guide: A ``GuideStore`` with every text of the training data (the guide then costs nothing per step), a
            sentence-transformers model to run at every step as the host does (it is frozen), or None for the four-block
            loss without a guide, in which only the diagonals of QQ and PP are dropped.
        temperature: Divisor of the cosines, above 0. (paper: tau.) Published 0.01.
        margin_strategy: ``"absolute"`` lowers the bar to ``t_i - margin``, ``"relative"`` to ``t_i - |t_i| * margin``.
        margin: By how much the bar is lowered, from 0; a larger one drops more. Published 0.
        contrast_anchors: Whether to keep the block QQ.
        contrast_positives: Whether to keep the block PP; leaving it out may serve retrieval better.
        gather_across_devices: Whether the positives and negatives of all processes serve as candidates.
        negative_mode: ``"all"`` keeps every candidate that the guide leaves; ``"hard"`` only those that the student
            still ranks above the row's positive (``M_ij >= QP_ii``), and a row without any costs nothing.
        triplet: Adds ``max(0, d_p - d_n + triplet_margin)``, a mean over the batch, with ``d`` one less the student's
            cosine with the anchor. Of QP, QN and QQ (if kept), the positives are what the guide finds as near as the
            positive, the negatives all others: ``"hard"`` takes the furthest positive and the nearest negative,
            ``"soft"`` the means over both. The anchor itself is neither; a row without negatives adds 0. None adds
            nothing.
        triplet_margin: By how much negatives shall be further than positives, from 0.

    Shape:
        two or three columns of B texts, embedded by the student as (B, D) -> loss () float

    Returns:
        On call, the mean over the batch of minus the log probability of each anchor's own positive; 0 or more.

    Raises:
        InputError: an argument is out of range; the guide is the student itself; a column was tokenised without the
            guide's vectors; ``preprocess`` meets a text that the store lacks.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> anchors, positives = ["a cat sat", "stocks fell"], ["the cat slept", "shares dropped"]
        >>> student, guide = (tiny_encoder(anchors + positives, seed=seed) for seed in (0, 1))
        >>> store = GuideStore.build(guide, anchors + positives, fingerprint="tiny:1")
        >>> loss = GuidedContrastiveLoss(student, store)
        >>> features = [loss.preprocess(column) for column in (anchors, positives)]
        >>> loss(features).item() > 0
        True

    References:
        Solatorio (2024), GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning,
        arXiv:2402.16829v1, section 3. Official code avsolatorio/GISTEmbed (read, not copied). Differs from it: what
        ties with the positive to within 1e-6 is dropped too, so that exact duplicates never act as negatives.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        guide: GuideStore | SentenceTransformer | None = None,
        *,
        temperature: float = 0.01,
        margin_strategy: Literal["absolute", "relative"] = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
        negative_mode: Literal["all", "hard"] = "all",
        triplet: Literal["hard", "soft"] | None = None,
        triplet_margin: float = 1.0,
    ) -> None:
        super().__init__(
            model,
            guide,
            temperature=temperature,
            margin_strategy=margin_strategy,
            margin=margin,
            contrast_anchors=contrast_anchors,
            contrast_positives=contrast_positives,
            gather_across_devices=gather_across_devices,
            negative_mode=negative_mode,
            triplet=triplet,
            triplet_margin=triplet_margin,
        )

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        columns = list(sentence_features)
        if self.triplet is None:
            return super().forward(columns, labels)
        # the host embeds the columns and keeps the vectors to itself
        with _overheard(self.model) as embedded, _overheard(self.guide) as seen:
            value = super().forward(columns, labels)
        triplets = self._triplets(*(torch.cat(each).chunk(len(columns)) for each in (embedded, seen)))
        return value + triplets.mean()


class CachedGuidedContrastiveLoss(_Guided, CachedGISTEmbedLoss):
    """Contrast batches larger than memory: the same value, embedded in mini-batches, with any number of negatives.

    The batch is embedded without gradients, the loss is taken back to the embeddings, and each mini-batch is embedded
    once more to carry its gradient on: one forward pass more, for the memory of one mini-batch.

    Args:
        model: See ``GuidedContrastiveLoss``, as for all that follow but the next two.
        guide: A store, a model or None.
        temperature: Divisor of the cosines, above 0. Published 0.01.
        mini_batch_size: Texts embedded at once; decides memory, not the value.
        show_progress_bar: Whether to show the progress over mini-batches.
        margin_strategy: ``"absolute"`` or ``"relative"``.
        margin: By how much the bar is lowered, from 0.
        contrast_anchors: Whether to keep the block QQ.
        contrast_positives: Whether to keep the block PP.
        gather_across_devices: Whether the candidates of all processes serve.
        negative_mode: ``"all"`` or ``"hard"``.
        triplet: ``"hard"``, ``"soft"`` or None.
        triplet_margin: By how much negatives shall be further than positives.

    Shape:
        two or more columns of B texts, embedded by the student as (B, D) -> loss () float

    Returns:
        On call, the value of ``GuidedContrastiveLoss`` on the same batch.

    Raises:
        InputError: as for ``GuidedContrastiveLoss``.

    References:
        Gao, Zhang, Han, Callan (2021), Scaling deep contrastive learning batch size under memory limited setup,
        arXiv:2101.06983v2; and those of ``GuidedContrastiveLoss``.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        guide: GuideStore | SentenceTransformer | None = None,
        *,
        temperature: float = 0.01,
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,
        margin_strategy: Literal["absolute", "relative"] = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
        negative_mode: Literal["all", "hard"] = "all",
        triplet: Literal["hard", "soft"] | None = None,
        triplet_margin: float = 1.0,
    ) -> None:
        super().__init__(
            model,
            guide,
            temperature=temperature,
            mini_batch_size=mini_batch_size,
            show_progress_bar=show_progress_bar,
            margin_strategy=margin_strategy,
            margin=margin,
            contrast_anchors=contrast_anchors,
            contrast_positives=contrast_positives,
            gather_across_devices=gather_across_devices,
            negative_mode=negative_mode,
            triplet=triplet,
            triplet_margin=triplet_margin,
        )

    def calculate_loss(
        self, reps: list[list[Tensor]], reps_guided: list[list[Tensor]], *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss of embedded columns; the host calls this.

        Args:
            reps: The student's embeddings by column and mini-batch.
            reps_guided: The guide's.
            with_backward: Whether to go back to the embeddings.

        Returns:
            The loss; detached if ``with_backward``.
        """
        value: Tensor = super().calculate_loss(reps, reps_guided, with_backward=with_backward)
        if self.triplet is None:
            return value
        term = self._triplets(*([torch.cat(column) for column in each] for each in (reps, reps_guided))).mean()
        if with_backward:
            term.backward()  # type: ignore[no-untyped-call]
        return value + (term.detach() if with_backward else term)


@contextmanager
def _overheard(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the embeddings that a module gives while the context is open."""
    heard: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, given: heard.append(given["sentence_embedding"]))
    try:
        yield heard
    finally:
        handle.remove()


def _number_pairs(columns: list[dict[str, Tensor]]) -> None:
    """Let a guide that knows only who is paired with whom speak for every text of the batch.

    Anchor and positive i share one vector, the 32 bits of i as signs: cosine 1 with each other (so t_i = 1), at most
    1 - 2/32 with any other pair. Negatives are zero. So QQ_ii and PP_ii tie with the positive and nothing else does.
    """
    for place, features in enumerate(columns):
        rows, device = _num_texts(features), features["input_ids"].device
        number = torch.arange(rows, device=device) + get_rank() * rows
        bits = (number[:, None] >> torch.arange(32, device=device)) & 1  # (B, 32)
        features[VECTORS] = (2.0 * bits - 1.0 if place < 2 else torch.zeros_like(bits, dtype=torch.float32))[:, None]


def _num_texts(features: dict[str, Tensor]) -> int:
    if "cu_seq_lens_q" in features:  # flattened, without padding
        return len(features["cu_seq_lens_q"]) - 1
    return len(features.get("offsets", features["input_ids"]))  # a static student gets one row of tokens, and offsets
