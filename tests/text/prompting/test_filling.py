"""Where the tokens are that become the vector: by offsets, under truncation, on tokenizers of two kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from embedlab._core.errors import InputError
from embedlab.testing.tiny_decoder import save_tiny_decoder
from embedlab.text.prompting.filling import fill
from embedlab.text.prompting.templates import Template, load_templates

TEXTS = [
    "a cat sat on the mat and the dog ran away",
    "This sentence : means in one word rewrite what does not matter rewritten text topic of most important is",
    "the quick brown fox, it is said, jumps over the lazy dog; nobody knows why.",
    'He said : "T" WAS Rfm means in one word:"and" behind, said again by somebody else.',
]
KNOWN = load_templates()


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One token per word with marks at both ends; and byte pairs, with the space inside the token."""
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny_decoder(folder, texts=TEXTS, family=request.param, max_length=128)
    return AutoTokenizer.from_pretrained(folder)


def plain(text: str) -> str:
    return text.lower().replace(" ", "")


def read(tokenizer: Any, ids: list[int]) -> str:
    return plain(tokenizer.decode(ids).replace("[UNK]", "?"))


@pytest.mark.parametrize("name", [name for name, one in KNOWN.template.items() if one.pool == "end"])
def test_the_vector_comes_from_the_last_token_of_the_prompt(tokenizer: Any, name: str) -> None:
    template = KNOWN.template[name]
    (row,) = fill(template, [TEXTS[0]], tokenizer, max_length=128, slot_id=tokenizer.mask_token_id)
    assert row.weights == [0.0] * (len(row.ids) - 1) + [1.0]
    assert row.ids[-1] not in tokenizer.all_special_ids or row.ids[-1] == tokenizer.unk_token_id
    whole = text_of(template, TEXTS[0])
    offsets = tokenizer(whole, return_offsets_mapping=True)["offset_mapping"]
    assert max(end for _, end in offsets) == len(whole)
    assert whole[-1] == template.end[-1]


def text_of(template: Template, text: str) -> str:
    return template.text.replace("{slot}", "").replace("{text}", text)


@pytest.mark.parametrize("name", ["echo", "echo_last", "raw_mean", "raw_last", "raw_weighted"])
def test_the_second_copy_is_pooled_and_nothing_else(tokenizer: Any, name: str) -> None:
    template = KNOWN.template[name]
    (row,) = fill(template, [TEXTS[0]], tokenizer, max_length=128)
    pooled = [place for place, weight in enumerate(row.weights) if weight > 0]
    assert sum(row.weights) == pytest.approx(1.0)
    assert pooled[-1] == len(row.ids) - 1
    if template.pool == "last":
        assert plain(TEXTS[0]).endswith(read(tokenizer, [row.ids[-1]]))
    else:
        assert read(tokenizer, [row.ids[place] for place in pooled]) == plain(TEXTS[0])
        assert pooled == list(range(pooled[0], len(row.ids)))


def test_weights_rise_with_the_position(tokenizer: Any) -> None:
    (row,) = fill(KNOWN.template["raw_weighted"], ["the dog ran"], tokenizer, max_length=128)
    weights = [weight for weight in row.weights if weight]
    count = len(weights)
    assert weights == pytest.approx([2 * place / (count * (count + 1)) for place in range(1, count + 1)])


@pytest.mark.parametrize("name", ["eol", "echo", "token_prepend", "topic", "raw_mean", "raw_last"])
def test_the_text_is_cut_and_never_the_template(tokenizer: Any, name: str) -> None:
    template = KNOWN.template[name]
    slot = tokenizer.mask_token_id
    frame = fill(template, ["cat"], tokenizer, max_length=128, slot_id=slot)[0]
    limit = len(frame.ids) + 4
    (row,) = fill(template, [" ".join(TEXTS)], tokenizer, max_length=limit, slot_id=slot)
    assert limit - template.copies < len(row.ids) <= limit
    if template.pool == "end":
        assert row.ids[-1] == frame.ids[-1]
        tail = len(tokenizer(template.parts[-1], add_special_tokens=False)["input_ids"]) - 2
        assert row.ids[-tail:] == frame.ids[-tail:]
    kept = read(tokenizer, [row.ids[place] for place in row.text_tokens]).strip('"')
    assert kept
    assert plain(TEXTS[0]).startswith(kept) or kept.startswith(plain(TEXTS[0])[:10])


def test_a_template_longer_than_the_limit_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="max_length=5"):
        fill(KNOWN.template["eol"], TEXTS, tokenizer, max_length=5)


def test_the_slot_stands_right_before_the_text(tokenizer: Any) -> None:
    slot = tokenizer.mask_token_id
    (row,) = fill(KNOWN.template["token_prepend"], [TEXTS[0]], tokenizer, max_length=128, slot_id=slot)
    (bare,) = fill(KNOWN.template["eol"], [TEXTS[0]], tokenizer, max_length=128)
    assert row.ids[row.slot] == slot
    assert row.ids[: row.slot] + row.ids[row.slot + 1 :] == bare.ids
    assert row.slot + 1 == row.text_tokens[0]


def test_demonstrations_stand_before_the_prompt(tokenizer: Any) -> None:
    template = KNOWN.template["eol"]
    before = template.demonstration("the dog ran", "dog")
    assert before == 'This sentence : "the dog ran" means in one word:"dog". '
    (row,) = fill(template, ["a cat sat"], tokenizer, max_length=128, before=before)
    assert plain("a cat sat") in read(tokenizer, [row.ids[place] for place in row.text_tokens])
    assert row.weights[-1] == 1.0


def test_a_tokenizer_that_drops_the_end_is_found_out(tmp_path: Path) -> None:
    save_tiny_decoder(tmp_path, texts=["abc"], family="qwen2", max_length=128)  # byte pairs that know no quote
    with pytest.raises(InputError, match="last token"):
        fill(KNOWN.template["eol"], ["abc"], AutoTokenizer.from_pretrained(tmp_path), max_length=128)


def test_an_empty_text_has_no_weight(tokenizer: Any) -> None:
    (row,) = fill(KNOWN.template["raw_mean"], [""], tokenizer, max_length=128)
    assert sum(row.weights) == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"text": "no place", "pool": "mean"}, "{text}"),
        ({"text": "{text}", "pool": "middle"}, "pool='middle'"),
        ({"text": 'x "{text}" y:"', "pool": "end", "end": "'"}, "end="),
        ({"text": "x {text} y: ", "pool": "end", "end": " "}, "blank"),
        ({"text": "x {text}", "pool": "end", "end": "{text}"}, "pool='last'"),
        ({"text": "{slot} {text}", "pool": "last"}, "{slot}"),
        ({"text": "{slot}{text} {text}", "pool": "last"}, "{slot}"),
    ],
)
def test_a_template_that_does_not_fit_together_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says.replace("{", r"\{")):
        Template(**fields)


def test_templates_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[template.mine]\ntext = "{text} In brief:"\nend = ":"\npool = "end"\n[method]\nboth = ["mine", "eol"]\n'
    )
    mine = load_templates(file)
    assert [one.text for one in mine.of("both")] == ["{text} In brief:", KNOWN.template["eol"].text]
    assert mine.of("mine")[0].end == ":"
    with pytest.raises(InputError, match="eol"):
        mine.of("eool")
    file.write_text("[template.mine]\npool = 'end'\n")
    with pytest.raises(InputError, match="lacks text"):
        load_templates(file)
    file.write_text("not toml")
    with pytest.raises(InputError, match="TOML"):
        load_templates(file)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(InputError, match="fast tokenizer"):
        fill(KNOWN.template["eol"], ["a"], object(), max_length=9)
