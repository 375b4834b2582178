"""Codecs at equal bytes: what is found, how fast, and how near a scan comes to the memory's own speed.

Two questions are kept apart. *Task*: recall@10 of the documents that were judged relevant (SciFact, Cranfield, CACM;
for a Debian package's one-line description its long one). *Fidelity*: recall@10 of the ten nearest by float32. A codec
may gain in one and lose in the other.

Sections, each kept in the result by itself (`--only`):

- `recall`: both questions, bytes per vector and vectors encoded per second, for three encoders and four collections.
  Everything learned is learned on the documents, and on training pairs where a collection has some (SciFact, Debian);
  nothing is learned from pairs at width 768, where it takes minutes.
- `speed`: milliseconds per query, one query at a time and 64 at once, with one thread and with two, and fidelity, on
  10,000 to 1,000,000 mixtures of MiniLM's vectors (see `codec_data.py`), and 100,000 of the others. The best of several
  rounds counts: the machine has other work. At a million there are fewer contenders, and none that
  took 20 ms per query on 100,000.
- `sdc`: the scan over uniform codes on 1,000,000 rows of width 384: kernels against each other, against the Hamming
  scan of faiss at the same bytes, and, for one query, against the time in which this machine reads as many bytes
  (`floor`: the faster of a dot product and a maximum over them, in the same run); and whether all kernels agree on
  100,000.

Indexes that do not look at every vector (IVF, HNSW, disk) are in `ann.py`; those of LanceDB are here with all
partitions probed, as codecs. Codecs that are not there are left out with the reason.

    EMBEDLAB_DATA=... python benchmarks/codecs.py [--only recall|speed|sdc]

Needs the extras `train`, `evaluate` and `codecs`, and usearch. Writes `benchmarks/results/codecs.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import codec_data as data
import numpy as np

from embedlab._core.errors import EmbedlabError
from embedlab._core.files import atomic_write
from embedlab._core.machine import commit, hardware, versions

RESULT = Path(__file__).parent / "results" / "codecs.json"
TOP_K, BATCH, SLOW_MS, SAMPLE = 10, 64, 20.0, 50_000
AT_A_MILLION = {
    *("binary", "int8", "pq bits=1.0 codeword_bits=4", "RR,RaBitQfs", "RR,RaBitQfs2", "SQ8", "Flat", "exact b1"),
    *(f"rotation bits={bits} symmetric=False" for bits in (1, 2, 4)),
    "rotation bits=2 symmetric=True",
}


@dataclass
class Contender:
    """Something that stores vectors and searches them.

    Attributes:
        name: What the table calls it.
        whose: ``embedlab``, ``faiss``, ``usearch`` or ``lancedb``.
        fit: Takes vectors to learn from, pairs or None, and a seed.
        add: Stores vectors; called with one block after the other.
        search: Takes queries, the number of rows and of threads; returns rows.
        bytes: Gives the bytes of one stored vector.
        learns: Whether it makes use of pairs.
    """

    name: str
    whose: str
    fit: Callable[[Any, Any, int], None]
    add: Callable[[Any], None]
    search: Callable[[Any, int, int], Any]
    bytes: Callable[[], float]
    learns: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


def codec(name: str, dim: int, **settings: Any) -> Contender:
    from embedlab.search.codecs import make_codec

    held: dict[str, Any] = {}

    def fit(vectors: Any, pairs: Any, seed: int) -> None:
        held["codec"] = make_codec(name, dim, seed=seed, **settings).fit(vectors, pairs=pairs)
        held.pop("scan", None)

    def add(vectors: Any) -> None:
        codes = held["codec"].encode(vectors)
        if "scan" in held:
            held["scan"].add(codes)
        else:
            held["scan"] = held["codec"].scanner(codes)
            warm(held["scan"])

    blank = make_codec(name, dim, **settings)
    shown = " ".join(f"{key}={value}" for key, value in settings.items())
    return Contender(
        f"{name} {shown}".strip(),
        "embedlab",
        fit,
        add,
        lambda queries, top_k, threads: held["scan"].search(queries, top_k, threads=threads)[1],
        lambda: blank.bytes_per_vector,
        blank.learns_from_pairs,
    )


def of_faiss(factory: str, dim: int) -> Contender:
    import faiss

    held: dict[str, Any] = {}

    def fit(vectors: Any, pairs: Any, seed: int) -> None:
        held["index"] = faiss.index_factory(dim, factory.replace("{d}", str(dim)), faiss.METRIC_INNER_PRODUCT)
        held["index"].train(vectors)

    def search(queries: Any, top_k: int, threads: int) -> Any:
        faiss.omp_set_num_threads(threads)
        return held["index"].search(queries, top_k)[1]

    return Contender(
        factory.replace("{d}", ""),
        "faiss",
        fit,
        lambda v: held["index"].add(v),
        search,
        lambda: held["index"].sa_code_size(),
    )


def of_usearch(kind: str, dim: int) -> Contender:
    from usearch.index import MetricKind, ScalarKind
    from usearch.index import search as exact

    held: dict[str, Any] = {}

    def code(vectors: Any) -> Any:
        if kind == "b1":
            return np.packbits(vectors >= 0, axis=1)
        return np.clip(np.rint(vectors * (127 / held["largest"])), -127, 127).astype(np.int8)

    def fit(vectors: Any, pairs: Any, seed: int) -> None:
        held.clear()
        held["largest"] = float(np.abs(vectors).max())

    def add(vectors: Any) -> None:
        held["codes"] = np.concatenate([held["codes"], code(vectors)]) if "codes" in held else code(vectors)

    def search(queries: Any, top_k: int, threads: int) -> Any:
        metric = MetricKind.Hamming if kind == "b1" else MetricKind.IP
        options = {"dtype": ScalarKind.B1} if kind == "b1" else {}
        found = exact(held["codes"], code(queries), top_k, metric, exact=True, threads=threads, **options)
        return np.asarray(found.keys).reshape(len(queries), -1).astype(np.int64)

    return Contender(f"exact {kind}", "usearch", fit, add, search, lambda: dim / 8 if kind == "b1" else dim)


def of_lancedb(kind: str, dim: int) -> Contender:
    """One query at a time only; threads are LanceDB's own business."""
    import lancedb
    import pyarrow as pa

    held: dict[str, Any] = {"parts": []}

    def fit(vectors: Any, pairs: Any, seed: int) -> None:
        held.clear()
        held["parts"] = []

    def add(vectors: Any) -> None:
        held["parts"].append(vectors)

    def table() -> Any:
        if "table" not in held:
            folder = held["folder"] = tempfile.TemporaryDirectory()
            rows = np.concatenate(held["parts"])
            fixed = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim)
            made = lancedb.connect(folder.name).create_table(
                "t", pa.table({"row": np.arange(len(rows)), "vector": fixed})
            )
            settings = {"num_sub_vectors": dim // 8} if kind == "IVF_PQ" else {}
            made.create_index(metric="dot", index_type=kind, num_partitions=1, vector_column_name="vector", **settings)
            files = Path(folder.name).rglob("_indices/**/*")
            held["bytes"] = sum(file.stat().st_size for file in files if file.is_file()) / len(rows)
            held["table"] = made
        return held["table"]

    def search(queries: Any, top_k: int, threads: int) -> Any:
        found = [
            table()
            .search(query, vector_column_name="vector")
            .nprobes(1)
            .limit(top_k)
            .select(["row", "_distance"])
            .to_arrow()["row"]
            for query in queries
        ]
        return np.array([rows.to_numpy() for rows in found])

    return Contender(f"{kind} (all probed)", "lancedb", fit, add, search, lambda: (table(), held["bytes"])[1])


def contenders(dim: int, *, learned: bool) -> list[Callable[[], Contender]]:
    """List everything that is compared, by rising bytes; each is made when its turn comes."""
    ours: list[tuple[str, dict[str, Any]]] = [
        ("binary", {}),
        ("binary", {"symmetric": False}),
        *(("rotation", {"bits": bits, "symmetric": symmetric}) for bits in (1, 2, 4) for symmetric in (True, False)),
        *(("rabitq", {"bits": bits}) for bits in (1, 2, 3, 4)),
        *(("pq", {"bits": bits, "codeword_bits": 4}) for bits in (1.0, 2.0)),
        ("pq", {"bits": 1.0}),
        ("opq", {"bits": 1.0, "rounds": 8}),
        ("int8", {}),
        ("float16", {}),
        ("float32", {}),
    ]
    if learned:
        ours += [("bebr", {"bits": bits}) for bits in (1, 2, 4)] + [
            ("contrastive_pq", {"parts": dim // 8, "opq_iterations": 4, "steps": 60})
        ]
    factories = (
        *("RR{d},RaBitQfs", "RR{d},RaBitQfs2", "RR{d},RaBitQfs4", "RR{d},EDEN1", "RR{d},EDEN2", "RR{d},EDEN4"),
        *("RR{d},SQtqmse1", "RR{d},SQtqmse2", "RR{d},SQtqmse4", "SQ4", "SQ6", "SQ8", "SQfp16", "Flat"),
    )
    return [
        *(lambda name=name, s=s: codec(name, dim, **s) for name, s in ours),
        *(lambda factory=factory: of_faiss(factory, dim) for factory in factories),
        *(lambda kind=kind: of_usearch(kind, dim) for kind in ("b1", "i8")),
        *(lambda kind=kind: of_lancedb(kind, dim) for kind in ("IVF_RQ", "IVF_PQ", "IVF_HNSW_SQ")),
    ]


def overlap(found: Any, wanted: Any) -> float:
    """Share of the wanted rows that were found, mean over queries; what is wanted may differ in number."""
    return float(np.mean([len(set(f) & set(w)) / min(len(w), TOP_K) for f, w in zip(found, wanted, strict=True)]))


def recall(args: argparse.Namespace) -> None:
    rows, missing = [], {}
    for encoder in args.encoders:
        for collection in args.collections:
            held = data.vectors_of(encoder, collection)
            exact = data.nearest(held.documents, held.queries, TOP_K).tolist()
            learned = held.pairs is not None and encoder != "wide" and not args.plain
            for make in contenders(data.DIM[encoder], learned=learned):
                found = _guarded(make, missing)
                if found is None or found.name.split()[0] in args.skip:
                    continue
                seeds = (0, 1, 2) if found.name.startswith(("rotation", "rabitq")) else (0,)
                each = [_judged(found, held, exact, seed, missing) for seed in seeds]
                if None in each:
                    continue
                row = {"encoder": encoder, "collection": collection, "name": found.name, "whose": found.whose}
                row |= {key: float(np.mean([one[key] for one in each])) for key in each[0]}
                row |= {f"{key}_spread": float(np.std([one[key] for one in each])) for key in ("task", "fidelity")}
                rows.append(row)
                print(
                    f"{encoder:8}{collection:10}{found.whose:9}{found.name:32}{row['bytes']:8.0f} B  "
                    f"task {row['task']:.3f}  fidelity {row['fidelity']:.3f}  {row['encoded_per_s']:9,.0f}/s",
                    flush=True,
                )
            keep(args, "recall", rows, {"left_out": missing})


def _guarded(make: Callable[[], Contender], missing: dict[str, str]) -> Contender | None:
    try:
        return make()
    except (EmbedlabError, RuntimeError, ImportError) as error:
        missing[str(make.__defaults__)] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        return None


def _judged(found: Contender, held: data.Vectors, exact: Any, seed: int, missing: dict[str, str]) -> Any:
    try:
        start = time.process_time()
        found.fit(held.documents, held.pairs if found.learns else None, seed)
        fitted = time.process_time()
        found.add(held.documents)
        added = time.process_time()
        rows = found.search(held.queries, TOP_K, 1).tolist()
    except (EmbedlabError, RuntimeError, ValueError) as error:
        missing[found.name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        return None
    return {
        "bytes": float(found.bytes()),
        "task": overlap(rows, held.relevant),
        "fidelity": overlap(rows, exact),
        "fit_s": fitted - start,
        "encoded_per_s": float("nan") if found.whose == "lancedb" else len(held.documents) / max(added - fitted, 1e-9),
    }


def speed(args: argparse.Namespace) -> None:
    rows, missing, slow = [], {}, set()
    sizes = [(encoder, 100_000) for encoder in args.encoders if encoder != "minilm"]
    sizes = [("minilm", size) for size in args.sizes if "minilm" in args.encoders] + sizes
    for encoder, size in sizes:
        queries = next(data.mixtures(encoder, 200, seed=1))
        sample = next(data.mixtures(encoder, SAMPLE, seed=2))
        parts = list(data.mixtures(encoder, size, seed=3))
        exact = _merged([data.nearest(part, queries, TOP_K) for part in parts], parts, queries)
        for make in contenders(data.DIM[encoder], learned=False):
            found = _guarded(make, missing)
            if found is None or (encoder, found.name) in slow or found.name.split()[0] in args.skip:
                continue
            if (args.short or size > 100_000) and found.name not in AT_A_MILLION:
                continue
            if found.whose == "lancedb" and size > 10_000:
                continue  # minutes to build
            try:
                found.fit(sample, None, 0)
                start = time.process_time()
                for part in parts:
                    found.add(part)
                encoded = size / (time.process_time() - start)
                row = _timed(found, queries)
            except (EmbedlabError, RuntimeError, ValueError) as error:
                missing[found.name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                continue
            few = queries[:20] if row["single_ms_1"] > SLOW_MS else queries
            fidelity = overlap(found.search(few, TOP_K, 1).tolist(), exact[: len(few)].tolist())
            if row["single_ms_1"] > SLOW_MS:
                slow.add((encoder, found.name))
            row = {"encoder": encoder, "size": size, "name": found.name, "whose": found.whose} | row
            row |= {"bytes": float(found.bytes()), "fidelity": fidelity, "encoded_per_s": encoded}
            rows.append(row)
            keep(args, "speed", rows, {"left_out": missing, "batch": BATCH})
            print(
                f"{encoder:8}{size:9,} {found.whose:9}{found.name:32}{row['bytes']:8.0f} B  fidelity {fidelity:.3f}  "
                f"single {row['single_ms_1']:8.3f} {row['single_ms_2']:8.3f}  batch {row['batch_ms_1']:8.3f} "
                f"{row['batch_ms_2']:8.3f} ms",
                flush=True,
            )


def _merged(found: list[Any], parts: list[Any], queries: Any) -> Any:
    """Put the nearest of every block together."""
    rows = np.concatenate([rows + 100_000 * number for number, rows in enumerate(found)], axis=1)
    scores = [np.einsum("qd,qkd->qk", queries, part[rows]) for part, rows in zip(parts, found, strict=True)]
    best = np.argsort(-np.concatenate(scores, axis=1), axis=1)[:, :TOP_K]
    return np.take_along_axis(rows, best, axis=1)


def _timed(found: Contender, queries: Any) -> dict[str, float]:
    times: dict[str, float] = {}
    for threads in (1, 2):
        for name, asked in (("single", queries[:1]), ("batch", queries[:BATCH])):
            if found.whose == "lancedb" and (name == "batch" or threads == 2):
                times[f"{name}_ms_{threads}"] = float("nan")  # it takes one query at a time, with its own threads
                continue
            times[f"{name}_ms_{threads}"] = fastest(lambda a=asked, t=threads: found.search(a, TOP_K, t)) / len(asked)
    return times


def fastest(call: Callable[[], object], *, least_s: float = 0.6, most: int = 25) -> float:
    """Return the milliseconds of the fastest of several rounds, after those that warm up."""
    call()
    start, seconds = time.perf_counter(), []
    while len(seconds) < 3 or (time.perf_counter() - start < least_s and len(seconds) < most):
        before = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - before)
        if seconds[-1] > 3:
            break
    return 1e3 * min(seconds)


def sdc(args: argparse.Namespace) -> None:
    import faiss

    from embedlab.search.codecs.sdc import SDCIndex
    from embedlab.search.codecs.uniform import pack, row_bytes

    rows, size, m = [], 1_000_000, 384
    for bits in args.bits:
        rng = np.random.default_rng(bits)
        codes = rng.integers(0, 256, size=(size, row_bytes(m, bits)), dtype=np.uint8)
        codes[:, -2:] = pack(rng.integers(0, 1 << bits, (1, m), dtype=np.uint8), bits)[:, -2:]
        held = codes.nbytes
        row: dict[str, Any] = {"rows": size, "bits": bits, "bytes": codes.shape[1], "floor_ms": floor_ms(held)}
        for kernel in ("popcount", "pqfs"):
            index = SDCIndex(m, bits, kernel=kernel)
            for start in range(0, size, 100_000):
                index.add(codes[start : start + 100_000])
            warm(index)
            row |= _both(kernel, lambda asked, threads, index=index: index.search(asked, TOP_K, threads=threads), codes)
            del index
        hamming = faiss.IndexBinaryFlat(m * bits)
        hamming.add(np.ascontiguousarray(codes[:, :-2]))

        def search(asked: Any, threads: int, index: Any = hamming) -> None:
            faiss.omp_set_num_threads(threads)
            index.search(np.ascontiguousarray(asked[:, :-2]), TOP_K)

        row |= _both("hamming", search, codes)
        row["floor_again_ms"] = floor_ms(held)
        floor = min(row["floor_ms"], row["floor_again_ms"])
        row["single_over_floor"] = row["popcount_single_ms_1"] / floor
        row["hamming_over_popcount_single"] = row["hamming_single_ms_1"] / row["popcount_single_ms_1"]
        row["hamming_over_popcount_batch"] = row["hamming_batch_ms_1"] / row["popcount_batch_ms_1"]
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
        del codes, hamming
        keep(args, "sdc", rows, {})
    keep(args, "sdc", rows, {"agreement": _agreement(args.bits, min(size, 100_000))})


def warm(scan: Any) -> None:
    """Let the kernel compile at its first search, as one that goes on searching does in the end."""
    kernel = getattr(getattr(scan, "index", scan), "_kernel", None)
    if hasattr(kernel, "patience_s"):
        kernel.patience_s = 0.0


def _both(name: str, search: Callable[[Any, int], object], codes: Any) -> dict[str, float]:
    times = {}
    for threads in (1, 2):
        for kind, asked in (("single", codes[:1]), ("batch", codes[:BATCH])):
            took = fastest(lambda a=asked, t=threads: search(a, t), least_s=1.5, most=60)
            times[f"{name}_{kind}_ms_{threads}"] = took / len(asked)
    return times


def floor_ms(held: int) -> float:
    """Return the time to read that many bytes from memory once, one thread, by the faster of two plain loops."""
    numbers = np.ones(held // 4, np.float32)
    words = numbers[: held // 8 * 2].view(np.uint64)
    return min(fastest(call, least_s=1.5, most=60) for call in (lambda: np.dot(numbers, numbers), lambda: words.max()))


def _agreement(each: tuple[int, ...], size: int) -> list[dict[str, Any]]:
    """Compare the first ten of every kernel, on mixtures of real vectors."""
    from embedlab.search.codecs import make_codec

    vectors = np.concatenate(list(data.mixtures("minilm", size, seed=3)))
    queries = next(data.mixtures("minilm", BATCH, seed=1))
    rows = []
    for bits in each:
        for symmetric in (True, False):
            made = make_codec("rotation", vectors.shape[1], bits=bits, symmetric=symmetric).fit(vectors[:1])
            codes = made.encode(vectors)
            found = {
                kernel: made.scanner(codes, kernel=kernel).search(queries, TOP_K)[1]
                for kernel in ("numpy", "popcount", "pqfs", "int8")
            }
            row = {"bits": bits, "symmetric": symmetric, "rows": size}
            row |= {f"{kernel}_as_numpy": overlap(found[kernel].tolist(), found["numpy"].tolist()) for kernel in found}
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("recall", "speed", "sdc"))
    parser.add_argument("--encoders", nargs="+", default=data.ENCODERS, choices=data.ENCODERS)
    parser.add_argument("--collections", nargs="+", default=data.COLLECTIONS, choices=data.COLLECTIONS)
    parser.add_argument("--bits", nargs="+", type=int, default=(1, 2, 4), choices=(1, 2, 4), help="for sdc")
    parser.add_argument("--sizes", nargs="+", type=int, default=(100_000, 10_000, 1_000_000), help="for speed")
    parser.add_argument("--skip", nargs="+", default=(), help="first words of the names of contenders to leave out")
    parser.add_argument("--short", action="store_true", help="for speed: only those that are measured at a million")
    parser.add_argument("--plain", action="store_true", help="leave out what learns from pairs, which takes minutes")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    args = parser.parse_args()
    for section in (recall, speed, sdc):
        if args.only in (None, section.__name__):
            section(args)


def keep(args: argparse.Namespace, section: str, rows: list[dict[str, Any]], more: dict[str, Any]) -> None:
    """Write what was measured so far; rows of the section that were not measured again stay."""
    if args.dry:
        return
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    of = ("encoder", "collection", "size", "rows", "bits")
    fresh = {tuple(row.get(key) for key in of) for row in rows}
    old = [row for row in before.get(section, {}).get("rows", ()) if tuple(row.get(key) for key in of) not in fresh]
    made = {"rows": old + rows, **more}
    if section == "sdc":  # bits may be measured one by one
        known = before.get(section, {}).get("agreement", [])
        new = made.get("agreement", [])
        again = {(row["bits"], row["symmetric"]) for row in new}
        made["agreement"] = [row for row in known if (row["bits"], row["symmetric"]) not in again] + new
    made |= {"commit": commit(Path(__file__).parent), "hardware": hardware(), "versions": _versions()}
    RESULT.parent.mkdir(exist_ok=True)
    atomic_write(RESULT, json.dumps({**before, section: made}, indent=1).replace("NaN", "null") + "\n")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return versions() | {name: version(name) for name in ("faiss-cpu", "numba", "usearch")}


if __name__ == "__main__":
    main()
