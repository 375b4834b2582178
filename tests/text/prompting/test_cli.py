"""The three verbs: a model by a prompt, what models cost, whether they keep their word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embedlab.cli import app
from embedlab.models import load_model
from embedlab.text.prompting import PromptEmbedder

TEXTS = ["a cat sat on the mat", "the dog ran away from the cat", "a mat", "on the mat the dog sat"]


def ran(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert (result.exit_code == 0) == (status == 0), result.output
    return result.stdout


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS))
    return file


def test_a_model_by_a_prompt(decoder: Callable[[str], Path], tmp_path: Path, texts: Path) -> None:
    out = tmp_path / "echo"
    said = json.loads(
        ran(
            "prompt",
            decoder("llama"),
            out,
            "--method",
            "echo",
            "--layer",
            -2,
            "--fix",
            "centre",
            "--texts",
            texts,
            "--json",
        )
    )
    encoder = load_model(str(out), device="cpu")
    assert (said["dim"], said["method"]) == (encoder.dim, "echo")
    expected = PromptEmbedder(decoder("llama"), method="echo", layer=-2).fit(TEXTS, fix="centre").encode_query(TEXTS)
    assert np.abs(encoder.encode_query(TEXTS) - expected).max() < 1e-5
    ran("prompt", decoder("llama"), out, status=1)  # it is there already
    ran("prompt", decoder("llama"), tmp_path / "other", "--fix", "whiten", status=1)
    assert not (tmp_path / "other").exists()


def test_costs(texts: Path) -> None:
    found = json.loads(ran("efficiency", texts, "-m", "default", "-q", 0.5, "--batch-size", 2, "--length", 4, "--json"))
    assert found["front"] == ["default"]
    assert [(one["batch_size"], one["words"]) for one in found["rows"][0]["latencies"]] == [(2, 4)]
    assert "default" in ran("efficiency", texts, "--length", 4)
    ran("efficiency", texts, "-q", 0.5, "-q", 0.4, status=1)


def test_stress(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("red bird\ta bird that is red\nrain\tit rains\nbread\tbaking bread\ncar\tan old car\n")
    found = json.loads(ran("stress", file, "--outside", file, "--json"))
    assert {check["name"] for check in found["checks"]} >= {"length", "typos", "association", "out_of_domain"}
    assert "association" in ran("stress", file)
    file.write_text("only one column\n")
    ran("stress", file, status=1)
