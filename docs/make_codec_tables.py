"""Write the tables of docs/codecs.md from the result file of the benchmark.

python docs/make_codec_tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "codecs.md"
RESULT = ROOT / "benchmarks" / "results" / "codecs.json"
NAMES = {  # what the benchmark calls it -> what the page does
    "binary": "`binary`",
    "binary symmetric=False": "`binary`, float query",
    "pq bits=1.0 codeword_bits=4": "`pq`, codewords of 4 bits",
    "pq bits=2.0 codeword_bits=4": "`pq`, codewords of 4 bits",
    "pq bits=1.0": "`pq`",
    "opq bits=1.0 rounds=8": "`opq`",
    "int8": "`int8`",
    "float16": "`float16`",
    "float32": "`float32`",
    **{f"rotation bits={bits} symmetric=False": "`rotation`" for bits in (1, 2, 4)},
    **{f"rotation bits={bits} symmetric=True": "`rotation`, query coded too" for bits in (1, 2, 4)},
    **{f"rabitq bits={bits}": "`rabitq`" for bits in (1, 2, 3, 4)},
    **{f"bebr bits={bits}": "`bebr`, learned from pairs" for bits in (1, 2, 4)},
    **{f"RR,EDEN{bits}": "EDEN (faiss)" for bits in (1, 2, 4)},
    **{f"RR,SQtqmse{bits}": "TurboQuant's quantiser (faiss)" for bits in (1, 2, 4)},
    **{f"RR,RaBitQfs{bits or ''}": "RaBitQ by look-ups (faiss)" for bits in (0, 2, 4)},
    "SQ4": "SQ4 (faiss)",
    "SQ8": "SQ8 (faiss)",
    "Flat": "Flat (faiss)",
    "exact b1": "exact b1 (usearch)",
    "exact i8": "exact i8 (usearch)",
    "IVF_RQ (all probed)": "IVF_RQ (LanceDB)",
    "IVF_PQ (all probed)": "IVF_PQ (LanceDB)",
    "IVF_HNSW_SQ (all probed)": "IVF_HNSW_SQ (LanceDB)",
}


def tables() -> dict[str, str]:
    """Make all tables that there are results for.

    Returns:
        Name -> Markdown.
    """
    held = json.loads(RESULT.read_text(encoding="utf-8"))
    made = {"recall": recall, "speed": speed, "sdc": sdc}
    return {name: make(held[name]) for name, make in made.items() if name in held}


def recall(held: dict[str, Any]) -> str:
    """Make the table of both questions, for MiniLM.

    Args:
        held: The section of the result.

    Returns:
        Markdown.
    """
    rows = [row for row in held["rows"] if row["encoder"] == "minilm" and row["name"] in NAMES]
    sets = [name for name in ("scifact", "cranfield", "cacm", "debian") if any(r["collection"] == name for r in rows)]
    heads = [name.title() if name != "cacm" else "CACM" for name in sets]
    heads = [f"{question}, {head}" for question in ("Task", "Fidelity") for head in heads]
    lines = [
        f"| Bytes | Codec, MiniLM | {' | '.join(heads)} |",
        f"| ---: | --- |{' ---: |' * (2 * len(sets))}",
    ]
    places = {name: place for place, name in enumerate(NAMES)}
    order = {row["name"]: (row["bytes"] if row["whose"] != "lancedb" else 1e9, places[row["name"]]) for row in rows}
    for name in sorted(order, key=lambda name: order[name]):
        own = {row["collection"]: row for row in rows if row["name"] == name}
        cells = [f"{own[c][key]:.3f}" if c in own else "" for key in ("task", "fidelity") for c in sets]
        sizes = sorted({round(row["bytes"]) for row in own.values()})
        size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        lines.append(f"| {size} | {NAMES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed(held: dict[str, Any]) -> str:
    """Make the table of milliseconds per query, for MiniLM.

    Args:
        held: The section of the result.

    Returns:
        Markdown.
    """
    rows = [row for row in held["rows"] if row["encoder"] == "minilm" and row["name"] in NAMES]
    lines = [
        "| Vectors | Bytes | Codec | Fidelity | One query, ms: 1 · 2 threads | 64 at once, ms each: 1 · 2 threads |",
        "| ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    places = {name: place for place, name in enumerate(NAMES)}
    for row in sorted(rows, key=lambda r: (r["size"], r["whose"] == "lancedb", r["bytes"], places[r["name"]])):
        if row["size"] < 100_000:
            continue
        times = [[row[f"{kind}_ms_{threads}"] for threads in (1, 2)] for kind in ("single", "batch")]
        cells = [" · ".join("-" if value is None else f"{value:.2f}" for value in pair) for pair in times]
        lines.append(
            f"| {row['size']:,} | {row['bytes']:,.0f} | {NAMES[row['name']]} | {row['fidelity']:.3f} "
            f"| {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def sdc(held: dict[str, Any]) -> str:
    """Make the table of the scan.

    Args:
        held: The section of the result.

    Returns:
        Markdown.
    """
    lines = [
        "| Rows | Bits | Bytes | Floor | One query: `popcount` · `pqfs` · Hamming, ms | 64 at once, ms each: same |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(held["rows"], key=lambda row: row["bits"]):
        floor = min(row["floor_ms"], row["floor_again_ms"])
        cells = [
            " · ".join(f"{row[f'{kernel}_{kind}_ms_1']:.2f}" for kernel in ("popcount", "pqfs", "hamming"))
            for kind in ("single", "batch")
        ]
        lines.append(f"| {row['rows']:,} | {row['bits']} | {row['bytes']} | {floor:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def filled(page: str) -> str:
    """Put the tables into the page.

    Args:
        page: The page, with a pair of marks around each table.

    Returns:
        The page with fresh tables.
    """
    for name, table in tables().items():
        marks = rf"(<!-- table {name}: made by make_codec_tables.py -->\n).*?(<!-- end of table {name} -->)"
        page, count = re.subn(marks, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"docs/codecs.md has {count} places for table {name}, expected 1")
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
