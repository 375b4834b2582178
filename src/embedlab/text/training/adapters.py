"""Low-rank adaptation through peft: put beside the linear layers before training, folded in after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError, unknown_name
from embedlab._core.extras import require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

#: setting -> default; the weight of the matrices is alpha / rank, keep writes the adapter beside the merged model
LORA: Mapping[str, Any] = {"rank": 16, "alpha": 32.0, "dropout": 0.05, "keep": False}


def settle_lora(given: Mapping[str, Any] | bool | int | None) -> dict[str, Any] | None:
    """Return all settings of low-rank adaptation, or None without it.

    Args:
        given: Settings to change, a rank, True for the defaults, or None.

    Raises:
        InputError: an unknown setting, or a value out of range.

    Example:
        >>> settle_lora(8)
        {'rank': 8, 'alpha': 32.0, 'dropout': 0.05, 'keep': False}
    """
    if given is None or given is False:
        return None
    if given is True:
        given = {}
    elif isinstance(given, int):
        given = {"rank": given}
    elif not isinstance(given, Mapping):
        raise InputError(f"lora={given!r}: expected true, a rank, or settings such as {{rank: 16}}")
    for name in given:
        if name not in LORA:
            raise unknown_name("setting of lora", name, LORA)
    lora = {**LORA, **given}
    if not (isinstance(lora["rank"], int) and lora["rank"] >= 1 and lora["alpha"] > 0 and 0 <= lora["dropout"] < 1):
        raise InputError(f"lora={lora}: rank must be at least 1, alpha above 0, dropout in [0, 1)")
    return lora


def add_lora(model: SentenceTransformer, lora: Mapping[str, Any], *, seed: int) -> None:
    """Put low-rank matrices beside every linear layer of the transformer, and freeze the rest of it."""
    torch: Any = require("torch", extra="train")
    peft: Any = require("peft", extra="train")
    body = model[0]
    if not hasattr(body, "model"):
        raise InputError(f"lora: the model begins with {type(body).__name__}, which has no linear layers to adapt")
    config = peft.LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules="all-linear",
        task_type=peft.TaskType.FEATURE_EXTRACTION,
    )
    body.model = peft.get_peft_model(body.model, config)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_A" in name:  # as peft draws them, but by our seed
            fresh = torch.empty(weight.shape)
            torch.nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
            weight.data.copy_(fresh)


def merge_lora(model: SentenceTransformer, *, keep: Path | None) -> None:
    """Fold the matrices into the layers, so that the model is one without adapters again."""
    body: Any = model[0]
    if keep is not None:
        body.model.save_pretrained(str(keep))
    body.model = body.model.merge_and_unload()
