"""Complexity measures against values worked out by hand, gold trees and a scripted reader."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.data.loaders import LabelData, PairData, RetrievalData, Text, Tree, load_ewt, read_conllu
from embedlab.evaluate.domain_gap import (
    ConlluParses,
    LLMErrorRate,
    ModelErrorRate,
    SpacyParser,
    controls_of,
    corpus_entropy,
    count,
    dataset_similarity,
    dependency_distance,
    entropy,
    measure,
    sentences,
    syllables,
    window_entropy,
)
from embedlab.evaluate.domain_gap.dependency import PARSER_FOLDER
from embedlab.evaluate.domain_gap.questions import questions

needs_data = pytest.mark.skipif("EMBEDLAB_DATA" not in os.environ, reason="EMBEDLAB_DATA is not set")

CONLLU = """# text = She can't leave.
1\tShe\tshe\tPRON\t_\t_\t4\tnsubj\t_\t_
2-3\tcan't\t_\t_\t_\t_\t_\t_\t_\t_
2\tca\tcan\tAUX\t_\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\t_\t_\t4\tadvmod\t_\t_
4\tleave\tleave\tVERB\t_\t_\t0\troot\t_\tSpaceAfter=No
4.1\tnow\t_\tADV\t_\t_\t_\t_\t4:advmod\t_
5\t.\t.\tPUNCT\t_\t_\t4\tpunct\t_\t_
"""


class TestEntropy:
    def test_of_a_text_is_that_of_its_word_frequencies(self) -> None:
        assert entropy(["a", "a", "b", "b"]) == 1.0
        assert entropy(["a"]) == 0.0
        assert entropy(["a", "b", "c", "d"]) == 2.0
        assert entropy(["a", "a", "a", "b"]) == pytest.approx(-0.75 * math.log2(0.75) - 0.25 * math.log2(0.25))
        assert math.isnan(entropy([]))

    def test_windows_take_the_length_out(self) -> None:
        rng = np.random.default_rng(0)
        short, long = ([f"w{n}" for n in rng.integers(0, 30, size)] for size in (40, 400))
        assert entropy(long) > entropy(short) + 0.3
        assert abs(window_entropy(long) - window_entropy(short)) < 0.15
        assert math.isnan(window_entropy(["a"] * 9, window=10))
        with pytest.raises(InputError, match="window=1"):
            window_entropy(["a", "b"], window=1)

    def test_of_a_corpus_pools_the_words(self) -> None:
        assert corpus_entropy([["a", "a"], ["b", "b"]]) == 1.0
        assert corpus_entropy([["a", "a"], ["b", "b"]], num_words=2) == 0.0
        assert math.isnan(corpus_entropy([["a"]], num_words=2))


class TestReadability:
    # ten words, two sentences; com-pa-ny, op-er-a-tion, rev-e-nue: three of three syllables and more
    TEXT = "The company sold the operation. Its revenue fell last year."

    def test_by_hand(self) -> None:
        found = count(self.TEXT)
        assert (found.sentences, found.words, found.complex_words) == (2, 10, 3)
        assert found.syllables == 1 + 3 + 1 + 1 + 4 + 1 + 3 + 1 + 1 + 1
        assert found.fog == pytest.approx(0.4 * (10 / 2 + 100 * 3 / 10))
        assert found.flesch_kincaid == pytest.approx(0.39 * 5 + 11.8 * 17 / 10 - 15.59)

    def test_without_words_there_is_no_grade(self) -> None:
        assert math.isnan(count("12 % = 4.5").fog)
        assert math.isnan(count("").flesch_kincaid)

    @pytest.mark.parametrize(
        ("number", "words"),
        [
            (1, "the make whole jumped played gone debt eye makes sales"),
            (2, "table wanted boxes million being judges people language equal"),
            (3, "company financial period area actual interest decreases quarterly"),
            (4, "operations valuation comfortable material variable"),
            (5, "liabilities associated appreciation"),
        ],
    )
    def test_syllables(self, number: int, words: str) -> None:
        assert {word: syllables(word) for word in words.split()} == dict.fromkeys(words.split(), number)

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("Sales rose 3.5 % to $2.1 bn in the U.S. market. Costs fell.", 2),
            ("See Mr. Hill of Acme Inc. and ask. (He knows.) Do!", 3),
            ("first line\n\nsecond paragraph", 2),
            ("the flow is laminar . the plate is flat .", 2),
            ("no mark at all", 1),
            ("  ", 0),
        ],
    )
    def test_sentences(self, text: str, parts: int) -> None:
        assert len(list(sentences(text))) == parts


class TestDependencyDistance:
    def test_by_hand(self) -> None:
        (tree,) = read_conllu(CONLLU)
        assert tree.words == ("She", "ca", "n't", "leave", ".")
        assert tree.heads == (3, 3, 3, 3, 3)
        assert "".join(w + " " * s for w, s in zip(tree.words, tree.spaces, strict=True)) == "She can't leave. "
        assert dependency_distance([tree]).mean == (3 + 2 + 1) / 3
        assert dependency_distance([tree], punctuation=True).mean == (3 + 2 + 1 + 1) / 4
        assert math.isnan(dependency_distance([Tree(("Yes",), (0,), ("root",), ("INTJ",), (True,))]).mean)

    @needs_data
    def test_of_the_gold_treebank(self) -> None:
        trees = load_ewt("dev")
        assert len(trees) == 2001
        for punctuation, pooled, per_sentence in ((True, 3.155, 2.496), (False, 2.649, 2.211)):
            assert dependency_distance(trees, punctuation=punctuation).mean == pytest.approx(pooled, abs=5e-4)
            each = [dependency_distance([tree], punctuation=punctuation).mean for tree in trees]
            assert np.nanmean(each) == pytest.approx(per_sentence, abs=5e-4)

    @pytest.mark.parametrize(
        ("text", "says"),
        [("1\tone\n", "10 columns"), (CONLLU.replace("\t4\tnsubj", "\t9\tnsubj"), "head '9'")],
    )
    def test_broken_files_are_refused(self, text: str, says: str) -> None:
        with pytest.raises(InputError, match=says):
            list(read_conllu(text))

    def test_parses_made_elsewhere(self) -> None:
        parser = ConlluParses({"She can't leave.": CONLLU})
        frame = measure({"one": ["She can't leave."]}, measures=["mdd"], parser=parser)
        assert frame.loc["one", "mdd"] == 2.0
        assert frame.attrs["parser"] == "given parses"
        with pytest.raises(InputError, match="no parse is given"):
            measure({"one": ["Another text."]}, measures=["mdd"], parser=parser)


class TestShippedParser:
    @needs_data
    def test_finds_most_heads_of_the_test_part(self) -> None:
        from embedlab.evaluate.domain_gap.parser_recipe import attachment

        scores = attachment(SpacyParser()._pipeline, load_ewt("test")[:300])
        assert scores["uas"] > 0.7
        assert scores["mdd"] == pytest.approx(scores["mdd_gold"], abs=0.3)

    def test_its_card_and_licence_are_there_and_nothing_is_pickled(self) -> None:
        card = (PARSER_FOLDER / "README.md").read_text(encoding="utf-8")
        assert "CC BY-SA 4.0" in card
        assert "UAS" in card
        files = [path for path in PARSER_FOLDER.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 3_000_000
        for path in files:
            content = path.read_bytes()
            assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")), path
            assert b"cloudpickle" not in content, path
            assert b"c__builtin__" not in content, path

    def test_longer_sentences_have_longer_arcs(self) -> None:
        plain = ["The dog ran.", "She likes tea.", "It rained today."]
        nested = ["The report that the auditors whom the board had appointed last year wrote was published on Monday."]
        frame = measure({"plain": plain, "nested": nested}, measures=["mdd"])
        assert frame.loc["nested", "mdd"] > frame.loc["plain", "mdd"] + 0.3

    def test_a_pipeline_without_parser_is_refused(self) -> None:
        import spacy

        with pytest.raises(InputError, match="no 'parser'"):
            SpacyParser(spacy.blank("en"))


LABELS = LabelData(["my card is lost"] * 3 + ["the fee is too high"] * 2, ["card"] * 3 + ["fee"] * 2)
PAIRS = PairData(["a", "b", "c"], ["a", "x", "y"], [5.0, 2.5, 0.0], [])
RETRIEVAL = RetrievalData(
    "tiny",
    {f"d{n}": Text("", f"passage number {n}") for n in range(8)},
    {"q1": "which is number 3", "q2": "which is number 5"},
    {"q1": {"d3": 1}, "q2": {"d5": 1}},
)


class TestReaders:
    def test_a_scripted_model_is_wrong_as_often_as_its_script(self) -> None:
        result = LLMErrorRate(lambda prompt: "I think: Card", name="script", num_questions=5).error_rate(LABELS)
        assert result.wrong == (False, False, False, True, True)
        assert result.rate.estimate == 0.4
        assert result.rate.low < 0.4 < result.rate.high
        assert (result.reader, result.ids) == ("script", ("0", "1", "2", "3", "4"))

    def test_any_chat_endpoint_answers(self) -> None:
        import httpx

        from embedlab.models.chat import ChatEndpoint

        def serve(request: httpx.Request) -> httpx.Response:
            asked = json.loads(request.content)["messages"][0]["content"]
            answer = "fee" if "Text: the fee" in asked else "card"
            return httpx.Response(200, json={"choices": [{"message": {"content": answer}}]})

        endpoint = ChatEndpoint("https://example.org/v1#reader", transport=httpx.MockTransport(serve))
        frame = measure({"bank": LABELS}, measures=["llm_error"], reader=LLMErrorRate(endpoint, num_threads=2))
        assert frame.loc["bank", "llm_error"] == 0.0
        assert frame.attrs["questions"]["bank"]["reader"] == "reader"

    def test_ratings_may_be_off_by_a_fifth_of_the_scale(self) -> None:
        answers = iter(["4.2", "about 3.4", "1.5"])
        assert LLMErrorRate(lambda prompt: next(answers)).error_rate(PAIRS).wrong == (False, False, True)

    def test_pairs_of_two_scores_are_same_or_different(self) -> None:
        asked = questions(PairData(["a", "b"], ["a", "x"], [1.0, 0.0], []), num_questions=2)
        assert [question.answer for question in asked] == ["same", "different"]

    def test_passages_are_asked_by_letter(self) -> None:
        def oracle(prompt: str) -> str:
            number = prompt.split("Query: which is number ")[1][0]
            return next(line[0] for line in prompt.splitlines() if line.endswith(f"passage number {number}"))

        assert LLMErrorRate(oracle).error_rate(RETRIEVAL).rate.estimate == 0.0
        assert LLMErrorRate(lambda prompt: "none of them").error_rate(RETRIEVAL).rate.estimate == 1.0

    def test_the_last_option_named_counts_and_words_must_stand_alone(self) -> None:
        (asked, *_) = questions(LabelData(["x", "y"], ["pay", "pay back"]), num_questions=2)
        assert asked.right("Not 'pay back' but pay")
        assert not asked.right("Perhaps pay back")
        assert not asked.right("payment")
        assert not asked.right("")

    def test_the_same_questions_have_the_same_hash(self) -> None:
        first, again = (LLMErrorRate(lambda prompt: "card", seed=3).error_rate(LABELS) for _ in range(2))
        assert first.prompts == again.prompts
        assert first.prompts != LLMErrorRate(lambda prompt: "card", num_questions=2).error_rate(LABELS).prompts

    def test_the_stand_in_goes_by_its_own_name(self) -> None:
        texts = [f"my card {n} is lost" for n in range(20)] + [f"the weather of day {n} was fine" for n in range(20)]
        data = LabelData(texts, ["card"] * 20 + ["weather"] * 20)
        frame = measure({"easy": data}, measures=["llm_error"], reader=ModelErrorRate(num_questions=40))
        assert "llm_error" not in frame.columns
        assert frame.loc["easy", "model_error"] < 0.1
        drawn = np.random.default_rng(0).permutation(data.labels).tolist()
        assert ModelErrorRate(num_questions=40).error_rate(LabelData(texts, drawn)).rate.estimate > 0.3

    def test_the_stand_in_rates_pairs_and_finds_passages(self) -> None:
        sides = [f"a {word} on a table" for word in ("cat", "dog", "cup", "pen", "hat")] * 4
        scores = [5.0, 0.0] * 10
        other = [side if score else "prices of crude oil fell" for side, score in zip(sides, scores, strict=True)]
        reader = ModelErrorRate(num_questions=20)
        assert reader.error_rate(PairData(sides, other, scores, [])).rate.estimate == 0.0
        graded = [score - 0.1 * (place % 3 == 0) * (score > 0) for place, score in enumerate(scores)]
        assert reader.error_rate(PairData(sides, other, graded, [])).rate.estimate < 0.2
        assert reader.error_rate(RETRIEVAL).rate.estimate <= 1.0

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (["plain text"], "right answers"),
            (LabelData(["a"], ["x"]), "nothing to choose"),
            (PairData(["a"], ["b"], [1.0], []), "nothing to tell apart"),
            (RetrievalData("few", {"d": Text("", "t")}, {"q": "t"}, {"q": {"d": 1}}), "no query of few"),
        ],
    )
    def test_data_without_answers_are_refused(self, data: object, says: str) -> None:
        with pytest.raises(InputError, match=says):
            measure({"x": data}, measures=["llm_error"], reader=LLMErrorRate(lambda prompt: ""))

    def test_bad_settings_are_refused(self) -> None:
        with pytest.raises(InputError, match="answer="):
            LLMErrorRate("gpt")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="num_questions=1"):
            LLMErrorRate(lambda prompt: "", num_questions=1)
        with pytest.raises(InputError, match="num_questions=3"):
            ModelErrorRate(num_questions=3)


class TestMeasure:
    SETS = {  # noqa: RUF012 - never changed
        "captions": ["A man is playing a guitar on the stage.", "Two dogs are running on the wet beach."],
        "reports": [
            "The decrease in operating expenses was primarily attributable to lower compensation of consultants,"
            " partially offset by additional depreciation of recently acquired manufacturing facilities."
        ],
    }

    def test_reports_are_more_complex_than_captions(self) -> None:
        frame = measure(self.SETS)
        assert list(frame.index) == ["captions", "reports"]
        assert list(controls_of(frame).columns) == ["entropy", "fog", "mdd"]
        easy, hard = frame.loc["captions"], frame.loc["reports"]
        for column in ("entropy", "fog", "flesch_kincaid", "mdd", "sentence_length", "syllables_per_token"):
            assert hard[column] > easy[column], column

    def test_tasks_of_mteb_are_measured_like_their_texts(self) -> None:
        from embedlab.evaluate.tasks import from_corpus, from_labelled_pairs, from_labels, from_scored_pairs

        texts = self.SETS["captions"]
        pairs = from_scored_pairs([*texts, "x"], [*texts, "x"], [1.0, 0.5, 0.0], name="gap-pairs")
        both = from_labelled_pairs(texts, texts[::-1], [0, 1], name="gap-labelled-pairs")
        labels = from_labels(texts, ["a", "b"], name="gap-labels", train=(["p", "q"], ["a", "b"]))
        groups = from_labels(texts, ["a", "b"], name="gap-groups", kind="clustering")
        search = from_corpus({"d1": texts[0], "d2": "x"}, {"q": texts[1]}, {"q": {"d1": 1}}, name="gap-search")
        frame = measure([pairs, both, labels, groups, search], measures=["entropy"], num_texts=2)
        wanted = measure({"plain": texts}, measures=["entropy"]).loc["plain", "entropy"]
        for name in ("gap-labelled-pairs", "gap-labels", "gap-groups"):
            assert frame.loc[name, "entropy"] == pytest.approx(wanted), name
        reader = LLMErrorRate(lambda prompt: "same")
        asked = measure([pairs, both, labels], measures=["llm_error"], reader=reader)
        assert asked["llm_error"].tolist()[1:] == [0.5, 1.0]
        assert set(asked.attrs["questions"]) == {"gap-pairs", "gap-labelled-pairs", "gap-labels"}

    def test_short_texts_have_no_grade_and_no_window(self) -> None:
        row = measure({"words": ["yes", "no"]}, measures=["entropy", "readability"]).loc["words"]
        assert math.isnan(row["fog"])
        assert math.isnan(row["entropy_window"])

    @pytest.mark.parametrize(
        ("sets", "changed", "says"),
        [
            ({}, {}, "empty"),
            ({"x": []}, {}, "x holds no text"),
            ({"x": "one string"}, {}, "a str"),
            ({"x": ["利率上升导致债券价格下跌"]}, {}, "x: only 0%"),
            ({"x": ["a"]}, {"measures": ["fog"]}, "unknown measure"),
            ({"x": ["a"]}, {"measures": ["llm_error"]}, "needs a reader"),
            ({"x": ["a"]}, {"num_texts": 0}, "num_texts"),
            ([["a"]], {}, "without a name"),
        ],
    )
    def test_bad_input_is_refused(self, sets: object, changed: dict[str, object], says: str) -> None:
        with pytest.raises(InputError, match=says):
            measure(sets, **({"measures": ["entropy"]} | changed))  # type: ignore[arg-type]


def test_similarity_of_data_sets() -> None:
    sets = {"cards": ["my card is lost", "a new card"], "card": ["my card is lost"], "sea": ["the ocean was calm"]}
    found = dataset_similarity(sets)
    assert found.table.loc["cards", "card"] > found.table.loc["cards", "sea"]
    assert np.diag(found.table) == pytest.approx([1, 1, 1])
    assert "3 data sets" in found.verdict
    with pytest.raises(InputError, match="two at least"):
        dataset_similarity({"cards": ["my card"]})
    with pytest.raises(InputError, match="knows no word of empty"):
        dataset_similarity({"cards": ["my card"], "empty": ["\u2603"]})
