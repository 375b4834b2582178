"""Is it better, and who says so: verdicts, the folder of a model that got worse, and the verb with its exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from embedlab._core.errors import EmbedlabError, InputError
from embedlab.cli import app
from embedlab.testing.tiny import tiny_encoder
from embedlab.text.training import TrainingReport
from embedlab.text.training.assessment import START, Duel, judge
from embedlab.text.training.plain import CONTRASTIVE, PLAIN
from embedlab.text.training.recipe import Recipe
from embedlab.text.training.report import WORSE

from .conftest import ANSWERS, QUERIES


def duel(task: str, verdict: Any) -> Duel:
    return Duel(task, START, 0.0, -0.1, 0.1, 0.5, verdict)


@pytest.mark.parametrize(
    ("verdicts", "expected", "said"),
    [
        ([], "not judged", "not known"),
        (["better"], "better", "better than the start model on t0."),
        (["better", "not distinguishable"], "better", "not distinguishable on 1 other."),
        (["better", "worse"], "worse", "WORSE than the start model on t1, though better on t0."),
        (["not distinguishable"] * 2, "not distinguishable", "on t0, t1: the difference could be chance."),
    ],
)
def test_worse_on_one_task_is_worse(verdicts: list[Any], expected: str, said: str) -> None:
    verdict, sentence = judge([duel(f"t{place}", each) for place, each in enumerate(verdicts)])
    assert verdict == expected
    assert said in sentence


@pytest.fixture
def folder(tmp_path: Path, model: SentenceTransformer) -> Path:
    """A start model and a table, as a user has them."""
    model.save_pretrained(str(tmp_path / "start"), create_model_card=False)
    lines = [f"{query},{answer}" for query, answer in zip(QUERIES, ANSWERS, strict=True)]
    (tmp_path / "faq.csv").write_text("\n".join(["query,answer", *lines]) + "\n")
    (tmp_path / "recipe.yaml").write_text(
        "recipe: contrastive\nmodel: start\ndata: faq.csv\nout: better\n"
        "arguments: {steps: 30, batch_size: 10, learning_rate: 3e-3}\nevaluation: {held_out: 0.4}\n"
    )
    return tmp_path


def invoke(*words: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["train", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_a_model_that_got_better_is_handed_over(folder: Path) -> None:
    said = json.loads(invoke(folder / "recipe.yaml", "--json").stdout)
    assert said["verdict"] == "better"
    assert (said["data"][0]["rows"], said["data"][0]["test"]) == (60, 20)
    scores = {(each["task"], each["model"]): each["score"] for each in said["assessment"]["scores"]}
    assert scores["faq-test", "trained model"] > scores["faq-test", "start model"]
    assert {each["task"] for each in said["assessment"]["development"]} == {"faq-development"}
    assert SentenceTransformer(str(folder / "better")).encode(QUERIES[:1]).shape == (1, 32)
    text = invoke(folder / "recipe.yaml").output  # finished already: the report is shown
    assert "better than the start model on faq-test" in " ".join(text.split())
    card = (folder / "better" / "README.md").read_text()
    assert "better than the start model" in card
    assert "Do not use" not in card


def test_a_model_that_got_worse_is_kept_out_of_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ruin(model: Any, base: Any, setting: Any) -> Any:
        return tiny_encoder(["the", *QUERIES[:1]], seed=5)  # knows three words

    ruinous = Recipe(
        name="contrastive",
        summary="Ruins.",
        takes=("pairs",),
        loss=CONTRASTIVE.loss,
        post=ruin,
        options=CONTRASTIVE.options,
    )
    invoke(folder / "recipe.yaml", "--no-evaluation")
    monkeypatch.setitem(PLAIN, "contrastive", ruinous)
    out = folder / "worse"
    result = invoke(folder / "recipe.yaml", "--model", folder / "better", "--out", out, "--steps", 1, code=3)
    assert "WORSE than the start model on faq-test" in " ".join(result.output.split())
    report = TrainingReport.read(out)
    assert report.verdict == "worse"
    assert report.model_folder == out / WORSE
    assert not (out / "model.safetensors").exists()
    assert (out / WORSE / "model.safetensors").is_file()
    assert "Do not use this model" in (out / "README.md").read_text()
    with pytest.raises(EmbedlabError, match="even_if_worse=True"):
        report.load()
    assert report.load(even_if_worse=True).encode(["the"]).shape == (1, 32)


def test_the_best_checkpoint_by_the_development_part_is_kept(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.9, 0.2, 0.3])
    seen: list[Any] = []

    def score(self: Any, model: Any) -> float:
        seen.append(model[0].model.get_input_embeddings().weight.detach().clone())
        return next(scores)

    monkeypatch.setattr("embedlab.text.training.assessment.Exam.development_score", score)
    report = run(evaluate={"held_out": 0.4, "select": "best"}, steps=4)
    weight = report.load(even_if_worse=True)[0].model.get_input_embeddings().weight
    assert [bool((each == weight).all()) for each in seen] == [False, True, False, False]


def test_labels_and_scores_are_judged_by_their_own_kind(run: Any) -> None:
    labelled = [{"text": text, "label": text.split()[1]} for text in QUERIES for text in (text, text + " now")]
    scored = [
        {"sentence1": one, "sentence2": two, "score": float(one.split()[1] in two) + place % 2}
        for place, (one, two) in enumerate(zip(QUERIES, ANSWERS[10:] + ANSWERS[:5] + ANSWERS[:5], strict=True))
    ]
    classes = run("classes", data={"things": labelled}, evaluate={"held_out": 0.4}, steps=1)
    assert classes.assessment.scores[0].metric == "accuracy"
    alike = run("cosent", data={"alike": scored}, evaluate={"held_out": 0.4}, steps=1, resume=False)
    assert alike.assessment.scores[0].metric == "cosine_spearman"


def test_wrong_tasks_are_refused_before_anything_is_trained(run: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'stsb'"):
        run(evaluate=["stsbb"])
    assert not list(tmp_path.iterdir())


def test_list_explain_and_errors_of_the_verb(folder: Path) -> None:
    listed = {each["name"]: each for each in json.loads(invoke("--list", "--json").stdout)}
    assert listed["contrastive"]["options"]["temperature"] == 0.05
    assert "temperature = 0.05" in invoke("--list").output
    text = invoke(folder / "recipe.yaml", "--explain", "--set", "temperature=0.1").output
    assert "60 rows to train on, 20 for development, 20 for the test" in text
    assert "temperature = 0.1" in text
    assert not (folder / "better").exists()
    said = json.loads(invoke(folder / "recipe.yaml", "--explain", "--json").stdout)
    assert said["steps"] == 30
    with pytest.raises(InputError, match="no recipe"):
        invoke()
    with pytest.raises(InputError, match="expected NAME=VALUE"):
        invoke("contrastive", "--set", "temperature")
