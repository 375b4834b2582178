"""From texts and a template to token ids: the text is cut where it must be, and the tokens to pool are found.

Places are found by the tokenizer's offsets in the filled prompt, never by counting tokens of parts, because a token may
take characters from two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedlab._core.errors import InputError
from embedlab.text.prompting.templates import Template


@dataclass(frozen=True, slots=True)
class Filled:
    """A prompt as the model reads it.

    Attributes:
        ids: Its tokens; no mark of the end follows the last one.
        weights: How much each token counts in the vector; their sum is 1, or 0 for an empty text.
        text_tokens: Places of the tokens of the copy that is pooled.
        slot: Place of the slot, or -1.
    """

    ids: list[int]
    weights: list[float]
    text_tokens: list[int]
    slot: int = -1


def fill(
    template: Template,
    texts: Sequence[str],
    tokenizer: Any,
    *,
    max_length: int,
    before: str = "",
    slot_id: int | None = None,
) -> list[Filled]:
    """Put texts into a template.

    Args:
        template: The template.
        texts: The texts. One that is too long loses its end; the template never does.
        tokenizer: A fast tokenizer of transformers.
        max_length: Most tokens of a prompt.
        before: What stands before the template: demonstrations, an instruction.
        slot_id: The token for the slot; needed where the template has one.

    Returns:
        One prompt per text.

    Raises:
        InputError: the tokenizer gives no offsets; the template alone is longer than ``max_length``; or the last
            token is not the end that the template states.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(f"tokenizer={type(tokenizer).__name__}: a fast tokenizer is needed, which tells offsets")
    length = max_length - template.has_slot
    encoded = _encode(tokenizer, [before + text.join(template.parts) for text in texts])
    return [
        _placed(template, *_shortened(template, text, row, tokenizer, length, before), slot_id)
        for text, row in zip(texts, encoded, strict=True)
    ]


Row = tuple[list[int], list[tuple[int, int]]]  # ids, and the characters of each; specials have none


def _encode(tokenizer: Any, prompts: list[str]) -> list[Row]:
    found = tokenizer(
        prompts,
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    rows = zip(found["input_ids"], found["offset_mapping"], found["special_tokens_mask"], strict=True)
    return [_without_end(ids, [tuple(one) for one in offsets], special) for ids, offsets, special in rows]


def _without_end(ids: list[int], offsets: list[Any], special: list[int]) -> Row:
    """Drop the marks after the last real token: a mark there would be what "the last token" finds."""
    last = max((place for place, mark in enumerate(special) if not mark), default=-1)
    spans = [(0, 0) if mark else span for mark, span in zip(special, offsets, strict=True)]
    return list(ids[: last + 1]), spans[: last + 1]


def _shortened(
    template: Template, text: str, row: Row, tokenizer: Any, max_length: int, before: str
) -> tuple[str, str, Row]:
    """Cut the text until the prompt fits, a token at a time once the rough cut is made."""
    whole, excess = text, len(row[0]) - max_length
    if excess > 0:
        ends = [end for start, end in _encode(tokenizer, [text])[0][1] if end > start]
        keep = len(ends)
        while excess > 0:
            keep -= max(1, -(-excess // template.copies))
            if keep < 1:
                frame = len(_encode(tokenizer, [before + "".join(template.parts)])[0][0])
                raise InputError(
                    f"max_length={max_length}: the template takes {frame} tokens without a text; choose a shorter one, "
                    "fewer demos or a larger max_length"
                )
            text = whole[: ends[keep - 1]]
            row = _encode(tokenizer, [before + text.join(template.parts)])[0]
            excess = len(row[0]) - max_length
    return before, text, row


def _placed(template: Template, before: str, text: str, row: Row, slot_id: int | None) -> Filled:
    ids, offsets = row
    parts = template.parts
    prompt_end = len(before) + sum(map(len, parts)) + len(text) * template.copies
    end = prompt_end - len(parts[-1])
    start = end - len(text)
    inside = [place for place, (first, last) in enumerate(offsets) if last > first and first < end and last > start]
    if template.pool == "end":
        _check_end(template, offsets, prompt_end, end)
        pooled = {len(ids) - 1: 1.0}
    elif template.pool == "last":
        pooled = dict.fromkeys(inside[-1:], 1.0)
    else:
        rising = template.pool == "weighted_mean"
        shares = [number + 1.0 if rising else 1.0 for number in range(len(inside))]
        pooled = {place: share / sum(shares) for place, share in zip(inside, shares, strict=True)}
    slot = -1
    if template.has_slot:
        if slot_id is None:
            raise InputError("slot_id=None: the template has a slot, which needs a token")
        slot = inside[0] if inside else len(ids) - 1
        ids = [*ids[:slot], slot_id, *ids[slot:]]
        pooled = {place + (place >= slot): share for place, share in pooled.items()}
        inside = [place + 1 for place in inside]
    return Filled(ids, [pooled.get(place, 0.0) for place in range(len(ids))], inside, slot)


def _check_end(template: Template, offsets: list[tuple[int, int]], prompt_end: int, text_end: int) -> None:
    first, last = offsets[-1] if offsets else (0, 0)
    if last != prompt_end or first < text_end:
        raise InputError(
            f"end={template.end!r}: the last token covers characters {first} to {last} of a prompt of {prompt_end}, "
            f"whose text ends at {text_end}; the tokenizer drops or joins the template's last characters, choose others"
        )
