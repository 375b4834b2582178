"""Masked auto-encoder pre-training on the Trainer of transformers, from scratch or continued on one's own texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from embedlab._core.errors import InputError
from embedlab._core.files import atomic_folder
from embedlab._core.quiet import quiet_host
from embedlab.text.dupmae.heads import masked_lm
from embedlab.text.dupmae.masking import MaskCollator
from embedlab.text.dupmae.objective import MaskedAutoEncoder, Objective
from embedlab.text.dupmae.stream import Stream, windows

_OURS = ("output_dir", "max_steps", "seed", "data_seed", "per_device_train_batch_size", "train_sampling_strategy")


@dataclass(frozen=True, slots=True)
class PretrainReport:
    """What a call of ``train`` did.

    Attributes:
        steps: Optimiser steps made since the very beginning.
        samples: Windows seen since the very beginning, over all processes.
        windows: How many different ones there are.
        terms: ``loss`` and each of its terms, step by step, of the part that this call ran.
    """

    steps: int
    samples: int
    windows: int
    terms: dict[str, tuple[float, ...]]


class MAEPretrainer:
    r"""Pre-train an encoder so that its vectors hold the text: masked words, [CLS] decoding, and a bag of words.

    ``"mlm"`` predicts masked words. ``"retromae"`` lets a decoder of one layer rebuild the text from [CLS] and half of
    the other tokens, so that [CLS] must hold the rest. ``"dupmae"`` also asks the other tokens for the words of the
    text: :math:`L = L_{mlm} + L_{dec} + w L_{bow}`, :math:`L_{bow} = -\sum_{x \in set(X)} \log softmax(\mu)[x]` and
    :math:`\mu = \max_i h_i W_O`. Order, masks and steps are the same for all three.

    Args:
        model: A masked language model to go on from, as a folder, a hub name or loaded; or a sentence-transformers
            model, see ``masked_lm``. It is not changed; the trained one is ``model`` of this object.
        objective: ``"mlm"``, ``"retromae"`` or ``"dupmae"``.
        encoder_mask: Part of the tokens hidden from the encoder, in (0, 1). Published 0.3.
        decoder_mask: Part hidden from each row of the decoder, in (0, 1). Published 0.5.
        bow_weight: Weight of the bag of words, at least 0 (paper: 1; code: 0.1, the default).
        exclude_masked: Whether masked tokens are left out of the maxima (paper: yes; code: no, the default).
        max_length: Longest window in tokens; None takes the tokenizer's limit, at most 512.
        tokenizer: Needed with a transformers model that is handed over.
        seed: Decides fresh weights, order, masks and dropout.

    Returns:
        The trainer; ``train`` trains, ``save`` and ``to_sentence_transformer`` give the encoder away.

    Raises:
        InputError: an option is out of range, or the model is none that can be trained so.

    Example:
        >>> from embedlab.testing.tiny import tiny_encoder
        >>> texts = ["the cat sat on the mat", "the dog lay by the door"]
        >>> pretrainer = MAEPretrainer(tiny_encoder(texts), objective="dupmae", max_length=16)
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = pretrainer.train(texts, Path(folder), steps=2, batch_size=2)
        >>> sorted(report.terms), report.samples
        (['bow', 'decoder', 'loss', 'mlm'], 4)

    References:
        Xiao, Liu, Shao, Cao (2022), RetroMAE, arXiv:2205.12035v2; Liu, Xiao, Shao, Cao (2023), RetroMAE-2: Duplex
        Masked Auto-Encoder, arXiv:2305.02564v1, sections 3.1 to 3.3. Official code staoxiao/RetroMAE (read, not
        copied); ``METHOD["deviations"]`` says where it differs.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel | SentenceTransformer,
        *,
        objective: Objective = "dupmae",
        encoder_mask: float = 0.3,
        decoder_mask: float = 0.5,
        bow_weight: float = 0.1,
        exclude_masked: bool = False,
        max_length: int | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer = masked_lm(model, tokenizer, seed=seed)
        self.network = MaskedAutoEncoder(
            self.model, objective=objective, bow_weight=bow_weight, exclude_masked=exclude_masked, seed=seed
        )
        # Hidden sets for a decoder that is not there would cost time for nothing; the check is the same for all.
        self.collator = MaskCollator(self.tokenizer, encoder_mask=encoder_mask, decoder_mask=decoder_mask, seed=seed)
        if objective == "mlm":
            self.collator.decoder_mask = None
        limit = min(512, int(self.tokenizer.model_max_length))
        self.max_length = limit if max_length is None else max_length
        if not 3 <= self.max_length <= limit:
            raise InputError(f"max_length={max_length}: must be from 3 to {limit}, the most that the model takes")
        self.seed = seed

    def train(
        self,
        texts: Sequence[str],
        folder: Path,
        *,
        steps: int | None = None,
        epochs: float = 8.0,
        batch_size: int = 32,
        learning_rate: float = 1e-4,
        warmup: float = 0.1,
        weight_decay: float = 0.01,
        stop_after: int | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> PretrainReport:
        """Train on texts; called again on the same folder, go on from where an earlier call stopped.

        Run under ``torchrun`` or ``accelerate launch`` it uses all processes, each with ``batch_size`` windows a step.

        Args:
            texts: The corpus, unlabelled. Long texts are cut at the ends of sentences.
            folder: For checkpoints.
            steps: Optimiser steps; None takes as many as ``epochs`` need.
            epochs: How often each window is seen, where ``steps`` is None. Published 8 on general text.
            batch_size: Windows in a step, on each device.
            learning_rate: At its peak. Published 1e-4.
            warmup: Part of the steps during which the learning rate rises; it falls linearly afterwards.
            weight_decay: Of AdamW. Published 0.01.
            stop_after: Stop and keep a checkpoint when so many steps have been made in all.
            arguments: Further ``TrainingArguments`` of transformers, such as ``{"bf16": True}``.

        Returns:
            Steps, samples and the terms of the loss.

        Raises:
            InputError: no text has a token, or an option is out of range.
        """
        if batch_size < 1 or (steps is not None and steps < 1) or not epochs > 0:
            raise InputError(f"batch_size={batch_size}, steps={steps}, epochs={epochs}: each must be above 0")
        if own := set(_OURS) & set(arguments or {}):
            raise InputError(f"arguments: {sorted(own)[0]} is set by train itself; use its own arguments")
        rows = windows(texts, self.tokenizer, max_length=self.max_length)
        with quiet_host("transformers", "accelerate"):  # it seeds the global random states; they are put back
            options = self._options(folder, batch_size, learning_rate, warmup, weight_decay, arguments)
            each = options.train_batch_size * options.gradient_accumulation_steps * options.world_size
            total = max(1, round(epochs * len(rows) / each)) if steps is None else steps
            options.max_steps = total
            trainer = _Trainer(
                model=self.network,
                args=options,
                data_collator=self.collator,
                train_dataset=Stream(rows, length=total * each, seed=self.seed),
                callbacks=[_Stop(total if stop_after is None else min(stop_after, total))],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
        self.network.eval()
        done = int(trainer.state.global_step)
        return PretrainReport(done, done * each, len(rows), trainer.terms())

    def save(self, folder: str | Path) -> None:
        """Write the masked language model and its tokenizer, for transformers and ``DuplexEncoder`` to load.

        Args:
            folder: Replaced when it is whole.
        """
        with atomic_folder(folder) as fresh:
            self.model.save_pretrained(fresh)
            self.tokenizer.save_pretrained(fresh)

    def to_sentence_transformer(self, *, pooling: str = "cls", normalize: bool = False) -> SentenceTransformer:
        """Give the encoder as a plain sentence-transformers model, its head and decoder left behind.

        Args:
            pooling: ``"cls"``, which the objectives train, ``"mean"``, or another of the host's modes.
            normalize: Whether vectors are brought to length one.

        Returns:
            A model of its own, which saves and loads without this package.
        """
        from embedlab.text.dupmae.export import plain_sentence_transformer

        return plain_sentence_transformer(
            self.model, self.tokenizer, max_length=self.max_length, pooling=pooling, normalize=normalize
        )

    def _options(
        self,
        folder: Path,
        batch_size: int,
        learning_rate: float,
        warmup: float,
        weight_decay: float,
        arguments: Mapping[str, Any] | None,
    ) -> TrainingArguments:
        chosen = {
            "learning_rate": learning_rate,
            "warmup_steps": warmup,
            "weight_decay": weight_decay,
            "save_strategy": "no",  # but where it stops; a user's save_steps goes over it
            "save_total_limit": 2,
            "logging_steps": 50,
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": torch.cuda.is_available(),
            "max_steps": 1,  # the true number needs to know how many processes there are
            "train_sampling_strategy": "sequential",  # the stream is shuffled already
            "remove_unused_columns": False,
            "ddp_find_unused_parameters": False,
            "use_cpu": self.model.device.type == "cpu" and not torch.cuda.is_available(),
        }
        return TrainingArguments(
            str(folder),
            seed=self.seed,
            per_device_train_batch_size=batch_size,
            **{**chosen, **(arguments or {})},
        )


def _last_checkpoint(folder: Path) -> str | None:
    found: str | None = get_last_checkpoint(str(folder)) if Path(folder).is_dir() else None  # type: ignore[no-untyped-call]
    return found


class _Trainer(Trainer):
    """The host's trainer, with a network that computes its loss itself and several terms to report."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.network: nn.Module = options["model"]
        self._seen: list[dict[str, Tensor]] = []
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, *_: Any, **options: Any) -> Any:
        terms = model(**inputs)
        self._seen.append({name: value.detach() for name, value in terms.items()})
        return (terms["loss"], terms) if return_outputs else terms["loss"]

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        if "loss" in logs and self._seen:
            recent = self._seen[-int(self.args.logging_steps) :]
            logs |= {
                f"loss_{name}": float(torch.stack([terms[name] for terms in recent]).mean())
                for name in self._seen[-1]
                if name != "loss"
            }
        super().log(logs, *args, **options)

    def terms(self) -> dict[str, tuple[float, ...]]:
        """Return every term step by step; the parts of an accumulated step are averaged."""
        parts = self.args.gradient_accumulation_steps
        found = {}
        for name in self._seen[0] if self._seen else ():
            values = torch.stack([terms[name].float() for terms in self._seen]).cpu()
            found[name] = tuple(part.mean().item() for part in torch.split(values, parts))
        return found

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write a checkpoint; the head's output layer, tied to the embeddings, is written once."""
        target = Path(output_dir or self.args.output_dir or ".")
        target.mkdir(parents=True, exist_ok=True)
        save_model(self.network, str(target / "model.safetensors"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_model(model or self.network, Path(resume_from_checkpoint) / "model.safetensors")


class _Stop(TrainerCallback):
    """Stops after a number of steps and keeps a checkpoint there."""

    def __init__(self, last: int) -> None:
        self.last = last

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if state.global_step >= self.last:
            control.should_save = control.should_training_stop = True
        return control
