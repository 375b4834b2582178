"""The progressive loss under the host's trainer, the data it is given, and the recipe from one configuration."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text import train
from embedlab.text.progressive import KeepProgress, ProgressiveContrastiveLoss, filter_pairs, mine_tuples

WORDS = ["ivy", "fern", "moss", "oak", "elm", "ash", "lime", "rose", "sage", "dill", "kale", "leek"]
PAIRS = {
    "anchor": [f"what is {word}" for word in WORDS],
    "positive": [f"{word} is a plant of number {i}" for i, word in enumerate(WORDS)],
}
TEXTS = [*PAIRS["anchor"], *PAIRS["positive"]]


def pairs(**changes: Any) -> Dataset:
    return Dataset.from_dict({**PAIRS, **changes})


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return tiny_encoder(TEXTS, seed=0)


class TestResuming:
    @staticmethod
    def run(folder: Path, modulator: str, *, resume: bool = False) -> Any:
        student = tiny_encoder(TEXTS, seed=0)
        loss = ProgressiveContrastiveLoss(student, modulator=modulator, mini_batch_size=2)
        args = SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            max_steps=4,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="steps",
            save_steps=2,
            lr_scheduler_type="constant",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        trainer = SentenceTransformerTrainer(
            student, args, train_dataset=pairs(), loss=loss, callbacks=[KeepProgress(loss)]
        )
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if resume else None)
        return student, loss, [entry for entry in trainer.state.log_history if "loss" in entry]

    @pytest.mark.parametrize(("modulator", "state"), [("adaptive", "t"), ("hardness", "step")])
    def test_a_resumed_run_is_the_uninterrupted_one(self, modulator, state, tmp_path):
        whole, loss, logs = self.run(tmp_path, modulator)
        again, resumed, rest = self.run(tmp_path, modulator, resume=True)
        assert loss.modulator.state() == resumed.modulator.state()
        assert [entry["step"] for entry in rest] == [1, 2, 3, 4]  # the first two come from the checkpoint
        for key in ("loss", state, "hard_share", "hard_gradient_share", "easy_weight"):
            assert [entry[key] for entry in rest] == pytest.approx([entry[key] for entry in logs], abs=1e-6), key
        assert logs[0][state] < logs[-1][state]
        for left, right in zip(whole.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-6)

    def test_another_loss_is_refused(self, model):
        with pytest.raises(InputError, match="MultipleNegativesRankingLoss"):
            KeepProgress(MultipleNegativesRankingLoss(model))


class TestFilterPairs:
    def test_keeps_what_a_search_confirms(self):
        # the table of plants: a query is nearest to the text that names the same plant
        swapped = [PAIRS["positive"][1], PAIRS["positive"][0], *PAIRS["positive"][2:]]
        rows = pairs(positive=swapped, tag=list(range(12)))
        kept = filter_pairs(rows, Named())
        assert kept["tag"][:] == list(range(2, 12))
        assert kept.column_names == ["anchor", "positive", "tag"]
        assert len(filter_pairs(rows, Named(), top_k=12)) == 12

    def test_rivals_may_come_from_elsewhere(self):
        closer = ["what is ivy"]
        assert len(filter_pairs(pairs(), Named(), corpus=closer)) == 12  # as near as its own: no rival
        with pytest.raises(InputError, match="none of the 12 rows"):
            filter_pairs(pairs(positive=PAIRS["positive"][1:] + PAIRS["positive"][:1]), Named())

    def test_bad_rows_are_named(self):
        with pytest.raises(InputError, match="positive of row 2 is None"):
            filter_pairs(pairs(positive=["a", None, *PAIRS["positive"][2:]]), Named())
        with pytest.raises(InputError, match="'anchor'"):
            filter_pairs(Dataset.from_dict({"query": ["a"], "positive": ["b"]}), Named())


class Named:
    """Sees the plants in a text and nothing else."""

    name, dim, fingerprint = "named", len(WORDS), "named:0"

    def encode_document(self, texts: list[str], **_: Any) -> Any:
        return torch.tensor([[float(word in text.split()) for word in WORDS] for text in texts]).numpy()

    def encode_query(self, texts: list[str]) -> Any:
        return self.encode_document(texts)


class TestMineTuples:
    @pytest.mark.parametrize("num_negatives", [1, 5])
    def test_gives_the_nearest_texts_of_other_anchors(self, num_negatives, model):
        mined = mine_tuples(pairs(), model, num_negatives=num_negatives)
        assert mined.column_names == ["anchor", "positive", *(f"negative_{i + 1}" for i in range(num_negatives))]
        vectors = model.encode([*PAIRS["positive"]], normalize_embeddings=True)
        for row in mined:
            place = PAIRS["anchor"].index(row["anchor"])
            cosines = vectors @ model.encode(row["anchor"], normalize_embeddings=True)
            nearest = [i for i in (-cosines).argsort() if i != place][:num_negatives]
            assert [row[f"negative_{i + 1}"] for i in range(num_negatives)] == [PAIRS["positive"][i] for i in nearest]

    def test_skipped_and_further_texts(self, model):
        everything = mine_tuples(pairs(), model, num_negatives=3)
        skipped = mine_tuples(pairs(), model, num_negatives=2, skip=1)
        assert skipped["negative_1"][:] == everything["negative_2"][:]
        extra = mine_tuples(pairs(), model, num_negatives=12, corpus=["a plant of number 3"])
        assert all("a plant of number 3" in row.values() for row in extra)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"num_negatives": 12}, "12 different texts"),
            ({"num_negatives": 6, "skip": 6}, "skip=6"),
            ({"num_negatives": 0}, "num_negatives=0"),
            ({"relative_margin": 2.0}, "lower the margin"),
        ],
    )
    def test_too_much_is_refused(self, options, says, model):
        with pytest.raises(InputError, match=says):
            mine_tuples(pairs(), model, **options)


class TestRecipe:
    CONFIG: ClassVar[dict[str, Any]] = {"batch_size": 4, "steps": 4, "learning_rate": 1e-3, "num_negatives": 2}

    @pytest.mark.parametrize("modulator", ["adaptive", "sample_weight", None])
    def test_mines_filters_trains_and_evaluates(self, modulator, model, tmp_path, caplog):
        caplog.set_level(logging.INFO, logger="embedlab")
        before = model.encode(TEXTS)
        report = train(
            "peg",
            model=model,
            data=pairs(),
            out=tmp_path / "out",
            filter_top_k=11,
            modulator=modulator,
            evaluate=False,
            **self.CONFIG,
        )
        assert report.arm.steps == 4
        trained = SentenceTransformer(str(tmp_path / "out"), device="cpu")
        assert abs(trained.encode(TEXTS) - before).max() > 1e-4
        assert (model.encode(TEXTS) == before).all()

    def test_one_file_mines_filters_trains_and_evaluates(self, model, tmp_path):
        model.save_pretrained(str(tmp_path / "start"))
        rows = [f"what is {word} {i},{word} is a plant of number {i}" for word in WORDS for i in range(4)]
        (tmp_path / "pairs.csv").write_text("\n".join(["anchor,positive", *rows]))
        (tmp_path / "run.yaml").write_text(
            f"recipe: peg\nmodel: {tmp_path}/start\ndata: {tmp_path}/pairs.csv\nout: {tmp_path}/out\n"
            "options: {num_negatives: 2, filter_top_k: 8}\narguments: {batch_size: 4, steps: 2}\n"
            f"evaluation: {{held_out: 0.5, cache: {tmp_path}/cache}}\n"
        )
        report = train(tmp_path / "run.yaml")
        assert report.arm.steps == 2
        assert report.assessment.scores

    def test_a_better_miner_may_be_named(self, model, tmp_path):
        tiny_encoder(TEXTS, seed=3).save_pretrained(str(tmp_path / "miner"))
        options = {**self.CONFIG, "filter_top_k": None, "miner": str(tmp_path / "miner"), "modulator": "hardness"}
        report = train("peg", model=model, data=pairs(), out=tmp_path / "out", evaluate=False, **options)
        assert report.arm.steps == 4

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"num_negatives": 40}, "different texts to mine from"),
            ({"modulator": "adaptve"}, "did you mean 'adaptive'"),
            ({"filter_top_k": 0}, "top_k=0"),
        ],
    )
    def test_bad_options_are_named(self, changes, says, model, tmp_path):
        with pytest.raises(InputError, match=says):
            train(
                "peg",
                model=model,
                data=pairs(),
                out=tmp_path / "out",
                evaluate=False,
                **{**self.CONFIG, "filter_top_k": None, **changes},
            )

    @pytest.mark.parametrize("missing", ["", None])
    def test_unequal_numbers_of_negatives_are_refused(self, missing, model, tmp_path):
        rows = pairs(negative_1=PAIRS["positive"][::-1], negative_2=[*PAIRS["positive"][1:], missing])
        with pytest.raises(InputError, match="negative_2"):
            train("peg", model=model, data=rows, out=tmp_path / "out", evaluate=False, **self.CONFIG)
