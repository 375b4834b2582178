"""`embedlab depth`, as a person and as a machine read it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from embedlab._core.errors import InputError
from embedlab.cli.depth import app
from embedlab.models import load_model
from embedlab.understand.tte_depth import TextDepth

CARDS = [
    "my card has not arrived yet",
    "where is my new card",
    "the card I ordered is late",
    "[bold]is my card on its way",
    "when will my card be delivered",
    "the volcano erupted at dawn",
]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "cards.txt"
    path.write_text("\n\n".join(CARDS) + "\n", encoding="utf-8")
    return path


def invoke(*args, code=0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result


def test_rank_orders_the_lines_of_a_file(corpus):
    found = json.loads(invoke("rank", corpus, "--json").stdout)
    depth = TextDepth().fit(load_model().encode_document(CARDS))
    assert [row["text"] for row in found["texts"]] == [CARDS[i] for i in depth.order()]
    assert [row["line"] for row in found["texts"]] == [2 * i + 1 for i in depth.order()]
    assert found["texts"][-1]["text"] == CARDS[-1]
    assert found["texts"][0]["depth"] == pytest.approx(depth.depths().max())

    shown = invoke("rank", corpus, "--outliers", "--top-k", 2).stdout
    assert CARDS[-1] in shown.splitlines()[1]
    assert len(shown.splitlines()) == 3
    assert "[bold]is my card" in invoke("rank", corpus).stdout


def test_compare_gives_q_with_its_interval_and_the_strays(corpus, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the sea was calm\nmy card is lost\nlava ran down the slope\n", encoding="utf-8")
    found = json.loads(invoke("compare", corpus, other, "--json", "--p-value", "permutation").stdout)
    assert (found["n"], found["m"], found["method"]) == (6, 3, "permutation")
    assert found["q_low"] <= found["q"] <= found["q_high"]
    assert found["least_central"][-1]["text"] == "my card is lost"
    reverse = json.loads(invoke("compare", corpus, other, "--json", "--alternative", "further-in").stdout)
    assert reverse["alternative"] == "less"

    shown = invoke("compare", corpus, other, "--show", 1).stdout
    assert f"Q {found['q']:.4f}" in shown
    assert "n 6 reference texts, m 3 others" in shown


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "holds no text"), (b"\xff\xfe\xff", "UTF-8"), (b"one line\n", "at least 2")]
)
def test_files_without_a_corpus_are_refused(tmp_path, content, says):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        CliRunner().invoke(app, ["rank", str(path)], catch_exceptions=False)


def test_lines_without_a_known_word_are_named(tmp_path, monkeypatch):
    import numpy as np

    class Deaf:
        def encode_document(self, texts):
            return np.array([[0.0, 0.0] if "?" in text else [1.0, len(text)] for text in texts], dtype=np.float32)

    monkeypatch.setattr("embedlab.models.load_model", lambda name: Deaf())
    path = tmp_path / "corpus.txt"
    path.write_text("one\n???\nthree\n", encoding="utf-8")
    result = invoke("rank", path)
    assert "lines 2" in result.stderr
    assert json.loads(invoke("rank", path, "--json").stdout)["without_depth"] == [2]
