"""Sets whose records have a form of their own: meetings, code, occupations, emoji names, citation graphs with text."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass

from embedlab._core.errors import unknown_name
from embedlab.data.datasets import RetrievalData, Text
from embedlab.data.loaders.opening import open_text


@dataclass(frozen=True, slots=True)
class Problem:
    """A programming problem.

    Args:
        id: Such as ``"HumanEval/0"``.
        prompt: Head of the function with its docstring.
        solution: A body that is right.
    """

    id: str
    prompt: str
    solution: str


@dataclass(frozen=True, slots=True)
class Occupation:
    """What O*NET says about an occupation.

    Args:
        code: Its code, such as ``"11-1011.00"``.
        title: Its title.
        description: One paragraph.
        other_titles: Other names of it.
        tasks: What people of this occupation do.
        skills: Software and tools they use.
        related: Codes of related occupations, nearest first.
        commodities: Kinds of software and tools they use, each once: what ``skills`` are examples of.
        nearest: Codes of the occupations in the first tier of ``related``.
    """

    code: str
    title: str
    description: str
    other_titles: tuple[str, ...]
    tasks: tuple[str, ...]
    skills: tuple[str, ...]
    related: tuple[str, ...]
    commodities: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextGraph:
    """A citation graph whose nodes are texts.

    Args:
        texts: Title and abstract of each node.
        labels: Field of each node, a number.
        edges: Pairs of nodes, the smaller first, each once.
        split: ``"Train"``, ``"Validation"`` or ``"Test"`` of each node, as published.
    """

    texts: list[str]
    labels: list[int]
    edges: list[tuple[int, int]]
    split: list[str]


def load_humaneval() -> list[Problem]:
    """Load HumanEval: 164 programming problems with solutions.

    Returns:
        The problems.

    Raises:
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Chen et al. (2021), Evaluating Large Language Models Trained on Code, arXiv 2107.03374.
    """
    rows = map(json.loads, open_text("humaneval", "HumanEval.jsonl.gz").splitlines())
    return [Problem(row["task_id"], row["prompt"], row["canonical_solution"]) for row in rows]


def load_qmsum(split: str = "test") -> RetrievalData:
    """Load QMSum as finding: which of 35 meetings answers a question? Meetings are long: 56,000 characters on average.

    Args:
        split: ``"validation"`` or ``"test"``.

    Returns:
        Meetings, and the questions on a part of one of them; questions on a meeting as a whole, which fit every
        meeting, are left out.

    Raises:
        InputError: there is no such split.
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Zhong et al. (2021), QMSum: A New Benchmark for Query-based Multi-domain Meeting Summarization.
    """
    files = {"validation": "val.jsonl.gz", "test": "test.jsonl.gz"}
    if split not in files:
        raise unknown_name("split", split, files)
    corpus: dict[str, Text] = {}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(open_text("qmsum", files[split]).splitlines()):
        meeting, row = f"{split}-{number}", json.loads(line)
        turns = (f"{turn['speaker']}: {turn['content']}" for turn in row["meeting_transcripts"])
        corpus[meeting] = Text("", "\n".join(turns))
        for place, query in enumerate(row["specific_query_list"]):
            queries[f"{meeting}-{place}"] = query["query"]
            qrels[f"{meeting}-{place}"] = {meeting: 1}
    return RetrievalData("qmsum", corpus, queries, qrels)


def load_onet() -> list[Occupation]:
    """Load O*NET: 1,016 occupations with descriptions, other titles, tasks, technology and related occupations.

    Returns:
        The occupations, by code.

    Raises:
        MissingDataError: one of the files is not in ``EMBEDLAB_DATA``.
    """
    other, tasks = _by_code("Alternate Titles", "Alternate Title"), _by_code("Task Statements", "Task")
    skills = _by_code("Technology Skills", "Example")
    related = _by_code("Related Occupations", "Related O*NET-SOC Code")
    tiers = _by_code("Related Occupations", "Relatedness Tier")
    commodities = _by_code("Technology Skills", "Commodity Title")
    return [
        Occupation(
            code, row["Title"], row["Description"], tuple(other[code]), tuple(tasks[code]), tuple(skills[code]),
            tuple(related[code]), tuple(dict.fromkeys(commodities[code])),
            tuple(each for each, tier in zip(related[code], tiers[code], strict=True) if tier == "Primary-Short"),
        )
        for row in _tab_rows("Occupation Data")
        for code in [row["O*NET-SOC Code"]]
    ]  # fmt: skip


def load_emoji_names() -> dict[str, dict[str, tuple[str, tuple[str, ...]]]]:
    """Load names and keywords of 4,179 emoji and signs in 13 languages.

    Returns:
        For each emoji and language (``"en"``, ``"de"``, ...) its name and keywords.

    Raises:
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.
    """
    rows = map(json.loads, open_text("emoji-multilingual", "annotations.jsonl.gz").splitlines())
    return {
        row["emoji"]: {language: (entry["name"], tuple(entry["keywords"])) for language, entry in row["text"].items()}
        for row in rows
    }


def load_text_graph(name: str) -> TextGraph:
    """Load a part of a citation graph with the raw text of its nodes.

    Args:
        name: ``"cora"``, 1,354 papers in 7 fields, or ``"citeseer"``, 1,274 papers in 6.

    Returns:
        Texts, fields, edges inside the part, and the published split.

    Raises:
        InputError: there is no such graph.
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.
    """
    files = {"cora": "SubCora.json.gz", "citeseer": "SubCiteseer.json.gz"}
    if name not in files:
        raise unknown_name("text graph", name, files)
    nodes = json.loads(open_text("text-graphs", files[name]))
    place = {node["node_id"]: number for number, node in enumerate(nodes)}
    edges = {
        (min(place[node["node_id"]], place[other]), max(place[node["node_id"]], place[other]))
        for node in nodes
        for other in node["neighbors"]
        if other in place and other != node["node_id"]
    }
    return TextGraph(
        [" ".join(node["text"].split()) for node in nodes],
        [int(node["label"]) for node in nodes],
        sorted(edges),
        [node["mask"] for node in nodes],
    )


def _tab_rows(table: str) -> list[dict[str, str]]:
    text = open_text("onet", f"{table}.txt.gz")
    return list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


def _by_code(table: str, column: str) -> defaultdict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in _tab_rows(table):
        found[row["O*NET-SOC Code"]].append(row[column])
    return found
