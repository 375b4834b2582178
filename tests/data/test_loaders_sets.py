"""Every set of the tables: as many rows as its line says, a known row, and its known oddities dealt with."""

from __future__ import annotations

import os
import re

import pytest

from embedlab._core.errors import InputError
from embedlab.data import loaders
from embedlab.data.loaders import ENTITY_SETS, LABEL_SETS, PAIR_SETS, TATOEBA_LANGUAGES, TEXT_SETS

pytestmark = pytest.mark.skipif("EMBEDLAB_DATA" not in os.environ, reason="EMBEDLAB_DATA is not set")


def counts_in(about: str) -> set[int]:
    """The numbers of a description, such as 10003 and 3080 of ``10,003/3,080 questions``."""
    return {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?<!,)", about)}


@pytest.mark.parametrize("name", LABEL_SETS)
def test_labelled_sets_hold_what_their_line_says(name: str) -> None:
    known = LABEL_SETS[name]
    for split in known.splits:
        data = loaders.load_labels(name, split)
        assert len(data.texts) == len(data.labels)
        assert len(data.texts) in counts_in(known.about), (split, len(data.texts))
        if split in ("all", "train"):
            classes = len(set(data.labels))
            assert classes in counts_in(known.about) or classes == 2, (split, classes)
        assert sum(not text.strip() for text in data.texts) == (
            2 if (name, split) == ("mahasent-tweets", "train") else 0
        )
        assert "Label" not in data.labels
    assert known.licence
    assert re.fullmatch(r"[a-z]{3}-[A-Z][a-z]{3}", known.language)


@pytest.mark.parametrize(
    ("name", "start", "label"),
    [
        ("agnews", "Fears for T N pension after talks Unions", "Business"),
        ("banking77", "How do I locate my card?", "card_arrival"),
        ("biomedical-titles", "histochemical and autoradiographic studies", "1"),
        ("citeseer-texts", "Decomposition in Data Mining", "1"),
        ("clinc150", "how would you say fly in italian", "translate"),
        ("cora-texts", "Title: The megaprior heuristic", "2"),
        ("mahanews", "विजेवर धावणारी अल्टो, वॅगन आर आली", "Auto"),
        ("mahasent-tweets", "कुलकर्णी हे बघ", "-1"),
        ("medical-abstracts", "Obstructive sleep apnea", "nervous system diseases"),
        ("movie-reviews", "plot : two teen couples", "neg"),
        ("sentence-polarity", "simplistic , silly and tedious .", "neg"),
        ("sst2", "no movement , no yuks , not much of anything", "0"),
        ("stackoverflow-titles", "How do I fill a DataSet or a DataTable from a LINQ", "linq"),
        ("subjectivity", "the movie begins in the past", "objective"),
        ("trec", "How far is it from Denver to Aspen ?", "NUM"),
        ("trec-fine", "How far is it from Denver to Aspen ?", "NUM:dist"),
    ],
)
def test_first_labelled_row(name: str, start: str, label: str) -> None:
    data = loaders.load_labels(name)
    assert data.texts[0].startswith(start)
    assert data.labels[0] == label


@pytest.mark.parametrize("name", PAIR_SETS)
def test_scored_sets_hold_what_their_line_says(name: str) -> None:
    known = PAIR_SETS[name]
    for split in known.splits:
        data = loaders.load_pairs(name, split)
        assert len(data.first) == len(data.second) == len(data.scores)
        assert len(data.first) in counts_in(known.about), (split, len(data.first))
        assert (min(data.scores), max(data.scores)) == (0, 5)
        assert all(text.strip() for text in [*data.first, *data.second])


def test_the_same_pairs_in_every_language() -> None:
    english = loaders.load_stsb()
    for language in ("de", "es", "fr", "hi", "mr", "zh"):
        data = loaders.load_stsb(language=language)
        assert data.scores[:100] == english.scores[:100]
        assert data.first != english.first
    assert loaders.load_stsb(language="de").first[0] == "Ein Mädchen frisiert ihr Haar."
    with pytest.raises(InputError, match=r"unknown language of stsb 'xx'.*known: de, en, es"):
        loaders.load_stsb(language="xx")
    with pytest.raises(InputError, match="unknown split of stsb-de 'train'"):
        loaders.load_stsb("train", language="de")


def test_pairs_without_a_score_are_left_out() -> None:
    data = loaders.load_pairs("sts16")
    assert (data.first[0][:20], data.scores[0]) == ("I remained under the", 3)
    assert "MSRvid" not in " ".join(PAIR_SETS["sts12"].splits.values())


@pytest.mark.parametrize("language", TATOEBA_LANGUAGES)
def test_translations(language: str) -> None:
    data = loaders.load_tatoeba(language)
    assert len(data.first) == len(data.second) == 1000
    assert all(text.strip() for text in [*data.first, *data.second])
    assert data.languages[1] == "eng-Latn"
    if language == "deu":
        assert (data.first[0], data.second[0]) == (
            "Maria sagte, sie wisse nicht, wo Tom sei.",
            "Mary said she didn't know where Tom was.",
        )


@pytest.mark.parametrize("name", TEXT_SETS)
def test_running_text(name: str) -> None:
    texts = loaders.load_texts(name)
    assert len(texts) in {*counts_in(TEXT_SETS[name].about), 1, 2}
    assert all(texts.values())


def test_running_text_is_bare() -> None:
    assert "The Fulton County Grand Jury said Friday an investigation" in loaders.load_texts("brown")["ca01"]
    assert loaders.load_texts("treebank")["wsj_0001"].startswith("Pierre Vinken, 61 years old")
    speeches = loaders.load_texts("inaugural")
    assert next(iter(speeches)) == "1789-Washington"
    assert not any("\x80" <= letter <= "\x9f" for text in speeches.values() for letter in text)


@pytest.mark.parametrize("name", ENTITY_SETS)
def test_entities(name: str) -> None:
    for split in ("train", "dev", "test"):
        sentences = loaders.load_entities(name, split)
        assert len(sentences) in counts_in(ENTITY_SETS[name])
        assert all(tag == "O" or tag[:2] in ("B-", "I-") for sentence in sentences for tag in sentence.tags)


def test_entities_are_runs_of_one_kind() -> None:
    first = loaders.load_entities("ncbi-disease")[0]
    assert first.entities()[0] == ("Disease", "ataxia - telangiectasia")
    assert len({sentence.document for sentence in loaders.load_entities("sciie")}) == 100
    beside = loaders.Tagged(("a", "b", "c", "d"), ("B-X", "B-X", "I-X", "I-Y"), 0)
    assert beside.entities() == [("X", "a"), ("X", "b c"), ("Y", "d")]


def test_records() -> None:
    papers = loaders.load_scirex()
    assert (len(papers), papers[0].aspects["dataset"]) == (306, ("Cityscapes",))
    problems = loaders.load_humaneval()
    assert (len(problems), problems[0].id) == (164, "HumanEval/0")
    compile(problems[0].prompt + problems[0].solution, "problem", "exec")
    occupations = loaders.load_onet()
    assert (len(occupations), occupations[0].title, len(occupations[0].tasks)) == (1016, "Chief Executives", 31)
    first = occupations[0]
    assert first.commodities[:2] == ("Document management software", "Data base user interface and query software")
    assert len(set(first.commodities)) == len(first.commodities) < len(first.skills)
    assert first.nearest == first.related[: len(first.nearest)]
    assert 1 <= len(first.nearest) < len(first.related)
    emoji = loaders.load_emoji_names()
    assert (len(emoji), emoji["!"]["de"][0]) == (4179, "Ausrufezeichen")
    assert len({language for names in emoji.values() for language in names}) == 13


def test_meetings() -> None:
    data = loaders.load_qmsum()
    assert (len(data.corpus), len(data.queries)) == (35, 244)
    assert data.queries["test-0-0"] == "Summarize the discussion about the efficacy of the law."
    assert data.corpus["test-0"].text.startswith("Lynne Neagle AM: Good afternoon, everyone.")


@pytest.mark.parametrize(("name", "nodes", "edges"), [("cora", 1354, 2486), ("citeseer", 1274, 1360)])
def test_text_graphs(name: str, nodes: int, edges: int) -> None:
    graph = loaders.load_text_graph(name)
    assert (len(graph.texts), len(graph.edges)) == (nodes, edges)
    assert all(0 <= first < second < nodes for first, second in graph.edges)
    assert set(graph.split) == {"Train", "Validation", "Test"}


@pytest.mark.parametrize(
    ("load", "what"),
    [
        (loaders.load_labels, "labelled set 'agnew': did you mean 'agnews'"),
        (loaders.load_pairs, "scored set 'agnew'"),
        (loaders.load_tatoeba, "language of tatoeba 'agnew'"),
        (loaders.load_texts, "set of texts 'agnew'"),
        (loaders.load_entities, "tagged set 'agnew'"),
        (loaders.load_text_graph, "text graph 'agnew'"),
        (loaders.load_qmsum, "split 'agnew'"),
    ],
)
def test_unknown_names(load: object, what: str) -> None:
    with pytest.raises(InputError, match=f"unknown {what}"):
        load("agnew")  # type: ignore[operator]
