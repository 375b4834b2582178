"""The recipe `gist`: a store made once in the run's folder, triples from labels, and the options it hands on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text import train
from embedlab.text.gist import GIST, CachedGuidedContrastiveLoss, GuidedContrastiveLoss, GuideStore, TemperatureSchedule
from embedlab.text.training import Setting, TrainingData

WORDS = ["ivy", "fern", "moss", "oak", "elm", "ash", "lime", "rose"]
PAIRS = {"anchor": [f"what is {word}" for word in WORDS], "positive": [f"{word} is a plant" for word in WORDS]}
LABELLED = {"text": [*PAIRS["anchor"], *PAIRS["positive"]], "label": [0, 1] * 8}
TEXTS = LABELLED["text"]


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return tiny_encoder(TEXTS, seed=0)


def setting(folder: Path, **options: Any) -> Setting:
    return Setting({**GIST.options, **options}, folder, seed=0)


def given(kind: str, columns: dict[str, Any]) -> list[TrainingData]:
    return [TrainingData("set", kind, Dataset.from_dict(columns))]  # type: ignore[arg-type]


class TestParts:
    def test_the_store_is_made_once_in_the_runs_folder(self, model, tmp_path, monkeypatch):
        told = setting(tmp_path)
        GIST.data(given("pairs", PAIRS), model, told)
        assert len(GuideStore.open(tmp_path / "guide-store")) == 16
        monkeypatch.setattr(model, "encode", None)  # a resumed run does not ask the guide again
        monkeypatch.setattr(model, "encode_document", None)
        assert GIST.data(given("pairs", PAIRS), model, told)[0].kind == "pairs"

    def test_another_guide_by_name(self, model, tmp_path):
        GIST.data(given("pairs", PAIRS), model, setting(tmp_path, guide="default"))
        assert GuideStore.open(tmp_path / "guide-store").fingerprint.startswith("static:")
        with pytest.raises(InputError, match="guide=7"):
            GIST.data(given("pairs", PAIRS), model, setting(tmp_path, guide=7))

    def test_labels_become_triples(self, model, tmp_path):
        (made,) = GIST.data(given("labels", LABELLED), model, setting(tmp_path, negative="least_similar"))
        assert (made.kind, made.rows.column_names) == ("tuples", ["anchor", "positive", "negative_1"])
        label = dict(zip(LABELLED["text"], LABELLED["label"], strict=True))
        for row in made.rows:
            assert label[row["anchor"]] == label[row["positive"]] != label[row["negative_1"]]

    @pytest.mark.parametrize(
        ("columns", "size", "kind"),
        [(2, None, GuidedContrastiveLoss), (2, 4, CachedGuidedContrastiveLoss), (4, None, CachedGuidedContrastiveLoss)],
    )
    def test_the_loss_that_fits(self, columns, size, kind, model, tmp_path):
        names = ["anchor", "positive", "negative_1", "negative_2"][:columns]
        data = given("tuples", dict.fromkeys(names, PAIRS["positive"]))
        told = setting(tmp_path, mini_batch_size=size, negative_mode="hard", triplet="soft", lowest_temperature=0.005)
        GIST.data(data, model, told)
        loss = GIST.loss(model, data, told)
        assert type(loss) is kind
        assert (loss.get_config_dict()["negative_mode"], loss.triplet) == ("hard", "soft")
        (schedule,) = GIST.callbacks(loss, told)
        assert isinstance(schedule, TemperatureSchedule)
        assert GIST.callbacks(loss, setting(tmp_path)) == []


@pytest.mark.parametrize("data", [PAIRS, LABELLED], ids=["pairs", "labels"])
def test_trains(data, model, tmp_path):
    before = model.encode(TEXTS)
    report = train(
        "gist",
        model=model,
        data=Dataset.from_dict(data),
        out=tmp_path / "out",
        evaluate=False,
        steps=3,
        batch_size=4,
        learning_rate=1e-3,
        guide="default",
    )
    assert report.arm.steps == 3
    trained = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert abs(trained.encode(TEXTS) - before).max() > 1e-4
    assert (model.encode(TEXTS) == before).all()
