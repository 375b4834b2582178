"""The recipes through the trainer: four orders, the eight variants, blends of every kind of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from embedlab._core.errors import InputError
from embedlab.models import load_model
from embedlab.models.bidirectional import sees_later_tokens
from embedlab.testing.tiny_decoder import tiny_decoder
from embedlab.text import train
from embedlab.text.nv_embed import ORDERS, train_in_stages
from embedlab.text.nv_embed.recipes import NV_EMBED_STAGE1, NV_EMBED_STAGE2, blend
from embedlab.text.pooling_attention import VARIANTS
from embedlab.text.training import Setting, TrainingData

WORDS = ["cat", "dog", "cow", "bus", "tram", "train", "rain", "fog"]
TUPLES = [(f"a {w} came", f"the {w} is here", f"no {v} at all") for w in WORDS for v in WORDS if v != w]
LABELLED = [(f"{a} and {w}", "animal" if w in WORDS[:3] else "other") for w in WORDS for a in ("a", "the", "one")]
SMALL: dict[str, Any] = {"num_latents": 2, "num_heads": 2, "num_negatives": 1, "batch_size": 8, "evaluate": False}


def data() -> dict[str, Dataset]:
    anchors, positives, negatives = map(list, zip(*TUPLES, strict=True))
    texts, labels = map(list, zip(*LABELLED, strict=True))
    return {
        "search": Dataset.from_dict({"anchor": anchors, "positive": positives, "negative_1": negatives}),
        "kinds": Dataset.from_dict({"text": texts, "label": labels}),
    }


def decoder() -> Any:
    return tiny_decoder(
        [text for row in TUPLES for text in row] + [text for text, _ in LABELLED] + ["instruct query : find tell"]
    )


def setting(tmp_path: Path, **options: Any) -> Setting:
    return Setting({**NV_EMBED_STAGE2.options, "num_negatives": 1, **options}, tmp_path, 0)


def test_a_blend_mixes_all_kinds_and_tells_each_its_task(tmp_path: Path) -> None:
    rows = data()
    alike = Dataset.from_dict(
        {
            "sentence1": [f"a {w}" for w in WORDS],
            "sentence2": [f"the {w}" for w in WORDS],
            "score": [0.9] * 6 + [0.1] * 2,
        }
    )
    sets = [
        TrainingData("search", "tuples", rows["search"]),
        TrainingData("kinds", "labels", rows["kinds"]),
        TrainingData("alike", "scored", alike),
    ]
    told = {"search": "find", "alike": "tell"}
    (made,) = blend(sets, decoder(), setting(tmp_path, instructions=told, percent=None))
    assert made.kind == "tuples"
    assert made.rows.column_names == ["anchor", "positive", "negative_1"]
    found = made.rows["anchor"][:]
    of_search, of_alike = (
        [text for text in found if text.startswith(f"Instruct: {task}\n")] for task in ("find", "tell")
    )
    assert len(of_search) == len(TUPLES)
    assert len(of_alike) == 12, "six pairs, both ways round"
    assert len(found) == len(TUPLES) + 12 + len(LABELLED)
    assert found[: len(TUPLES)] != [f"Instruct: find\nQuery: {row[0]}" for row in TUPLES], "shuffled"
    for row in made.rows:
        if row["anchor"] in of_alike:
            assert row["positive"].startswith("Instruct: tell")
            assert row["negative_1"].startswith("Instruct: tell")
        else:
            assert not row["positive"].startswith("Instruct")
    (again,) = blend(sets, decoder(), setting(tmp_path, instructions=told, percent=None))
    assert again.rows[:] == made.rows[:]
    with pytest.raises(InputError, match="instructions"):
        blend(sets, decoder(), setting(tmp_path, instructions={"serach": "find"}))


@pytest.mark.parametrize("order", ORDERS)
def test_the_four_orders_run(order: str, tmp_path: Path) -> None:
    first = ORDERS[order][0]
    reports = train_in_stages(
        order,
        model=decoder(),
        data=data(),
        out=tmp_path,
        retrieval=["search"],
        options={first: {"pooling": "latent_attention"}},
        steps=2,
        **SMALL,
    )
    assert len(reports) == len(ORDERS[order])
    model = load_model(str(tmp_path / ORDERS[order][-1]), device="cpu")
    assert model.encode_query(["a cat"]).shape == (1, 32)
    assert sees_later_tokens(model.host)  # type: ignore[attr-defined]
    assert type(model.host[1]).__name__ == "LatentAttentionPooling"  # type: ignore[attr-defined]


def test_orders_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="order"):
        train_in_stages("both", model=decoder(), data=data(), out=tmp_path)
    with pytest.raises(InputError, match="retrieval"):
        train_in_stages("two_stage", model=decoder(), data=data(), out=tmp_path)


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
def test_the_eight_variants_run_from_a_mapping(pooling: str, attention: str, tmp_path: Path) -> None:
    options = {"pooling": pooling, "attention": attention, "num_latents": 2, "num_heads": 2}
    recipe = {"recipe": "nv_embed_stage1", "options": options, "arguments": {"max_steps": 1}}
    train(recipe, model=decoder(), data={"search": data()["search"]}, out=tmp_path / "out", evaluate=False)
    model = load_model(str(tmp_path / "out"), device="cpu").host  # type: ignore[attr-defined]
    assert sees_later_tokens(model) == (attention == "bidirectional")


def test_the_stages_differ_in_the_batch_alone() -> None:
    assert {k: v for k, v in NV_EMBED_STAGE1.options.items() if NV_EMBED_STAGE2.options[k] != v} == {
        "in_batch_negatives": True
    }
