"""The static model: the same vectors as its tokenizer, whatever the text; saved exactly; bounded memory."""

from __future__ import annotations

import functools
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedlab._core.errors import InputError
from embedlab.models import Encoder, StaticModel, load_model, words
from embedlab.models.static import quantise_rows

MODEL = load_model()
assert isinstance(MODEL, StaticModel)
ROWS = MODEL.rows


@functools.cache
def tokenizer_of(tokenizer_json: str) -> Tokenizer:
    return Tokenizer.from_str(tokenizer_json)


def by_tokenizer(texts: list[str], model: StaticModel = MODEL, rows: np.ndarray = ROWS) -> np.ndarray:
    """The slow way: the tokenizers library cuts each whole text, rows are added one by one."""
    tokenizer = tokenizer_of(model.tokenizer_json)
    unknown = tokenizer.token_to_id("[UNK]")
    out = np.zeros((len(texts), model.dim))
    for place, text in enumerate(texts):
        clean = "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
        for token in tokenizer.encode(clean, add_special_tokens=False).ids:
            if token != unknown:
                out[place] += rows[token].astype(np.float64)
        length = np.linalg.norm(out[place])
        out[place] /= length if length > 1e-6 else 1
    return out


ANY_TEXT = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.text(alphabet=st.characters(max_codepoint=127), max_size=40),
        st.sampled_from(
            [
                "café",
                "cafe\u0301",
                "ÅNGSTRÖM",
                "straße",
                "İstanbul",
                "don't",
                "e-mail",
                "C++",
                "x" * 101,
                "ab" * 60,
                "c++ and c#",
                "a+b",
                "##x",
                "日本語",
                "漢字kanji",
                "\u2028",
                "\u00a0",
                "\x00",
                "a\x00b",
                "\x0b",
                "\x0c",
                "\x1c",
                "\x7f",
                "\u200b",
                "\ufffd",
                "\ud800",
                "ﬁne",
                "①",
                "naïve—quite",
                "“quoted”",
                "[CLS]",
                "[UNK]",
                "##ing",
                "ΣΊΣΥΦΟΣ",
                "🙂",
            ]
        ),
    ),
    max_size=12,
).map(" ".join) | st.text(max_size=60)


@settings(max_examples=400, deadline=None)
@given(st.lists(ANY_TEXT, max_size=5))
@example(["a\x00b c\x1cd", "x\x0by", "\x0c"])
@example(["word", "word " * 50, "", " ", "\ud800", "Ünïcödé wörds"])
def test_same_vectors_as_the_tokenizer(texts: list[str]) -> None:
    got = MODEL.encode(texts)
    assert got.dtype == np.float32
    assert got.shape == (len(texts), MODEL.dim)
    np.testing.assert_allclose(got, by_tokenizer(texts), atol=2e-5)


def test_rows_have_length_one_or_zero() -> None:
    lengths = np.linalg.norm(MODEL.encode(["a dog", "", "   ", "日本語日本", "\x00\x01", "!?"]), axis=1)
    assert all(np.isclose(length, 1, atol=1e-6) or length == 0 for length in lengths)
    assert lengths[0] > 0.99
    assert lengths[1] == lengths[2] == lengths[4] == 0


def test_one_row_equals_a_row_of_many() -> None:
    texts = ["alpha beta", "A longer text, with punctuation; and numbers 123.", "café"] * 40
    together = MODEL.encode(texts, batch_size=7)
    for place in (0, 1, 2, 100):
        assert np.array_equal(MODEL.encode([texts[place]])[0], together[place])


def test_progress_counts_every_text() -> None:
    seen: list[int] = []
    MODEL.encode_document(["x"] * 10, batch_size=4, on_progress=seen.append)
    assert seen == [4, 4, 2]


def test_it_is_an_encoder_and_knows_its_neighbours() -> None:
    assert isinstance(MODEL, Encoder)
    query = MODEL.encode_query(["how to train a puppy"])
    near, far = MODEL.encode_document(["teaching young dogs", "income tax law"]) @ query[0]
    assert near > far


@pytest.mark.parametrize("wrong", ["one text", b"bytes", [1], ["a", None], [b"bytes"]])
def test_only_texts_are_encoded(wrong: object) -> None:
    with pytest.raises(InputError, match="texts"):
        MODEL.encode(wrong)  # type: ignore[arg-type]


def test_a_batch_size_must_be_positive() -> None:
    with pytest.raises(InputError, match="batch_size=0"):
        MODEL.encode(["a"], batch_size=0)


def test_a_huge_line_is_read_in_bounded_pieces() -> None:
    import tracemalloc

    text = "lorem ipsum dolor sit amet " * 400_000  # ten million characters
    tracemalloc.start()
    try:
        got = MODEL.encode([text])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80e6
    np.testing.assert_allclose(got, MODEL.encode(["lorem ipsum dolor sit amet"]), atol=1e-4)
    assert np.isfinite(MODEL.encode(["x" * 3_000_000, "日" * 300_000])).all()


def test_long_texts_give_the_same_as_the_tokenizer() -> None:
    rng = np.random.default_rng(0)
    vocabulary = ["neurotransmission", "cat", "été", "naïveté", "123456", "x-ray", "(see", "U.S.A."]
    text = " ".join(rng.choice(vocabulary, size=30_000))
    assert len(text) > 3 * words.BLOCK_CHARS
    np.testing.assert_allclose(MODEL.encode([text]), by_tokenizer([text]), atol=1e-4)


def test_more_new_words_than_the_cache_takes() -> None:
    texts = [
        " ".join(f"zq{number:x}x{number}" for number in range(start, start + 1500)) for start in range(0, 90_000, 1500)
    ]
    model = load_model()
    assert isinstance(model, StaticModel)
    got = model.encode(texts)
    np.testing.assert_allclose(got[[0, 30, -1]], by_tokenizer([texts[0], texts[30], texts[-1]]), atol=1e-4)


def test_threads_do_not_disturb_one_another() -> None:
    model = load_model()
    texts = [[f"thread {t} word{t}x{n} qz{n}v{t}" for n in range(3000)] for t in range(4)]
    expected = [MODEL.encode(batch) for batch in texts]
    got: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda t=t: got.__setitem__(t, model.encode_document(texts[t], batch_size=50)))
        for t in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for t in range(4):
        np.testing.assert_allclose(got[t], expected[t], atol=1e-6)


def tiny_spec(**changes: object) -> dict[str, object]:
    vocabulary = {"[UNK]": 0, "a": 1, "##b": 2, "c": 3, ".": 4}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    spec: dict[str, object] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {**model, "max_input_chars_per_word": 100, "vocab": vocabulary},
    }
    return spec | changes


def tiny(table: np.ndarray | None = None, **changes: object) -> StaticModel:
    rows = np.array([[9, 9], [1, 0], [0, 1], [1, 1], [0, 2]], dtype=np.float32) if table is None else table
    return StaticModel(rows, json.dumps(tiny_spec(**changes)))


def test_known_values() -> None:
    got = tiny().encode(["a", "ab", "abb c.", "zzz", "a zzz", "AB"])
    expected = np.array([[1, 0], [1, 1], [2, 5], [0, 0], [1, 0], [1, 1]], dtype=float)
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_tokenizer_of_another_kind_is_asked_for_every_text() -> None:
    cased = tiny(
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": False,
            "lowercase": False,
        }
    )
    np.testing.assert_allclose(cased.encode(["ab", "AB", ""]), [[0.5**0.5, 0.5**0.5], [0, 0], [0, 0]], atol=1e-6)


def test_save_and_load_are_exact(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    for model in (
        *(
            StaticModel(table, json.dumps(tiny_spec()), scales=scales)
            for table, scales in (quantise_rows(rows), quantise_rows(rows, bits=4))
        ),
        tiny(rows),
        tiny(rows.astype(np.float16)),
    ):
        model.save(tmp_path / "model")
        again = load_model(str(tmp_path / "model"))
        assert again.fingerprint == model.fingerprint
        assert np.array_equal(again.encode_query(["ab c."]), model.encode(["ab c."]))


@pytest.mark.parametrize(("bits", "error"), [(8, 0.01), (4, 0.13)])
def test_rounding_is_near_and_takes_the_bytes_it_says(bits: int, error: float) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    rows[3] = 0
    table, scales = quantise_rows(rows, bits=bits)
    assert table.nbytes == rows.size * bits // 8
    again = StaticModel(table, json.dumps(tiny_spec()), scales=scales).rows
    assert np.linalg.norm(again - rows) < error * np.linalg.norm(rows)
    assert not again[3].any()


@pytest.mark.parametrize(("bits", "columns"), [(5, 4), (4, 3)])
def test_only_whole_bytes_are_packed(bits: int, columns: int) -> None:
    with pytest.raises(InputError, match=f"bits={bits}"):
        quantise_rows(np.ones((2, columns), np.float32), bits=bits)


def test_the_fingerprint_follows_weights_and_tokenizer() -> None:
    rows = np.eye(5, dtype=np.float32)
    other = rows.copy()
    other[1, 1] = 2
    prints = {tiny(rows).fingerprint, tiny(other).fingerprint, tiny(rows, pre_tokenizer=None).fingerprint}
    assert len(prints) == 3
    assert tiny(rows).fingerprint == tiny(rows.copy()).fingerprint
    assert all(value.startswith("static:") and len(value) == len("static:") + 16 for value in prints)


@pytest.mark.parametrize(
    ("table", "scales", "message"),
    [
        (np.zeros(5, np.float32), None, "shape"),
        (np.zeros((5, 2), np.int32), None, "int32"),
        (np.zeros((5, 2), np.int8), None, "scales is None"),
        (np.full((5, 2), np.nan, np.float32), None, "NaN"),
        (np.zeros((5, 2), np.int8), np.full(5, np.inf, np.float32), "NaN"),
        (np.zeros((5, 2), np.int8), np.zeros(4, np.float32), "shape"),
        (np.zeros((4, 2), np.float32), None, "do not belong together"),
    ],
)
def test_wrong_tables_are_refused(table: np.ndarray, scales: np.ndarray | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StaticModel(table, json.dumps(tiny_spec()), scales=scales)


@pytest.mark.parametrize("tokenizer", ["", "[]", "{}", '{"model": {"type": "Nothing", "vocab": {}}}'])
def test_wrong_tokenizers_are_refused(tokenizer: str) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        StaticModel(np.zeros((5, 2), np.float32), tokenizer).encode(["é"])


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save

    home = tmp_path / "model"
    tiny().save(home)
    good = {path.name: path.read_bytes() for path in home.iterdir()}
    assert sorted(good) == ["config.json", "model.safetensors", "tokenizer.json"]
    foreign = save({"table": np.zeros((5, 2), np.float32), "other": np.zeros(1, np.float32)})
    for name, content, message in [
        ("model.safetensors", good["model.safetensors"][:40], "cannot be read"),
        ("model.safetensors", foreign, "other"),
        ("config.json", b'{"format": "embedlab-static", "version": 99}', "version 99"),
        ("config.json", b"{", "not JSON"),
        ("tokenizer.json", b"\xff\xfe", "tokenizer"),
        ("tokenizer.json", None, r"no tokenizer\.json"),
    ]:
        for other, bytes_ in good.items():
            (home / other).write_bytes(bytes_)
        if content is None:
            (home / name).unlink()
        else:
            (home / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            StaticModel.load(home)


def test_no_such_model() -> None:
    for name in ("", " ", "./nowhere/at all", "no such model!"):
        with pytest.raises(InputError, match="name="):
            load_model(name)
