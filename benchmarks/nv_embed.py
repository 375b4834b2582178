"""A training step of a decoder with our loss, transformer module and poolings against the host's own.

The contenders share the decoder (``embedlab.models.small_decoder``), the optimiser and the rows: short descriptions of
packages, the long ones, and other long ones. Steps alternate between them in one process, so that all meet the same
machine; the median step counts, in processor time, which other work on the machine disturbs least.

    EMBEDLAB_DATA=... python benchmarks/nv_embed.py [--steps 9]

Writes `benchmarks/results/nv_embed.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "nv_embed.json"
BATCH, LENGTH = 16, 32


def contenders() -> dict[str, tuple[Any, Any]]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    from embedlab.models.small_decoder import small_decoder
    from embedlab.text.nv_embed import HardNegativesRankingLoss
    from embedlab.text.pooling_attention import build_llm_embedder

    path, made = str(small_decoder()), {}

    def host() -> SentenceTransformer:
        body = Transformer(path, max_seq_length=LENGTH)
        return SentenceTransformer(modules=[body, Pooling(256, "mean"), Normalize()], device="cpu").eval()

    def ours(**design: Any) -> SentenceTransformer:
        return build_llm_embedder(path, max_seq_length=LENGTH, device="cpu", **design)

    model = host()
    made["host"] = model, MultipleNegativesRankingLoss(model, scale=50.0)
    model = host()
    made["hard negatives alone"] = model, HardNegativesRankingLoss(model, in_batch_negatives=False)
    model = ours(pooling="mean", attention="causal")
    made["decoder module"] = model, MultipleNegativesRankingLoss(model, scale=50.0)
    for pooling in ("latent_attention", "multi_layer"):
        model = ours(pooling=pooling, attention="bidirectional", num_latents=32, num_heads=8, head_dim=32)
        made[pooling.replace("_", " ")] = model, HardNegativesRankingLoss(model)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=9)
    args = parser.parse_args()

    import torch

    from embedlab._core.files import atomic_write
    from embedlab._core.machine import commit, hardware, versions
    from embedlab.data.loaders import load_debian_packages
    from embedlab.text.pooling_attention import parameter_counts

    torch.set_num_threads(1)
    packages = [each for each in islice(load_debian_packages(), 0, 20 * BATCH, 10) if each.long]
    pairs = zip(packages, packages[1:] + packages[:1], strict=True)
    rows = [(one.short, one.long[:200], other.long[:200]) for one, other in pairs][:BATCH]
    made = contenders()
    optimisers = {name: torch.optim.AdamW(model.parameters(), lr=1e-5) for name, (model, _) in made.items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(args.steps):
        for name, (model, loss) in made.items():
            began = time.process_time()
            columns = [model.preprocess(list(column)) for column in zip(*rows, strict=True)]
            optimisers[name].zero_grad()
            loss(columns, None).backward()
            optimisers[name].step()
            seconds[name].append(time.process_time() - began)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}  # the first step warms up
    results = []
    for name, (model, _) in made.items():
        ratio = medians[name] / medians["host"]
        count = parameter_counts(model)["pooling"]
        results.append({"case": name, "step_processor_s": medians[name], "ratio": ratio, "pooling_parameters": count})
        print(f"{name:22} {medians[name]:.3f} s  {ratio:.2f} of the host's  {count} parameters of the pooling")
    report = {"commit": commit(Path(__file__).parent), "hardware": hardware(), "versions": versions(), "rows": results}
    atomic_write(RESULT, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
