"""Every plain codec keeps the contract; what it finds and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import InputError, MissingExtraError
from embedlab.search.codecs import Codec, codec_names, load_codec, make_codec
from embedlab.testing.codec import CONTRACT, CodecExample
from embedlab.testing.contract import Make, Refusal

Floats = NDArray[np.float32]
DIM = 32

# name and settings, largest mean error of decoding, whether scores are plain products, error of the scan, bad settings
PLAIN: list[tuple[str, dict[str, Any], float, bool, float, dict[str, Any]]] = [
    ("float32", {}, 0.0, True, 1e-5, {"seed": 0, "dim": 0}),
    ("float16", {}, 5e-4, True, 1e-5, {"dim": -1}),
    ("int8", {}, 0.02, True, 1e-5, {"dim": 1.5}),
    ("binary", {}, 0.7, False, 1e-5, {"dim": 0}),
    ("binary", {"symmetric": False}, 0.7, True, 1e-5, {"dim": 0}),
    ("rotation", {"bits": 1}, 0.7, True, 1e-4, {"bits": 5}),
    ("rotation", {"bits": 3, "symmetric": True}, 0.25, False, 1e-5, {"code_dim": 0}),
    ("rotation", {"bits": 4, "code_dim": 40}, 0.15, True, 1e-4, {"bits": 0}),
]
FAISS: list[tuple[str, dict[str, Any], float, bool, float, dict[str, Any]]] = [
    ("pq", {"bits": 1.0}, 0.5, True, 1e-4, {"bits": 0.3}),
    ("pq", {"bits": 1.0, "codeword_bits": 4}, 0.8, True, 0.02, {"codeword_bits": 5}),
    ("opq", {"bits": 1.0, "rounds": 2}, 0.5, True, 1e-4, {"rounds": 0}),
    ("rabitq", {"bits": 1}, 0.9, False, 1e-4, {"bits": 5}),
    ("rabitq", {"bits": 4, "query_bits": 0}, 0.2, False, 1e-4, {"query_bits": 9}),
]
EACH = [pytest.param(*row, id=f"{row[0]}-{'-'.join(map(str, row[1].values()))}") for row in PLAIN + FAISS]
each = pytest.mark.parametrize(("name", "settings", "error", "is_dot", "scan_atol", "bad"), EACH)


def unit(count: int, seed: int) -> Floats:
    rows = np.random.default_rng(seed).normal(size=(count, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@each
def test_the_contract_is_kept(
    name: str, settings: dict[str, Any], error: float, is_dot: bool, scan_atol: float, bad: dict[str, Any]
) -> None:
    if name in ("pq", "opq", "rabitq"):
        pytest.importorskip("faiss")

    def make(seed: int) -> CodecExample:
        return CodecExample(
            codec=make_codec(name, DIM, **settings),
            vectors=unit(300 if name in ("pq", "opq") else 40, seed),
            queries=unit(3, seed + 100),
            max_error=error,
            load=load_codec,
            refuses=(Refusal(lambda: make_codec(name, **{"dim": DIM, **settings, **bad}), says=next(reversed(bad))),),
            score_is_dot=is_dot,
            scan_atol=scan_atol,
        )

    maker: Make[CodecExample] = make
    for check in CONTRACT.checks:
        check(maker)


def test_names_are_found_without_a_list() -> None:
    names = codec_names()
    assert {"float32", "float16", "int8", "binary", "pq", "opq", "rabitq", "rotation"} <= set(names)
    with pytest.raises(InputError, match="did you mean 'rotation'"):
        make_codec("rotatoin", 8)
    with pytest.raises(InputError, match="setting of codec binary 'bits'"):
        make_codec("binary", 8, bits=2)


def test_a_subclass_is_known_by_its_name() -> None:
    class Backwards(type(make_codec("float32", 2))):  # type: ignore[misc]
        name = "backwards"

        def _encode(self, vectors: Floats) -> NDArray[np.uint8]:
            return np.asarray(super()._encode(vectors[:, ::-1]))

    assert isinstance(make_codec("backwards", 4), Backwards)
    del Backwards


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_more_bits_and_float_queries_find_more(documents: Floats, queries: Floats, bits: int) -> None:
    def recall(codec: Codec) -> float:
        rows = codec.fit(documents).scanner(codec.encode(documents)).search(queries, 10)[1]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, nearest, strict=True)]))

    nearest = np.argsort(-(queries @ documents.T), axis=1)[:, :10]
    found = recall(make_codec("rotation", 64, bits=bits))
    assert found > recall(make_codec("rotation", 64, bits=bits, symmetric=True))
    assert found > {1: 0.35, 2: 0.55, 4: 0.8}[bits]


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "binary", "rotation"])
def test_without_extras_results_are_the_same(
    name: str, documents: Floats, queries: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = make_codec(name, 64).fit(documents)
    codes = codec.encode(documents)
    allowed = np.random.default_rng(0).random(len(documents)) < 0.3
    before = [codec.scanner(codes).search(queries[:few], 10, allowed=allowed) for few in (2, 24)]
    for package in ("faiss", "numba", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    for module in ("kernels", "sdc"):
        monkeypatch.setattr(f"embedlab.search.codecs.{module}.has_compiler", lambda: False)
    codec = make_codec(name, 64).fit(documents)
    after = [codec.scanner(codec.encode(documents)).search(queries[:few], 10, allowed=allowed) for few in (2, 24)]
    for (scores, rows), (plain_scores, plain_rows) in zip(before, after, strict=True):
        assert np.allclose(scores, plain_scores, atol=1e-6)
        assert (rows == plain_rows).mean() > 0.98  # near equals may change places


def test_codecs_of_faiss_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"embedlab\[codecs\]"):
        make_codec("rabitq", 8)
    with pytest.raises(MissingExtraError, match=r"embedlab\[codecs\]"):
        make_codec("pq", 8).fit(unit(300, 0)[:, :8])


def test_the_zero_vector_is_near_to_nothing(documents: Floats, queries: Floats) -> None:
    rows = documents[:50].copy()
    rows[3] = 0
    for symmetric in (True, False):
        codec = make_codec("rotation", 64, symmetric=symmetric).fit(rows)
        scores = codec.score(queries, codec.encode(rows))
        assert (scores[:, 3] == 0).all()
        assert (codec.decode(codec.encode(rows))[3] == 0).all()


def test_pairs_must_be_pairs(documents: Floats) -> None:
    with pytest.raises(InputError, match="pairs have 5 and 4 rows"):
        make_codec("float32", 64).fit(documents, pairs=(documents[:5], documents[:4]))


def test_scanners_take_codes_from_a_map(documents: Floats, queries: Floats, tmp_path: Any) -> None:
    codec = make_codec("int8", 64).fit(documents)
    np.save(tmp_path / "codes.npy", codec.encode(documents))
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    calls: list[Callable[[Any], Any]] = [lambda c: codec.scanner(c).search(queries, 5)[1], lambda c: codec.decode(c)]
    for call in calls:
        assert np.array_equal(call(mapped), call(np.array(mapped)))
