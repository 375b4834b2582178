"""The whole main job against its peers: same files, same passages, same vectors, each in a process of its own.

Every contender gets the same folder and the same static model (the embedded default; for the peers its table inside a
model2vec `StaticModel`), reads and splits it, embeds it, builds a dense and a lexical index on disk, and then answers
the same queries. None of the peers ships readers for source files, markdown and the like, so they are given ours, in
the plain loop that their own guides show. Chroma has no ranked lexical index to build locally, so it does less work.

    python -m venv peers && peers/bin/pip install torch==2.13.0 . chromadb txtai model2vec
    peers/bin/python benchmarks/pipeline.py [--rounds 3] [--folder DOCS]

Without a folder it indexes Python's standard library (the corpus of `make demo`) and, where EMBEDLAB_DATA is set, the
descriptions of Debian's packages as markdown files. Writes `benchmarks/results/pipeline.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "pipeline.json"
CONTENDERS = ("embedlab", "lancedb+model2vec", "chroma", "txtai")
BATCH = 1024
TOP_K = 10

Search = Callable[[str], Any]


# --- contenders: each indexes the files and returns (number of documents, number of passages, search) ------------


def run_embedlab(folder: Path, home: Path) -> tuple[int, int, Search, dict[str, float]]:
    from embedlab.search import Collection

    collection = Collection.create(home / "collection")
    report = collection.index(folder)
    return report.added, report.passages, lambda query: collection.search(query, top_k=TOP_K), dict(report.stages)


def run_lancedb(folder: Path, home: Path) -> tuple[int, int, Search, dict[str, float]]:
    import lancedb
    from lancedb.index import FTS
    from lancedb.rerankers import RRFReranker

    model = _model2vec()
    passages, table = Passages(folder), None
    for batch in passages:
        vectors = model.encode([row["text"] for row in batch])
        rows = [{**row, "vector": vector} for row, vector in zip(batch, vectors, strict=True)]
        if table is None:
            table = lancedb.connect(home).create_table("passages", rows)
        else:
            table.add(rows)
    table.create_index("text", config=FTS(stem=True, remove_stop_words=True))
    reranker = RRFReranker()

    def search(query: str) -> Any:
        words = "".join(c if c.isalnum() else " " for c in query)
        hybrid = table.search(query_type="hybrid").vector(model.encode(query)).text(words)
        return hybrid.rerank(reranker).limit(TOP_K).to_list()

    return passages.documents, passages.count, search, {}


def run_chroma(folder: Path, home: Path) -> tuple[int, int, Search, dict[str, float]]:
    import chromadb

    model = _model2vec()
    client = chromadb.PersistentClient(str(home), chromadb.Settings(anonymized_telemetry=False))
    collection = client.create_collection("passages", embedding_function=None, configuration={"hnsw": {"space": "ip"}})
    passages = Passages(folder)
    for batch in passages:
        texts = [row["text"] for row in batch]
        collection.add(
            ids=[row["id"] for row in batch],
            documents=texts,
            embeddings=model.encode(texts),
            metadatas=[{"source": row["source"], "start": row["start"]} for row in batch],
        )
    search = lambda query: collection.query(query_embeddings=[model.encode(query)], n_results=TOP_K)  # noqa: E731
    return passages.documents, collection.count(), search, {}


def run_txtai(folder: Path, home: Path) -> tuple[int, int, Search, dict[str, float]]:
    from txtai import Embeddings

    model = _model2vec()
    index = Embeddings(method="external", transform=lambda texts: model.encode(list(texts)), content=True, hybrid=True)
    passages = Passages(folder)

    def rows() -> Iterator[tuple[str, dict[str, Any], None]]:
        for batch in passages:
            for row in batch:
                yield row["id"], {"text": row["text"], "source": row["source"], "start": row["start"]}, None

    index.index(rows())
    index.save(str(home / "index"))
    return passages.documents, index.count(), lambda query: index.search(query, TOP_K), {}


RUN = dict(zip(CONTENDERS, (run_embedlab, run_lancedb, run_chroma, run_txtai), strict=True))


class Passages:
    """The passages of some files as batches of rows; counts the documents and passages it has given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.documents = self.count = 0

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        from embedlab.data.documents import Document
        from embedlab.data.files import find_files, read_file
        from embedlab.data.passages import split_passages

        rows: list[dict[str, Any]] = []
        for file in find_files(self.folder):
            for document in read_file(file):
                if not isinstance(document, Document):
                    continue
                self.documents += 1
                for passage in split_passages(document):
                    row = {"id": str(self.count), "source": document.source, "title": document.title}
                    row["text"] = " ".join((document.title, *passage.headings, passage.text))
                    rows.append({**row, "start": passage.start, "end": passage.end})
                    self.count += 1
            while len(rows) >= BATCH:
                yield rows[:BATCH]
                rows = rows[BATCH:]
        if rows:
            yield rows


def _model2vec() -> Any:
    """The embedded default model as a model2vec model: the same rows, the same tokenizer."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer

    from embedlab.models import load_model

    ours = load_model("default")
    tokenizer = Tokenizer.from_str(ours.tokenizer_json)
    tokenizer.no_padding()
    return StaticModel(ours.rows, tokenizer, {}, normalize=True)


# --- one contender in this process ----------------------------------------------------------------------------------


def measure(name: str, folder: Path, home: Path, queries: list[str]) -> dict[str, Any]:
    """Index the files and answer the queries; every figure is of this process."""
    start = time.perf_counter()
    documents, passages, search, stages = RUN[name](folder, home)
    index_s = time.perf_counter() - start
    # the largest child is counted once: an underestimate where several read at a time, as with embedlab
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    index_rss = 1024 * sum(peaks)
    for query in queries[:20]:
        search(query)
    times = []
    for query in queries[20:]:
        start = time.perf_counter()
        search(query)
        times.append(1000 * (time.perf_counter() - start))
    ranked = sorted(times)
    return {
        "documents": documents,
        "passages": passages,
        "index_s": index_s,
        "documents_per_s": documents / index_s,
        "passages_per_s": passages / index_s,
        "search_p50_ms": statistics.median(ranked),
        "search_p95_ms": ranked[int(0.95 * len(ranked))],
        "peak_bytes": index_rss,
        "disk_bytes": sum(path.stat().st_size for path in home.rglob("*") if path.is_file()),
        "stages_s": stages,
    }


def limits(folder: Path) -> dict[str, float]:
    """What the machine could do at best, one core: reading bytes, parsing and splitting, tokenising."""
    from tokenizers import Tokenizer

    from embedlab.data.files import find_files
    from embedlab.models import load_model

    start = time.perf_counter()
    size = sum(len(file.path.read_bytes()) for file in find_files(folder))
    read_s = time.perf_counter() - start
    start = time.perf_counter()
    texts = [row["text"] for batch in Passages(folder) for row in batch]
    split_s = time.perf_counter() - start
    model = load_model("default")
    model.encode(texts[:100])
    start = time.perf_counter()
    model.encode(texts)
    encode_s = time.perf_counter() - start
    tokenizer = Tokenizer.from_str(model.tokenizer_json)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    start = time.perf_counter()
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    tokens_s = time.perf_counter() - start
    return {
        "bytes": size,
        "read_s": read_s,
        "read_and_split_s": split_s,
        "encode_s": encode_s,
        "tokens": tokens,
        "tokenizers_library_s": tokens_s,
    }


# --- all of them in turn --------------------------------------------------------------------------------------------


def compare(corpus: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Run every contender ``rounds`` times, in turn, and put the medians and ratios together."""
    texts = [row["text"] for batch in Passages(folder) for row in batch]
    chosen = random.Random(0)
    queries = [_query(chosen, chosen.choice(texts)) for _ in range(220)]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        for name in CONTENDERS:
            with tempfile.TemporaryDirectory() as scratch:
                job = {"folder": str(folder), "home": f"{scratch}/home", "queries": queries}
                Path(job["home"]).mkdir()
                Path(scratch, "job.json").write_text(json.dumps(job))
                command = [sys.executable, __file__, "--only", name, "--job", f"{scratch}/job.json"]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{corpus} round {number + 1} {name}: {_line(runs[name][-1])}", flush=True)
    medians = {name: {key: _median([run[key] for run in found]) for key in found[0]} for name, found in runs.items()}
    ours = medians["embedlab"]
    ratios = {
        name: {
            "index_speed": ours["documents_per_s"] / other["documents_per_s"],
            "search_p50": ours["search_p50_ms"] / other["search_p50_ms"],
            "search_p95": ours["search_p95_ms"] / other["search_p95_ms"],
            "peak_bytes": ours["peak_bytes"] / other["peak_bytes"],
            "disk_bytes": ours["disk_bytes"] / other["disk_bytes"],
        }
        for name, other in medians.items()
        if name != "embedlab"
    }
    return {"medians": medians, "ours_over_theirs": ratios, "limits": limits(folder), "rounds": runs}


def _query(chosen: random.Random, text: str) -> str:
    words = text.split()
    start = chosen.randrange(max(1, len(words) - 6))
    return " ".join(words[start : start + 6])


def _median(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: statistics.median([value[key] for value in values]) for key in values[0]}
    return statistics.median(values)


def _line(run: dict[str, Any]) -> str:
    return (
        f"{run['documents']:,} documents, {run['passages']:,} passages in {run['index_s']:.1f} s; "
        f"search p50 {run['search_p50_ms']:.2f} ms p95 {run['search_p95_ms']:.2f} ms; "
        f"{run['peak_bytes'] / 1e6:,.0f} MB memory, {run['disk_bytes'] / 1e6:,.0f} MB disk"
    )


def _debian_folder(scratch: Path) -> Path:
    """Write the descriptions of 20,000 Debian packages as markdown files, 500 to a folder."""
    from itertools import islice

    from embedlab.data.loaders import load_debian_packages

    folder = scratch / "debian"
    for number, package in enumerate(islice(load_debian_packages(), 20_000)):
        section = folder / f"{number // 500:04d}"
        section.mkdir(parents=True, exist_ok=True)
        (section / f"{package.name}.md").write_text(f"# {package.name}\n\n{package.short}\n\n{package.long}\n")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=CONTENDERS)
    parser.add_argument("--job", type=Path)
    options = parser.parse_args()
    if options.only:
        job = json.loads(options.job.read_text())
        found = measure(options.only, Path(job["folder"]), Path(job["home"]), job["queries"])
        print(json.dumps(found))
        return
    scratch = Path(tempfile.mkdtemp())
    try:
        corpora = {"given folder": options.folder} if options.folder else _corpora(scratch)
        results = {name: compare(name, folder, options.rounds) for name, folder in corpora.items()}
    finally:
        shutil.rmtree(scratch)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"machine": _machine(), "corpora": results}, indent=1) + "\n")
    print(json.dumps({name: result["ours_over_theirs"] for name, result in results.items()}, indent=1))


def _corpora(scratch: Path) -> dict[str, Path]:
    from embedlab.data.loaders import STDLIB_EXCLUDE, stdlib_folder

    corpora = {"standard library": scratch / "stdlib"}
    shutil.copytree(stdlib_folder(), corpora["standard library"], ignore=shutil.ignore_patterns(*STDLIB_EXCLUDE))
    if os.environ.get("EMBEDLAB_DATA"):
        corpora["Debian packages"] = _debian_folder(scratch)
    return corpora


def _machine() -> dict[str, Any]:
    from importlib.metadata import version

    packages = ("embedlab", "lancedb", "model2vec", "chromadb", "txtai", "numpy")
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
