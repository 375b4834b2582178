"""Write the tables of docs/two-stage.md from the result files of the reproduction and the benchmark.

python docs/make_two_stage_tables.py
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "two-stage.md"
RESULT = ROOT / "reproductions" / "results" / "bidr.json"
BENCHMARK = ROOT / "benchmarks" / "results" / "ann.json"
CODES = {
    "dense": ("full vectors, 1,024 bytes", None),
    "rabitq": ("RaBitQ", "fidelity_rabitq"),
    "opq": ("OPQ", "fidelity_opq"),
    "opq_longer": ("OPQ, networks trained as long as below", None),
    "codebook": ("contrastive codebook, networks as they are", "fidelity_codebook"),
    "joint": ("**contrastive codebook and networks together**", None),
}
BATCHES = {
    "random": "random",
    "hard": "random, with a hard negative each",
    "snowball": "snowball",
    "random_walk": "random walk",
    "snowball_unfiltered": "snowball, likely false negatives left in",
}


def tables() -> dict[str, str]:
    """Make all tables.

    Returns:
        Name -> Markdown.
    """
    runs = [run["numbers"] for run in json.loads(RESULT.read_text(encoding="utf-8"))["levels"]["cpu"]["runs"]]

    def cell(key: str) -> str:
        values = [100 * run[key] for run in runs]
        return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"

    codes = ["| 16 bytes per document | R@10 | R@100 | Float neighbours kept |", "| --- | ---: | ---: | ---: |"]
    for arm, (words, kept) in CODES.items():
        codes.append(f"| {words} | {cell(f'r10_{arm}')} | {cell(f'r100_{arm}')} | {cell(kept) if kept else ''} |")
    batches = ["| Batches of the second stage | R@10, verified | R@10, all by full vectors |", "| --- | ---: | ---: |"]
    for arm, words in BATCHES.items():
        batches.append(f"| {words} | {cell(f'r10_verified_{arm}')} | {cell(f'r10_dense_{arm}')} |")
    return {"codes": "\n".join(codes), "batches": "\n".join(batches), "speed": speed()}


def speed() -> str:
    """Make the table of the benchmark.

    Returns:
        Markdown.
    """
    lines = [
        "| Documents | Index | Recall | Warm p50 · p99, ms | Cold p50 · p99, ms | Memory, MB |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in json.loads(BENCHMARK.read_text(encoding="utf-8"))["rows"]:
        names = ("candidates", "threads", "probes", "nprobe", "k_factor_rf", "efSearch", "refine")
        settings = ", ".join(f"{name.removesuffix('_rf')} {row[name]}" for name in names if name in row)
        cold = f"{row['cold_p50_ms']:.1f} · {row['cold_p99_ms']:.1f}" if "cold_p50_ms" in row else ""
        lines.append(
            f"| {row['documents']:,} | {row['contender']} ({settings}) | {row['recall']:.3f} | "
            f"{row['warm_p50_ms']:.1f} · {row['warm_p99_ms']:.1f} | {cold} | {row['memory_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def filled(page: str) -> str:
    """Put the tables into the page.

    Args:
        page: The page, with a pair of marks around each table.

    Returns:
        The page with fresh tables.
    """
    for name, table in tables().items():
        marks = rf"(<!-- table {name}: made by make_two_stage_tables.py -->\n).*?(<!-- end of table {name} -->)"
        page, count = re.subn(marks, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"docs/two-stage.md has {count} places for table {name}, expected 1")
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
