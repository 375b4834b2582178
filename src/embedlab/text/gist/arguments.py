"""What a guided loss accepts."""

from __future__ import annotations

from torch import nn

from embedlab._core.errors import InputError
from embedlab.text.gist.store import GuideStore


def check_guiding(model: object, guide: object, temperature: float, margin_strategy: str, margin: float) -> None:
    """Refuse a guide of the wrong kind, and a temperature or margin out of range.

    Args:
        model: The student.
        guide: The guide.
        temperature: Divisor of the cosines.
        margin_strategy: How the margin lowers the bar.
        margin: By how much.

    Raises:
        InputError: one of them is not allowed.
    """
    if guide is model:
        raise InputError("guide is the model itself, which training changes: give a copy, or build a store with it")
    if not (guide is None or isinstance(guide, GuideStore | nn.Module)):
        raise InputError(f"guide={guide!r:.80}: expected a GuideStore, a sentence-transformers model, or None")
    if not temperature > 0:
        raise InputError(f"temperature={temperature}: must be above 0; published 0.01")
    if margin_strategy not in ("absolute", "relative"):
        raise InputError(f"margin_strategy={margin_strategy!r}: expected 'absolute' or 'relative'")
    if not 0 <= margin <= 2:
        raise InputError(f"margin={margin}: must be from 0 to 2, the distance of the furthest cosines")
    if guide is None and margin:
        raise InputError(f"margin={margin}: without a guide there is no bar to lower; give a guide or leave it 0")


def check_options(guide: object, negative_mode: str, triplet: str | None, triplet_margin: float) -> None:
    """Refuse modes that there are not, and triplets that nobody guides.

    Args:
        guide: The guide.
        negative_mode: Which candidates are kept.
        triplet: Which triplet is added.
        triplet_margin: Its margin.

    Raises:
        InputError: one of them is not allowed.
    """
    if negative_mode not in ("all", "hard"):
        raise InputError(f"negative_mode={negative_mode!r}: expected 'all' or 'hard'")
    if triplet not in (None, "hard", "soft"):
        raise InputError(f"triplet={triplet!r}: expected 'hard', 'soft' or None")
    if triplet is not None and guide is None:
        raise InputError(f"triplet={triplet!r}: a guide says which texts are positives; give one, or leave triplet out")
    if not 0 <= triplet_margin <= 2:
        raise InputError(f"triplet_margin={triplet_margin}: must be from 0 to 2, the distance of the furthest cosines")


def name_of(guide: GuideStore | nn.Module | None) -> str | None:
    """Give what the model card calls the guide.

    Args:
        guide: The guide.

    Returns:
        The fingerprint of a store, the class of a model, None for none.
    """
    if guide is None:
        return None
    return guide.fingerprint if isinstance(guide, GuideStore) else type(guide).__name__
