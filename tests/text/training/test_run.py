"""Runs: what is trained, what an interruption costs (nothing), and what lies in the result folder."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import SoftmaxLoss

from embedlab._core.errors import InputError
from embedlab.text.training import TrainingReport
from embedlab.text.training.fitting import Step, TrainingStopped
from embedlab.text.training.plain import CONTRASTIVE, PLAIN
from embedlab.text.training.recipe import Recipe, TrainingData

from .conftest import ANSWERS, QUERIES


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return SentenceTransformer(str(folder), device="cpu").state_dict()


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


class InterruptAt:
    """Presses Ctrl-C when a step has been done."""

    def __init__(self, step: int) -> None:
        self.step, self.seen = step, []

    def __call__(self, step: Step) -> None:
        self.seen.append(step)
        if step.step == self.step and sum(each.step == self.step for each in self.seen) == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_gives_a_model_a_card_a_recipe_and_a_report(run: Any, model: Any, tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    seen: list[Step] = []
    report = run(on_progress=seen.append)
    assert report.losses[6] < report.losses[1]
    assert seen[-1] == Step("contrastive", 6, 6, report.losses[6])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    out = tmp_path / "out"
    trained = SentenceTransformer(str(out))  # by the host alone
    assert trained.encode(QUERIES[:2]).shape == (2, 32)
    assert not equal(trained.state_dict(), model.state_dict())
    assert equal(before, model.state_dict())
    card = (out / "README.md").read_text()
    assert "embedlab train recipe.yaml" in card
    assert "| temperature | `0.05` |" in card
    assert "Licence" in card
    again = TrainingReport.read(out)
    assert again == report
    assert json.loads((out / "report.json").read_text())["verdict"] == "not judged"
    assert equal(report.load().state_dict(), trained.state_dict())


def test_global_randomness_and_loggers_are_left_alone(run: Any) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state()  # noqa: NPY002
    level = logging.getLogger("transformers").level
    run(steps=1)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), states[2])
    assert logging.getLogger("transformers").level == level


@pytest.mark.parametrize("changes", [{}, {"lora": {"rank": 4, "dropout": 0.3}}, {"mini_batch_size": 4}])
def test_an_interrupted_run_goes_on_to_the_same_weights(changes: Any, run: Any, tmp_path: Path) -> None:
    whole = run(out=tmp_path / "whole", steps=10, **changes)
    interrupt = InterruptAt(5)
    with pytest.raises(TrainingStopped, match="stopped after step 5 of 10") as caught:
        run(out=tmp_path / "cut", steps=10, on_progress=interrupt, **changes)
    assert str(caught.value).endswith("cut.unfinished: run the same again to go on")
    assert not (tmp_path / "cut").exists()
    seen: list[Step] = []
    rest = run(out=tmp_path / "cut", steps=10, on_progress=seen.append, **changes)
    assert min(step.step for step in seen if step.total) == 5
    assert rest.losses == whole.losses
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_weights_of_the_loss_are_resumed_too(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own checkpoints lose them."""

    def loss(model: Any, data: Any, setting: Any) -> Any:
        return SoftmaxLoss(model, model.get_embedding_dimension(), 2)

    def rows(data: Any, model: Any, setting: Any) -> Any:
        columns = {"sentence1": QUERIES[:60], "sentence2": ANSWERS[:60], "label": [i % 2 for i in range(60)]}
        return [TrainingData(each.name, "scored", Dataset.from_dict(columns)) for each in data]

    recipe = Recipe(name="softmax", summary="Tells two kinds of pairs apart.", takes=("scored",), loss=loss, data=rows)
    monkeypatch.setitem(PLAIN, "cosine", recipe)
    monkeypatch.setattr("embedlab.text.training.catalogue.find_recipe", lambda name: recipe)
    run("cosine", out=tmp_path / "whole", steps=6)
    with pytest.raises(TrainingStopped):
        run("cosine", out=tmp_path / "cut", steps=6, on_progress=InterruptAt(3))
    run("cosine", out=tmp_path / "cut", steps=6)
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_a_finished_run_is_not_run_again_and_another_is_not_mixed_with_it(run: Any, tmp_path: Path) -> None:
    first = run()
    stamp = (tmp_path / "out" / "report.json").stat().st_mtime_ns
    seen: list[Step] = []
    assert run(on_progress=seen.append).losses == first.losses
    assert all(step.total == 0 for step in seen)
    assert (tmp_path / "out" / "report.json").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="holds the result of another run"):
        run(steps=3)
    assert run(steps=3, resume=False).arm.steps == 3
    with pytest.raises(TrainingStopped):
        run(out=tmp_path / "cut", on_progress=InterruptAt(2))
    with pytest.raises(InputError, match="differs in options"):
        run(out=tmp_path / "cut", temperature=0.5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(InputError, match="holds other files"):
        run(out=tmp_path / "mine", resume=False)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not touch"


def test_gradient_caching_changes_memory_and_not_the_result(run: Any, tmp_path: Path) -> None:
    plain = run(out=tmp_path / "plain")
    cached = run(out=tmp_path / "cached", mini_batch_size=3)
    assert list(cached.losses.values()) == pytest.approx(list(plain.losses.values()), rel=1e-4)


def test_low_rank_matrices_are_folded_in_and_can_be_kept(run: Any, model: Any, tmp_path: Path) -> None:
    report = run(lora={"rank": 4, "keep": True})
    total = sum(weight.numel() for weight in model.parameters())
    assert 0 < report.arm.trained_parameters < total / 2
    assert weights(tmp_path / "out").keys() == model.state_dict().keys()
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


def test_the_baseline_gets_the_same_rows_in_the_same_order(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[str]] = {}

    def watching(name: str, scale: float) -> Recipe:
        def loss(model: Any, data: Any, setting: Any) -> Any:
            made = CONTRASTIVE.loss(model, data, setting)  # type: ignore[misc]
            whole = made.forward

            def forward(features: Any, labels: Any = None) -> Any:
                columns = list(features)
                seen.setdefault(name, []).append(str(columns[0]["input_ids"].tolist()))
                return whole(columns, labels) * scale

            made.forward = forward
            return made

        return Recipe(
            name=name, summary="Looks.", takes=("pairs",), loss=loss, baseline="cosine", options=CONTRASTIVE.options
        )

    recipes = {"triplet": watching("triplet", 1.0), "cosine": watching("cosine", 0.5)}
    monkeypatch.setattr("embedlab.text.training.catalogue.find_recipe", recipes.__getitem__)
    report = run("triplet", compare=True)
    assert report.baseline is not None
    assert report.baseline.steps == report.arm.steps == 6
    assert seen["triplet"] == seen["cosine"]
    assert len(seen["triplet"]) == 6


def test_an_interruption_of_the_baseline_costs_nothing_either(run: Any, tmp_path: Path) -> None:
    scores = [float(place % 5) for place in range(len(QUERIES))]
    scored = Dataset.from_dict({"sentence1": QUERIES, "sentence2": ANSWERS, "score": scores})

    pressed: list[Step] = []

    def at_the_baseline(step: Step) -> None:
        if (step.arm, step.step) == ("cosine", 3) and not pressed:
            pressed.append(step)
            os.kill(os.getpid(), signal.SIGINT)

    whole = run("cosent", data=scored, compare=True, out=tmp_path / "whole")
    with pytest.raises(TrainingStopped):
        run("cosent", data=scored, compare=True, out=tmp_path / "cut", on_progress=at_the_baseline)
    seen: list[Step] = []
    rest = run("cosent", data=scored, compare=True, out=tmp_path / "cut", on_progress=seen.append)
    assert "cosent" not in {step.arm for step in seen}  # finished before, and not trained a step further
    assert rest.baseline is not None
    assert whole.baseline is not None
    assert (rest.losses, rest.baseline.losses) == (whole.losses, whole.baseline.losses)
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_a_batch_holds_no_text_twice_and_no_two_data_sets(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[str]] = []

    def loss(model: Any, data: Any, setting: Any) -> Any:
        made = CONTRASTIVE.loss(model, data, setting)  # type: ignore[misc]
        whole = made.forward

        def forward(features: Any, labels: Any = None) -> Any:
            columns = list(features)
            batches.append([model.tokenizer.decode(ids, skip_special_tokens=True) for ids in columns[0]["input_ids"]])
            return whole(columns, labels)

        made.forward = forward
        return made

    recipe = Recipe(name="triplet", summary="Looks.", takes=("pairs",), loss=loss, options=CONTRASTIVE.options)
    monkeypatch.setattr("embedlab.text.training.catalogue.find_recipe", lambda name: recipe)
    one = Dataset.from_dict({"anchor": QUERIES[:20] * 2, "positive": ANSWERS[:20] * 2})
    two = Dataset.from_dict({"anchor": QUERIES[50:80], "positive": ANSWERS[50:80]})
    run("triplet", data={"one": one, "two": two}, steps=None, epochs=1)
    assert len(batches) > 4
    assert all(len(set(batch)) == len(batch) for batch in batches)
    first = set(QUERIES[:20])
    assert all(len({text in first for text in batch}) == 1 for batch in batches)


def test_prompts_of_the_training_stay_with_the_model(run: Any, tmp_path: Path) -> None:
    run(steps=1, prompts={"anchor": "this is", "positive": ""})
    assert SentenceTransformer(str(tmp_path / "out")).prompts["query"] == "this is"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "default"}, "cannot be trained"),
        ({"model": 3}, "type int"),
        ({"recipe": "cosent"}, "takes scored, and these rows are pairs"),
        ({"learning_rate": 1e30, "steps": 8}, "the loss is nan"),
    ],
)
def test_what_cannot_be_trained_is_said(changes: Any, said: str, run: Any) -> None:
    from embedlab._core.errors import EmbedlabError

    with pytest.raises(EmbedlabError) as caught:
        run(changes.pop("recipe", "contrastive"), **changes)
    assert said in str(caught.value)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    for place, thing in enumerate(QUERIES[:40]):
        (folder / f"{place}.txt").write_text(
            f"The {thing} of today is here. Then {ANSWERS[place]} and more of it follows."
        )
    return folder


def test_documents_alone_are_enough(run: Any, documents: Path) -> None:
    report = run(data={"path": documents, "top_k": 20}, evaluate=False)
    (used,) = report.data
    assert used.kind == "pairs"
    assert 10 < used.rows <= 40
    assert any("lead back to their passage" in note for note in report.notes)


def test_queries_of_an_endpoint_are_kept_with_the_model(
    run: Any, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedlab.text.synthesis import TemplateGenerator, pipelines

    asked: list[str] = []
    real = pipelines.synthesize_pairs

    def standing_in(passages: Any, llm: str, path: Path, **options: Any) -> Any:
        asked.append(llm)
        return real(passages, TemplateGenerator(), path, **options)

    monkeypatch.setattr(pipelines, "synthesize_pairs", standing_in)
    url = "http://localhost:1/v1#model"
    report = run(data={"path": documents, "queries": url, "top_k": None})
    assert asked == [url]
    assert report.data[0].kind == "pairs"
    assert len((tmp_path / "out" / "queries" / "handbook.jsonl").read_text().splitlines()) >= 40
    with pytest.raises(InputError, match="expected 'offline', or the URL"):
        run(data={"path": documents, "queries": "gpt"}, out=tmp_path / "other")


def test_a_recipe_may_train_in_its_own_way_and_finish_with_a_step_of_its_own(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []

    def fit(model: Any, data: Any, setting: Any) -> Any:
        said.append((data[0].kind, setting.arguments.max_steps, setting.options))
        with torch.no_grad():
            next(iter(model.parameters())).zero_()
        return model

    def post(model: Any, base: Any, setting: Any) -> Any:
        first, before = next(iter(model.parameters())), next(iter(base.parameters()))
        assert not first.any()
        assert before.any()
        return base

    recipe = Recipe(
        name="triplet", summary="Zeroes.", takes=("texts",), loss=None, fit=fit, post=post, options={"a": 1}
    )
    monkeypatch.setattr("embedlab.text.training.catalogue.find_recipe", lambda name: recipe)
    report = run("triplet", data=Dataset.from_dict({"text": QUERIES}), a=2)
    assert said == [("texts", 6, {"a": 2})]
    assert next(iter(report.load().parameters())).any()
    with pytest.raises(InputError, match="knows no adapters"):
        run("triplet", lora=4)
