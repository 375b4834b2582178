"""Synthesis: what writers may give, what filters refuse, and what a crash leaves behind."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from embedlab._core.errors import EndpointError, InputError
from embedlab.models import endpoint, load_model
from embedlab.models.chat import ChatEndpoint
from embedlab.text.synthesis import (
    CASTS,
    Draft,
    Persona,
    PersonaSynthesizer,
    QualityFilter,
    RuleWriter,
    Seed,
    SyntheticRow,
    TaskKind,
    Triplet,
    balance,
    mine_negatives,
    query_prompt,
    read_rows,
    read_triplets,
    split_sentences,
    write_triplets,
)

PERSONAS = CASTS["finance"].personas[:3]
TASKS = CASTS["finance"].tasks[:2]
SEEDS = [
    Seed(f"p{i}", f"Deferred revenue of segment {name} fell. Customers renewed {name} contracts late. Cash was stable.")
    for i, name in enumerate(["Alpine", "Harbour", "Meadow", "Cedar", "Quarry", "Lagoon", "Summit", "Prairie"])
]


def fake_llm(prompt: str) -> str:
    """Answer as a model would: the asked-for key, and a text that depends on the prompt."""
    key = "passage" if '{"passage"' in prompt else "query"
    return f'Sure! {{"{key}": "a {key} about {hash_of(prompt):x} and its long explanation"}} Anything else?'


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def test_rules_are_deterministic_and_draw_by_seed(tmp_path: Path) -> None:
    first, again, other = (
        PersonaSynthesizer(per_seed=3, seed=seed).run(SEEDS, tmp_path / f"{i}.jsonl").rows
        for i, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert [row.query for row in first] != [row.query for row in other]
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()


def test_every_row_says_where_it_came_from(tmp_path: Path) -> None:
    rows = PersonaSynthesizer(PERSONAS, TASKS, llm=fake_llm, per_seed=2).run(SEEDS, tmp_path / "r.jsonl").rows
    assert {row.persona for row in rows} == {persona.name for persona in PERSONAS}
    assert {row.task for row in rows} == {task.name for task in TASKS}
    assert {row.writer for row in rows} == {"fake_llm"}
    by_id = {seed.id: seed for seed in SEEDS}
    for row in rows:
        persona = next(each for each in PERSONAS if each.name == row.persona)
        task = next(each for each in TASKS if each.name == row.task)
        prompt = query_prompt(by_id[row.seed], persona, task, draw=row.draw)
        assert row.prompt_hash == Draft("", "", (prompt,)).prompt_hash
        assert persona.description in prompt
        assert task.description in prompt
        assert by_id[row.seed].text in prompt


def test_no_pair_of_persona_and_task_comes_up_twice_oftener_than_another(tmp_path: Path) -> None:
    report = PersonaSynthesizer(PERSONAS, TASKS, per_seed=4).run(SEEDS, tmp_path / "r.jsonl")
    jobs = PersonaSynthesizer(PERSONAS, TASKS, per_seed=4).jobs(SEEDS)
    counts: dict[tuple[str, str], int] = {}
    for job in jobs:
        counts[job.persona.name, job.task.name] = counts.get((job.persona.name, job.task.name), 0) + 1
    assert len(counts) == 6
    assert max(counts.values()) - min(counts.values()) <= 1
    spread = balance(report.rows)
    assert spread.rows == sum(spread.personas.values()) == sum(spread.tasks.values())
    assert 0.9 < spread.persona_evenness <= 1


def test_balance_of_one_sided_rows() -> None:
    row = SyntheticRow("j", "s", 0, "analyst", "tax", "rules", "h", "query", "positive")
    other = SyntheticRow("k", "s", 1, "trader", "tax", "rules", "h", "query", "positive")
    spread = balance([row, row, row, other])
    assert spread.personas == {"analyst": 3, "trader": 1}
    assert spread.persona_evenness == pytest.approx(0.811278, abs=1e-6)  # entropy of 3/4 and 1/4, in bits
    assert spread.task_evenness == 1.0


class Crash(Exception):
    pass


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_goes_on_where_it_stopped(tmp_path: Path, workers: int) -> None:
    asked: list[str] = []
    lock = threading.Lock()

    def failing(limit: int) -> Callable[[str], str]:
        def llm(prompt: str) -> str:
            with lock:
                asked.append(prompt)
                if len(asked) > limit:
                    raise Crash
            return fake_llm(prompt)

        llm.__name__ = "model"
        return llm

    def synthesizer(llm: Callable[[str], str]) -> PersonaSynthesizer:
        return PersonaSynthesizer(PERSONAS, TASKS, llm=llm, per_seed=5, workers=workers)

    whole = synthesizer(failing(1000)).run(SEEDS, tmp_path / "whole.jsonl")
    asked.clear()
    with pytest.raises(Crash):
        synthesizer(failing(25)).run(SEEDS, tmp_path / "r.jsonl")
    kept = len(read_rows(tmp_path / "r.jsonl", refused=True))
    assert 0 < kept <= 25
    with (tmp_path / "r.jsonl").open("ab") as file:
        file.write(b'{"job": "half a li')  # the machine went down while writing
    asked.clear()
    rest = synthesizer(failing(1000)).run(SEEDS, tmp_path / "r.jsonl")
    assert rest.resumed == kept
    assert len(asked) == 40 - kept
    assert rest.rows == whole.rows
    assert (tmp_path / "r.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    asked.clear()
    assert synthesizer(failing(1000)).run(SEEDS, tmp_path / "r.jsonl").rows == whole.rows
    assert not asked


def test_a_file_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    PersonaSynthesizer().run(SEEDS, path)
    with pytest.raises(InputError, match=r"other settings .*seed"):
        PersonaSynthesizer(seed=1).run(SEEDS, path)
    with pytest.raises(InputError, match=r"other settings .*jobs"):
        PersonaSynthesizer().run(SEEDS[:3], path)
    with pytest.raises(InputError, match=r"other settings .*filters"):
        PersonaSynthesizer(filters=QualityFilter(["something to be measured on"])).run(SEEDS, path)
    other = tmp_path / "other.jsonl"
    PersonaSynthesizer(filters=QualityFilter(["one text"])).run(SEEDS, other)
    with pytest.raises(InputError, match=r"other settings .*filters"):
        PersonaSynthesizer(filters=QualityFilter(["another"])).run(SEEDS, other)
    path.write_text("notes of mine")
    with pytest.raises(InputError, match="not a journal"):
        PersonaSynthesizer().run(SEEDS, path)
    assert path.read_text() == "notes of mine"


def test_broken_lines_are_told_with_their_number(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    PersonaSynthesizer().run(SEEDS, path)
    lines = path.read_text().splitlines()
    row = json.loads(lines[2])
    for change in ({"query": 3}, {"draw": "first"}, {"query": "  "}, {"colour": "red"}):
        path.write_text("\n".join([*lines[:2], json.dumps(row | change), *lines[3:]]) + "\n")
        with pytest.raises(InputError, match="line 3"):
            read_rows(path)
    path.write_text("\n".join([*lines[:2], "{", *lines[3:]]) + "\n")
    with pytest.raises(InputError, match="line 3: not JSON"):
        read_rows(path)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("I cannot help with that.", "malformed"), ('{"query": 7}', "malformed"), ('{"query": ""}', "malformed")],
)
def test_answers_that_cannot_be_read_are_refused_and_kept(tmp_path: Path, answer: str, reason: str) -> None:
    asked = []

    def llm(prompt: str) -> str:
        asked.append(prompt)
        return answer

    report = PersonaSynthesizer(llm=llm).run(SEEDS[:2], tmp_path / "r.jsonl")
    assert report.rows == []
    assert report.refused == {reason: 2}
    assert len(asked) == 6  # three attempts each
    assert {row.raw for row in read_rows(tmp_path / "r.jsonl", refused=True)} == {answer}


def test_echoes_of_the_seed_are_refused(tmp_path: Path) -> None:
    def llm(prompt: str) -> str:
        return json.dumps({"query": prompt.split("Question:\n")[1].upper()})

    question = Seed("q", "How much was paid for the merger?", kind="question")
    assert PersonaSynthesizer(llm=llm).run([question], tmp_path / "r.jsonl").refused == {"echo": 1}


def test_questions_get_a_passage_of_their_own(tmp_path: Path) -> None:
    seeds = [Seed("q", "How much was paid for the merger?", kind="question")]
    (row,) = PersonaSynthesizer(llm=fake_llm).run(seeds, tmp_path / "r.jsonl").rows
    assert row.query.startswith("a query about")
    assert row.positive.startswith("a passage about")
    with pytest.raises(InputError, match="language model"):
        PersonaSynthesizer().run(seeds, tmp_path / "rules.jsonl")


def test_the_judge_refuses(tmp_path: Path) -> None:
    def judge(prompt: str) -> str:
        return "Yes, it does." if "Alpine" in prompt else "No."

    report = PersonaSynthesizer(llm=fake_llm, judge=judge).run(SEEDS, tmp_path / "r.jsonl")
    assert [row.seed for row in report.rows] == ["p0"]
    assert report.refused == {"judge": 7}


def test_texts_of_the_evaluation_are_refused_in_both_ways() -> None:
    held = "How much did revenue from cloud services grow in the third quarter of fiscal 2019?"
    passage = "Trade payables were 4 million at the end of May, half of them in euros."
    quality = QualityFilter([held, passage], encoder=load_model(), ngram=6, max_cosine=0.9)
    other = "The lease of the warehouse ends next year and will not be extended by the company."
    copied = "Tell me: did revenue from cloud services grow in the third quarter?"
    reworded = "Third fiscal quarter 2019: how much did cloud services revenue grow in it?"
    drafts = [
        Draft(copied, other, ()),
        Draft("Who owns the warehouse?", other + " " + passage, ()),
        Draft(reworded, other, ()),
        Draft("When does the lease end?", other, ()),
        Draft("when does the lease END", other, ()),
    ]
    assert quality.reasons(drafts) == ["overlap", "overlap", "similar", "", "duplicate"]
    short = QualityFilter(["Total debt?"])
    assert short.reasons([Draft("total DEBT", other, ()), Draft("total debt of Acme", other, ())]) == ["overlap", ""]


def test_filters_know_the_rows_of_an_earlier_run(tmp_path: Path) -> None:
    def llm(prompt: str) -> str:
        return '{"query": "always the same question"}'

    path = tmp_path / "r.jsonl"
    report = PersonaSynthesizer(llm=llm, filters=QualityFilter()).run(SEEDS, path)
    assert len(report.rows) == 1
    assert report.refused == {"duplicate": 7}
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))
    again = PersonaSynthesizer(llm=llm, filters=QualityFilter()).run(SEEDS, path)
    assert again.rows == report.rows


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: QualityFilter(ngram=2), "ngram=2"),
        (lambda: QualityFilter(max_cosine=0.0), "max_cosine"),
        (lambda: QualityFilter(query_chars=(9, 3)), "query_chars"),
        (lambda: PersonaSynthesizer([]), "personas"),
        (lambda: PersonaSynthesizer(PERSONAS * 2), "personas"),
        (lambda: PersonaSynthesizer(per_seed=0), "per_seed=0"),
        (lambda: PersonaSynthesizer(llm=3), "llm"),  # type: ignore[arg-type]
        (lambda: PersonaSynthesizer().jobs([SEEDS[0], SEEDS[0]]), "p0"),
        (lambda: PersonaSynthesizer().jobs([Seed("x", " \n")]), "'x'"),
        (lambda: ChatEndpoint("http://host/v1"), "model-name"),
        (lambda: ChatEndpoint("http://host/v1#m", temperature=-1), "temperature"),
        (lambda: ChatEndpoint("http://host/v1#m", max_tokens=0), "max_tokens"),
        (lambda: mine_negatives([("a", "b")], ["b"], load_model()), "num_negatives=1"),
        (lambda: mine_negatives([], [], load_model(), num_negatives=0), "num_negatives=0"),
    ],
)
def test_bad_values_are_named(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def test_rules_take_the_sentence_that_becomes_the_query_out_of_the_passage(tmp_path: Path) -> None:
    rows = PersonaSynthesizer(per_seed=10).run(SEEDS, tmp_path / "r.jsonl").rows
    texts = {seed.id: seed.text for seed in SEEDS}
    cloze = [row for row in rows if row.query in texts[row.seed]]
    assert cloze
    for row in cloze:
        assert row.query not in row.positive
        assert f"{row.query} {row.positive}" == texts[row.seed]
    assert any(row.positive == texts[row.seed] for row in rows)


def test_phrases_are_what_is_rare_in_the_corpus() -> None:
    writer = RuleWriter().fit(["The company sold goods.", "The company sold the Alpine glacier lodge.", "The company."])
    assert writer.phrases("The company sold the Alpine glacier lodge.")[0] == "Alpine glacier lodge"
    assert writer.phrases("It was so, and they had it.") == []
    assert split_sentences("No. 5 was sold. Mr. Bell left! Why? (See note 3.)") == [
        "No. 5 was sold.",
        "Mr. Bell left!",
        "Why?",
        "(See note 3.)",
    ]


def test_a_passage_without_a_phrase_is_refused(tmp_path: Path) -> None:
    report = PersonaSynthesizer().run([Seed("x", "12 34 56, and so it was.")], tmp_path / "r.jsonl")
    assert report.refused == {"no phrase": 1}


class Table:
    """An encoder that looks vectors up."""

    name = "table"
    dim = 2
    fingerprint = "table:00000000"

    def __init__(self, rows: dict[str, float]) -> None:
        self.angles = rows

    def encode_document(self, texts: list[str], **_: object) -> np.ndarray:
        angles = np.array([self.angles[text] for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    encode_query = encode_document


def test_negatives_are_the_nearest_that_are_no_answer() -> None:
    encoder = Table({"q": 0.0, "answer": 0.4, "too near": 0.1, "near": 0.6, "far": 1.5, "also": 0.5})
    passages = ["far", "near", "too near", "answer", "also"]
    (plain,) = mine_negatives([("q", "answer")], passages, encoder, num_negatives=2, max_ratio=None)
    assert plain.negatives == ("too near", "also")
    (careful,) = mine_negatives([("q", "answer")], passages, encoder, num_negatives=4, max_ratio=0.97)
    assert careful.negatives == ("also", "near", "far", "too near")  # what is suspected comes last
    (told,) = mine_negatives([("q", "answer")], passages, encoder, known={"q": ["also"]})
    assert told.negatives == ("near",)


def test_triplets_survive_the_disk(tmp_path: Path) -> None:
    triplets = [Triplet("q\n1", "ä", ("n", "m")), Triplet("q2", "p2", ("x", "y"))]
    write_triplets(triplets, tmp_path / "t.jsonl")
    assert read_triplets(tmp_path / "t.jsonl") == triplets
    (tmp_path / "t.jsonl").write_text('{"query": "a", "positive": "b"}\n{"query": "a"}\n')
    with pytest.raises(InputError, match="line 2"):
        read_triplets(tmp_path / "t.jsonl")
    with pytest.raises(InputError, match="not there"):
        read_triplets(tmp_path / "gone.jsonl")


def chat(answer: Callable[[int, dict[str, object]], httpx.Response]) -> tuple[ChatEndpoint, list[dict[str, object]]]:
    bodies: list[dict[str, object]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://server/v1/chat/completions"
        bodies.append(json.loads(request.content))
        return answer(len(bodies), bodies[-1])

    transport = httpx.MockTransport(handle)
    return ChatEndpoint("http://server/v1#model-a", api_key="k", transport=transport, total_timeout_s=0.3), bodies


def said(text: str | None) -> httpx.Response:
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return httpx.Response(200, json={"choices": [{"message": {"content": text}}], "usage": usage})


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE_S", 0.01)


@pytest.mark.usefixtures("_no_waiting")
def test_an_endpoint_that_stumbles_is_asked_again(tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, object]) -> httpx.Response:
        if number == 1:
            return httpx.Response(429, headers={"retry-after": "0.01"})
        if number == 2:
            raise httpx.ConnectError("reset")
        if number == 3:
            return said("no JSON here")
        return said('{"query": "what became of the Alpine contracts?"}')

    llm, bodies = chat(answer)
    (row,) = PersonaSynthesizer(llm=llm).run(SEEDS[:1], tmp_path / "r.jsonl").rows
    assert row.query == "what became of the Alpine contracts?"
    assert row.writer == "model-a"
    assert len(bodies) == 4
    assert bodies[0]["model"] == "model-a"
    assert (llm.prompt_tokens, llm.completion_tokens) == (14, 6)


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize(
    ("response", "says"),
    [
        (httpx.Response(401, text="who are you"), "refused the key"),
        (httpx.Response(500, text="oops"), "HTTP 500.*times within"),
        (httpx.Response(200, text="<html>"), "no chat completion"),
        (httpx.Response(200, json={"choices": []}), "no chat completion"),
        (httpx.Response(200, json={"choices": [{"message": {"content": [1]}}]}), "list, not text"),
    ],
)
def test_an_endpoint_that_fails_is_an_error_and_nothing_is_lost(
    tmp_path: Path, response: httpx.Response, says: str
) -> None:
    done = 0

    def answer(number: int, body: dict[str, object]) -> httpx.Response:
        nonlocal done
        done += 1
        return said(json.dumps({"query": f"question number {number} about it"})) if number <= 16 else response

    llm, _ = chat(answer)
    seeds = [Seed(f"{i}", f"Passage number {i} of the annual report.") for i in range(20)]
    with pytest.raises(EndpointError, match=says):
        PersonaSynthesizer(llm=llm).run(seeds, tmp_path / "r.jsonl")
    assert len(read_rows(tmp_path / "r.jsonl")) == 16


def test_an_empty_answer_is_no_error() -> None:
    llm, _ = chat(lambda *_: said(None))
    assert llm("say nothing") == ""


def test_casts_are_complete() -> None:
    for cast in CASTS.values():
        assert all(
            isinstance(each, Persona) and each.register in ("plain", "keywords", "detailed") for each in cast.personas
        )
        assert all(isinstance(task, TaskKind) and all("{topic}" in q for q in task.questions) for task in cast.tasks)
    assert len(CASTS["finance"].personas) >= 15
