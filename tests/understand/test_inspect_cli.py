"""`embedlab inspect` and the newer verbs of `embedlab depth`, as a person and as a machine read them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from embedlab._core.errors import EmbedlabError, InputError
from embedlab.cli import app
from embedlab.models import load_model
from embedlab.search import Collection
from embedlab.understand.geometry import isotropy

SUBJECTS = ["card", "loan", "rate", "branch", "cheque", "pension"]
TEXTS = [f"where is my {thing} and how do I get {other}" for thing in SUBJECTS for other in (*SUBJECTS, "money")]
OTHERS = [f"a {animal} {does} in the {place}" for animal in ("cat", "dog", "cow") for does in ("sleeps", "runs")
          for place in ("garden", "house", "street")]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bank.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    (tmp_path / "labels.txt").write_text("\n".join(text.split()[3] for text in TEXTS) + "\n", encoding="utf-8")
    (tmp_path / "animals.txt").write_text("\n".join(OTHERS) + "\n", encoding="utf-8")
    np.save(tmp_path / "bank.npy", load_model().encode_document(TEXTS))
    return tmp_path


def invoke(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def told(*words):
    return json.loads(invoke("inspect", *words, "--json").stdout)


def test_a_file_of_texts(folder):
    found = told("bank.txt", "--labels", "labels.txt", "--against", "animals.txt")
    rows = load_model().encode_document(TEXTS)
    assert_allclose(found["isotropy"]["isoscore"]["estimate"], isotropy(rows).isoscore.estimate)
    assert found["model"] == "default"
    assert found["rows"] == len(TEXTS)
    assert found["depth"]["deepest"][0]["text"] in TEXTS
    assert found["against"]["test"]["q"] < 0.1
    assert found["against"]["strays"][0]["text"] in OTHERS
    assert {group["label"] for group in found["groups"]} == set(SUBJECTS)
    assert found["profiles"][0]["quantity"].startswith("mean cosine")
    assert "layers" not in found  # a static model has none

    shown = invoke("inspect", "space", "bank.txt").stdout
    assert shown.startswith("bank.txt: 42 vectors of 256 numbers by the default model")
    assert "How evenly do the vectors point?" in shown


def test_a_file_of_vectors_with_and_without_texts(folder):
    bare = told("bank.npy")
    assert "text" not in bare["depth"]["deepest"][0] or bare["depth"]["deepest"][0]["text"] is None
    assert bare["isotropy"] == told("bank.npy", "--texts", "bank.txt")["isotropy"]
    row = bare["depth"]["deepest"][0]["row"]
    assert told("bank.npy", "--texts", "bank.txt")["depth"]["deepest"][0]["text"] == TEXTS[row]
    assert told("bank.npy", "--against", "animals.txt", "--made-by", "default")["against"]["rows"] == len(OTHERS)


def test_a_collection_and_what_it_exports(folder):
    notes = Collection.create("notes")
    notes.add(
        [{"text": text, "source": f"{i}.txt", "metadata": {"subject": text.split()[3]}} for i, text in enumerate(TEXTS)]
    )
    found = told("notes", "--labels", "subject")
    assert (found["name"], found["rows"], found["model"]) == ("notes", len(TEXTS), "default")
    assert {group["label"] for group in found["groups"]} == set(SUBJECTS)
    assert found["depth"]["deepest"][0]["id"].endswith(".txt")
    assert ".txt  where is my" in invoke("inspect", "notes").stdout
    notes.export("notes.parquet")
    exported = told("notes.parquet", "--labels", "source")
    assert_allclose(exported["isotropy"]["isoscore"]["estimate"], found["isotropy"]["isoscore"]["estimate"], rtol=1e-3)
    assert exported["depth"]["deepest"][0]["text"] in TEXTS
    with pytest.raises(InputError, match="no passage has that"):
        CliRunner().invoke(app, ["inspect", "notes", "--labels", "colour"], catch_exceptions=False)


def test_collections_of_two_models_are_not_compared(folder):
    class Other:
        name, dim, fingerprint = "other", 256, "other:0123456789abcdef"

        def encode_document(self, texts, *, batch_size=32, on_progress=None):
            return load_model().encode_document(texts)

        encode_query = encode_document

    Collection.create("first").add(TEXTS)
    Collection.create("second", model=Other()).add(OTHERS)
    assert told("first", "--against", "animals.txt")["against"]["rows"] == len(OTHERS)
    with pytest.raises(InputError, match="two models can't be compared"):
        CliRunner().invoke(app, ["inspect", "first", "--against", "second"], catch_exceptions=False)


def test_another_model(folder):
    same = told("bank.txt", "--model", "default")
    assert same["other_model"] == "default"
    assert_allclose([same["similarity"]["cka"], same["similarity"]["overlap"]], 1, atol=1e-6)


def test_pairs_have_a_gap_of_their_own(folder):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(40, 8))
    np.save("images.npy", images)
    np.save("captions.npy", images + 0.2 * rng.normal(size=(40, 8)) + 3)
    found = told("images.npy", "--against", "captions.npy", "--paired")
    assert found["against"]["gap"]["paired"] is True
    assert found["against"]["gap"]["separability"]["estimate"] > 0.9


def test_a_transformer_shows_its_layers(folder, tmp_path):
    from embedlab.testing.tiny import tiny_encoder

    tiny_encoder(TEXTS, seed=0).save(str(tmp_path / "model"))
    found = told("bank.txt", "--made-by", tmp_path / "model")
    table = found["layers"]["table"]
    assert {row["layer"] for row in table} == set(range(1, len({row["layer"] for row in table}) + 1))
    assert all(row["sigma"]["estimate"] > 0 for row in table)
    assert "layers" not in told("bank.txt", "--made-by", tmp_path / "model", "--no-layers")


def test_the_page_is_written(folder):
    result = invoke("inspect", "bank.txt", "--html", "report.html")
    assert "wrote report.html" in result.stderr
    assert result.stdout == ""
    assert "<!doctype html>" in (folder / "report.html").read_text(encoding="utf-8")


def save(name, value):
    np.save(name, value)


BAD = {
    "empty": (lambda: save("bad.npy", np.empty((0, 4))), "at least 1 row"),
    "one row": (lambda: save("bad.npy", np.ones((1, 4))), "at least 2"),
    "nan": (lambda: save("bad.npy", np.full((9, 4), np.nan)), "row 0 holds NaN"),
    "constant": (lambda: save("bad.npy", np.ones((9, 4))), "parallel"),
    "zero rows": (lambda: save("bad.npy", np.zeros((9, 4))), "every row is zero"),
    "words": (lambda: save("bad.npy", np.array([["a", "b"]] * 9)), "real numbers"),
    "complex": (lambda: save("bad.npy", np.ones((9, 4)) * 1j), "real numbers"),
    "flat": (lambda: save("bad.npy", np.ones(9)), "matrix"),
    "objects": (lambda: save("bad.npy", np.array([{"a": 1}] * 9, dtype=object)), "Python objects are not opened"),
    "a pickle": (lambda: Path("bad.npy").write_bytes(pickle.dumps([1, 2])), "no .npy file"),
    "not npy": (lambda: Path("bad.npy").write_text("hello"), "no .npy file"),
    "no bytes": (lambda: Path("bad.npy").touch(), "no .npy file"),
    "cut short": (lambda: Path("bad.npy").write_bytes(Path("bank.npy").read_bytes()[:999]), "no .npy file of numbers"),
}


@pytest.mark.parametrize("what", BAD)
def test_files_that_hold_no_space_are_refused(folder, what):
    make, says = BAD[what]
    make()
    with pytest.raises(InputError, match=says):
        CliRunner().invoke(app, ["inspect", "bad.npy"], catch_exceptions=False)


def test_several_arrays_in_one_file_are_refused(folder):
    np.savez("bad.npz", a=np.ones((3, 3)))
    (folder / "bad.npz").rename(folder / "bad.npy")
    with pytest.raises(InputError, match="several arrays"):
        CliRunner().invoke(app, ["inspect", "bad.npy"], catch_exceptions=False)


PARQUET = {
    "no vectors": ({"text": ["a", "b"]}, "no column 'vector'"),
    "no lists": ({"vector": [1.0, 2.0]}, "not lists of numbers"),
    "ragged": ({"vector": [[1.0], [1.0, 2.0]]}, "lists of one length"),
    "missing": ({"vector": [[1.0], None]}, "lists of one length"),
    "words": ({"vector": [["a"], ["b"]]}, "real numbers"),
    "null inside": ({"vector": [[1.0, None], [1.0, 2.0]]}, "NaN"),
}


@pytest.mark.parametrize("what", PARQUET)
def test_parquet_files_that_hold_no_space_are_refused(folder, what):
    columns, says = PARQUET[what]
    pq.write_table(pa.table(columns), "bad.parquet")
    with pytest.raises(InputError, match=says):
        CliRunner().invoke(app, ["inspect", "bad.parquet"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["missing.npy"], "no file 'missing.npy'"),
        (["no-such-collection"], "no-such-collection"),
        (["bank.npy", "--texts", "labels.txt", "--labels", "animals.txt"], "18 labels for 42 vectors"),
        (["bank.npy", "--model", "default"], "needs texts"),
        (["bank.npy", "--texts", "missing.txt"], "can't be read"),
        (["bank.txt", "--against", "animals.txt", "--paired"], "as many rows"),
        (["notes", "--texts", "bank.txt"], "only a .npy file"),
    ],
)
def test_wrong_words_are_refused(folder, words, says):
    with pytest.raises(EmbedlabError, match=says):
        CliRunner().invoke(app, ["inspect", *words], catch_exceptions=False)


def test_help_leads_to_both_sub_commands():
    shown = invoke("inspect", "--help").stdout
    assert "space" in shown
    assert "tables" in shown
    assert "--against" in invoke("inspect", "space", "--help").stdout


def test_exemplars_by_label_and_as_a_prompt(folder):
    found = json.loads(invoke("depth", "exemplars", "bank.txt", "--labels", "labels.txt", "--json").stdout)
    assert [text["label"] for text in found["texts"]] == SUBJECTS
    for text in found["texts"]:
        assert TEXTS[text["line"] - 1] == text["text"]
    words = ["depth", "exemplars", "bank.txt", "--labels", "labels.txt", "-k", "2", "--prompt", "my [card] is gone"]
    shown = invoke(*words).stdout
    assert shown.count("Label: card") == 2
    assert shown.endswith("Text: my [card] is gone\nLabel:\n")
    assert json.loads(invoke(*words, "--json").stdout)["prompt"] + "\n" == shown
    whole = json.loads(invoke("depth", "exemplars", "bank.txt", "-k", "3", "--json").stdout)
    ranked = json.loads(invoke("depth", "rank", "bank.txt", "-k", "3", "--json").stdout)
    assert [text["text"] for text in whole["texts"]] == [text["text"] for text in ranked["texts"]]
    with pytest.raises(InputError, match="needs labels"):
        CliRunner().invoke(app, ["depth", "exemplars", "bank.txt", "--prompt", "x"], catch_exceptions=False)
    with pytest.raises(InputError, match="no label on line 19"):
        CliRunner().invoke(app, ["depth", "exemplars", "bank.txt", "--labels", "animals.txt"], catch_exceptions=False)


def test_drift_against_a_saved_reference(folder):
    assert "42 texts" in invoke("depth", "remember", "bank.txt", "reference.npz").stderr
    found = json.loads(invoke("depth", "drift", "reference.npz", "animals.txt", "--json").stdout)
    compared = json.loads(
        invoke("depth", "compare", "bank.txt", "animals.txt", "--json", "--alternative", "either").stdout
    )
    assert found["q"] == compared["q"]
    assert_allclose(found["pvalue"], compared["pvalue"])
    assert found["least_central"][0]["text"] in OTHERS
    assert "Q 0.0" in invoke("depth", "drift", "reference.npz", "animals.txt").stdout


def test_a_reference_of_another_model_is_refused(folder, monkeypatch):
    from embedlab.understand.depth_shift import DriftMonitor

    DriftMonitor(load_model().encode_document(TEXTS), fingerprint="static:else").save("reference.npz")
    with pytest.raises(InputError, match="static:else"):
        CliRunner().invoke(app, ["depth", "drift", "reference.npz", "animals.txt"], catch_exceptions=False)


def test_the_interval_can_be_bootstrapped(folder):
    (folder / "mixed.txt").write_text("\n".join([*TEXTS[::3], *OTHERS]), encoding="utf-8")
    words = ["depth", "compare", "bank.txt", "mixed.txt", "--json"]
    plain, drawn = (json.loads(invoke(*words, *more).stdout) for more in ([], ["--interval", "bootstrap"]))
    assert plain["q"] == drawn["q"]
    assert (plain["q_low"], plain["q_high"]) != (drawn["q_low"], drawn["q_high"])
