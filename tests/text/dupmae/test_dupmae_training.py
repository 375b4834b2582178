"""Pre-training and the stages of fine-tuning: as calls and as recipes of the trainer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.testing import assert_allclose
from sentence_transformers import SentenceTransformer

from embedlab._core.errors import InputError
from embedlab.testing.tiny import tiny_encoder
from embedlab.text import train
from embedlab.text.dupmae import (
    DuplexDistillationLoss,
    DuplexEncoder,
    MAEPretrainer,
    add_teacher_scores,
    duplex_loss,
    masked_lm,
    mine_negatives,
)

TEXTS = [
    "the cat sat on the mat and looked at the dog",
    "the dog lay by the door",
    "a ship sailed over the calm sea",
    "the sea was calm and blue",
    "shares fell on the news",
    "the bank raised its rates again",
    "rain fell on the mat by the door",
    "the news was read at the bank",
]
QUERIES = ["what did the cat do", "where was the dog", "what sailed", "how was the sea"]


def tiny(seed=0):
    return tiny_encoder([*TEXTS, *QUERIES], seed=seed, max_length=16)


def pairs(count=4):
    return {"anchor": QUERIES[:count], "positive": TEXTS[:count]}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    pretrainer = MAEPretrainer(tiny(), objective="dupmae")
    report = pretrainer.train(TEXTS, folder / "checkpoints", steps=30, batch_size=4, learning_rate=1e-2)
    pretrainer.save(folder / "model")
    return pretrainer, report, folder / "model"


def test_every_term_is_reported_and_falls(pretrained):
    report = pretrained[1]
    assert (report.steps, report.samples, report.windows) == (30, 120, 8)
    total = sum(np.array(report.terms[name]) * (0.1 if name == "bow" else 1) for name in ("mlm", "decoder", "bow"))
    assert_allclose(total, report.terms["loss"], rtol=1e-5)
    for name in ("mlm", "decoder", "bow"):
        assert np.mean(report.terms[name][-5:]) < np.mean(report.terms[name][:5])


def test_the_words_of_a_text_come_to_be_its_strongest(pretrained):
    def share(encoder):
        kept = encoder.encode_document(TEXTS).words
        own = [set(encoder.host.tokenizer(text)["input_ids"][1:-1]) for text in TEXTS]
        rows = np.split(kept.indices, kept.indptr[1:-1])
        return np.mean([len(words & set(row.tolist())) / len(words) for words, row in zip(own, rows, strict=True)])

    model, tokenizer = masked_lm(tiny())
    before = share(DuplexEncoder(model, tokenizer=tokenizer, dense_dim=8, sparse_k=10))
    after = share(DuplexEncoder(pretrained[2], dense_dim=8, sparse_k=10))
    assert after > before + 0.2


def test_gradients_of_two_halves_of_a_batch_are_gathered(tmp_path):
    pretrainer = MAEPretrainer(tiny(), objective="retromae")
    report = pretrainer.train(TEXTS, tmp_path, steps=3, batch_size=2, arguments={"gradient_accumulation_steps": 2})
    assert (report.steps, report.samples, len(report.terms["loss"])) == (3, 12, 3)


def test_epochs_and_half_precision(tmp_path):
    pretrainer = MAEPretrainer(tiny(), objective="dupmae")
    report = pretrainer.train(TEXTS, tmp_path, epochs=2, batch_size=4, arguments={"bf16": True})
    assert report.steps == 4
    assert np.isfinite(report.terms["loss"]).all()


def test_pre_training_goes_on_from_what_was_saved(pretrained, tmp_path):
    first, _, folder = pretrained
    again = MAEPretrainer(folder, objective="mlm")
    for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    own = ["the pump feeds the valve", "the valve shuts the pump off", "oil drips from the valve"] * 3
    texts = [text.replace("pump", "ship").replace("valve", "dog").replace("oil", "rain") for text in own]
    adapted = again.train(texts, tmp_path, steps=12, batch_size=9, learning_rate=3e-3)
    assert np.mean(adapted.terms["mlm"][-3:]) < np.mean(adapted.terms["mlm"][:3])


def test_the_head_comes_along_with_a_sentence_transformers_model(pretrained):
    encoder = DuplexEncoder(pretrained[2], dense_dim=32, sparse_k=4, mode="cls")
    model, _ = masked_lm(encoder.host)
    for name, value in pretrained[0].model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    beside, _ = masked_lm(SentenceTransformer(str(pretrained[2])))  # plain, but its folder has the head
    assert torch.equal(beside.cls.predictions.transform.dense.weight, model.cls.predictions.transform.dense.weight)


def test_the_given_model_is_left_alone(tmp_path):
    model = tiny()
    before = model.encode(TEXTS)
    MAEPretrainer(model).train(TEXTS, tmp_path, steps=1, batch_size=2)
    assert np.array_equal(model.encode(TEXTS), before)


def test_bad_training_options_are_refused(tmp_path):
    pretrainer = MAEPretrainer(tiny(), objective="mlm")
    with pytest.raises(InputError, match="batch_size=0"):
        pretrainer.train(TEXTS, tmp_path, batch_size=0)
    with pytest.raises(InputError, match="max_steps"):
        pretrainer.train(TEXTS, tmp_path, arguments={"max_steps": 3})
    with pytest.raises(InputError, match="none of the 1"):
        pretrainer.train([""], tmp_path, steps=1)
    with pytest.raises(InputError, match="max_length=99"):
        MAEPretrainer(tiny(), max_length=99)


# fine-tuning


@pytest.fixture
def duplex(pretrained):
    return DuplexEncoder(pretrained[2], dense_dim=8, sparse_k=6)


def columns(model, *texts):
    return [model.preprocess(list(column)) for column in texts]


def test_the_contrastive_loss_is_the_cross_entropy_of_duplex_scores(duplex):
    loss = duplex_loss(duplex.host, temperature=2.0)
    with torch.no_grad():
        found = loss(columns(duplex.host, QUERIES, TEXTS[:4], TEXTS[4:]), None).item()
    scores = duplex.score(duplex.encode_query(QUERIES), duplex.encode_document(TEXTS)).astype(float) / 2
    slow = np.mean([np.logaddexp.reduce(row) - row[place] for place, row in enumerate(scores)])
    assert found == pytest.approx(slow, rel=1e-4)


def test_the_distillation_loss_is_the_divergence_from_the_teacher(duplex):
    teacher = torch.tensor([[2.0, 0.5], [1.0, 1.5], [0.0, -1.0], [3.0, 0.0]])
    loss = DuplexDistillationLoss(duplex.host, contrastive_weight=0.5)
    with torch.no_grad():
        found = loss(columns(duplex.host, QUERIES, TEXTS[:4], TEXTS[4:]), teacher).item()
    scores = duplex.score(duplex.encode_query(QUERIES), duplex.encode_document(TEXTS)).astype(float)
    divergence, contrast = [], []
    for place, row in enumerate(scores):
        own = np.array([row[place], row[place + 4]])
        p = np.exp(teacher[place].numpy().astype(float))
        p /= p.sum()
        divergence.append(math.fsum(p * (np.log(p) - own + np.logaddexp.reduce(own))))
        contrast.append(np.logaddexp.reduce(row) - row[place])
    assert found == pytest.approx(np.mean(divergence) + 0.5 * np.mean(contrast), rel=1e-4)


def test_mined_negatives_are_near_and_never_positives(duplex):
    queries, positives = [*QUERIES, QUERIES[0]], [*TEXTS[:4], TEXTS[4]]
    rows = mine_negatives(duplex, queries, positives, corpus=TEXTS, num_negatives=2, top_k=3)
    scores = duplex.score(duplex.encode_query(queries), duplex.encode_document(TEXTS))
    for place, row in enumerate(rows):
        right = {TEXTS[0], TEXTS[4]} if row["anchor"] == QUERIES[0] else {positives[place]}
        near = [TEXTS[i] for i in np.argsort(-scores[place]) if TEXTS[i] not in right][:3]
        assert {row["negative_1"], row["negative_2"]} <= set(near)
        assert row["negative_1"] != row["negative_2"]
    assert rows[:] == mine_negatives(duplex, queries, positives, corpus=TEXTS, num_negatives=2, top_k=3)[:]
    with pytest.raises(InputError, match="num_negatives=7"):
        mine_negatives(duplex, queries, positives, corpus=TEXTS, num_negatives=7, top_k=7)
    with pytest.raises(InputError, match="one for each"):
        mine_negatives(duplex, queries, positives[:2])


def test_a_teacher_scores_every_candidate():
    class Lengths:
        def predict(self, pairs, /, **options):
            return np.array([len(query) + len(text) / 100 for query, text in pairs])

    rows = Dataset.from_dict({"anchor": ["a", "bb"], "positive": ["c", "dd"], "negative_1": ["eee", "ffff"]})
    assert add_teacher_scores(rows, Lengths())["label"][:] == [[1.01, 1.03], [2.02, 2.04]]


@pytest.mark.parametrize("recipe", ["mlm_pretrain", "retromae_pretrain", "dupmae_pretrain"])
def test_pre_training_as_a_recipe(recipe, tmp_path):
    rows = [{"text": text} for text in TEXTS]
    train(recipe, model=tiny(), data=rows, out=tmp_path / "out", steps=3, batch_size=4, evaluate=False)
    if recipe == "dupmae_pretrain":
        encoder = DuplexEncoder.load(tmp_path / "out", mode="both")
        assert encoder.encode_document(TEXTS).words.nnz > 0
        model = encoder.host
        encoder.pooling.mode = "cls"
    else:
        assert "embedlab" not in (tmp_path / "out" / "modules.json").read_text()
        model = SentenceTransformer(str(tmp_path / "out"))
    assert model.encode(TEXTS).shape == (8, 32)


def test_the_three_stages_as_recipes(pretrained, tmp_path):
    data = [dict(zip(("anchor", "positive"), row, strict=True)) for row in zip(QUERIES, TEXTS, strict=False)]
    shared = {"data": data, "steps": 2, "batch_size": 2, "evaluate": False, "num_negatives": 2, "sparse_k": 6}
    given = DuplexEncoder(pretrained[2], dense_dim=32, sparse_k=6, mode="cls").host
    for stage in ("contrastive", "hard_negatives", "distillation"):
        out = tmp_path / stage
        train("dupmae_finetune", model=given, out=out, stage=stage, dense_dim=8, teacher_steps=2, **shared)
        encoder = DuplexEncoder.load(out, mode="both")
        assert (encoder.pooling.dense_dim, encoder.pooling.sparse_k) == (8, 6)
        given = SentenceTransformer(str(out), trust_remote_code=True)
        assert given.encode(TEXTS).shape == (8, 8)
    with pytest.raises(InputError, match="contrastive"):
        train("dupmae_finetune", model=given, out=tmp_path / "bad", stage="contrastiv", **shared)
