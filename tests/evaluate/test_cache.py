"""The cache of vectors: nothing twice, nothing wrong, safe among processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedlab._core.errors import EmbedlabError, InputError
from embedlab.evaluate.cache import VectorCache, text_key
from embedlab.models import load_model


class Recorder:
    """Encodes a text as numbers made from its own characters, and remembers every call."""

    name = "recorder"
    dim = 3
    fingerprint = "recorder:00000000"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        self.calls.append(list(texts))
        if on_progress is not None:
            on_progress(len(texts))
        return np.array([[len(text), sum(map(ord, text)), 1] for text in texts], dtype=np.float32).reshape(-1, 3)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return -self.encode_document(texts)

    @property
    def seen(self) -> list[str]:
        return [text for call in self.calls for text in call]


def expected(texts: list[str]) -> NDArray[np.float32]:
    return Recorder().encode_document(texts)


def test_each_text_reaches_the_encoder_once_and_shortest_first(tmp_path: Path) -> None:
    encoder, cache = Recorder(), VectorCache(tmp_path)
    texts = ["ccc", "a", "bb", "a", "ccc", ""]
    np.testing.assert_array_equal(cache.encode(encoder, texts), expected(texts))
    np.testing.assert_array_equal(cache.encode(encoder, ["dddd", *texts[::-1]]), expected(["dddd", *texts[::-1]]))
    assert encoder.seen == ["", "a", "bb", "ccc", "dddd"]
    assert (cache.encoded, cache.found) == (5, 8)


def test_another_object_and_another_process_read_what_was_written(tmp_path: Path) -> None:
    encoder = Recorder()
    VectorCache(tmp_path).encode(encoder, ["one", "two"])
    np.testing.assert_array_equal(VectorCache(tmp_path).encode(encoder, ["two", "one"]), expected(["two", "one"]))
    assert len(encoder.calls) == 1
    first = VectorCache(tmp_path)
    first.encode(encoder, ["one"])
    VectorCache(tmp_path).encode(encoder, ["three"])  # as another process would, meanwhile
    first.encode(encoder, ["three"])
    assert encoder.seen == ["one", "two", "three"]


def test_roles_fingerprints_and_similar_texts_are_told_apart(tmp_path: Path) -> None:
    cache, encoder, other = VectorCache(tmp_path), Recorder(), Recorder()
    other.fingerprint = "recorder:00000001"
    document = cache.encode(encoder, ["x"])
    np.testing.assert_array_equal(cache.encode(encoder, ["x"], role="query"), -document)
    cache.encode(encoder, ["x"], role="text")
    cache.encode(encoder, ["X", "x ", "x\x00"])
    cache.encode(other, ["x"])
    assert encoder.seen == ["x", "x", "x", "X", "x ", "x\x00"]
    assert other.seen == ["x"]


def test_a_model_without_prompts_encodes_once_for_all_roles(tmp_path: Path) -> None:
    encoder, cache = Recorder(), VectorCache(tmp_path)
    encoder.roles_alike = True  # type: ignore[attr-defined]
    for role in ("document", "query", "text"):
        cache.encode(encoder, ["x"], role=role)  # type: ignore[arg-type]
    assert encoder.seen == ["x"]


def test_hashes_of_texts_end_in_any_byte() -> None:
    texts = [f"text {number}" for number in range(2000)]
    assert any(text_key(text).endswith(b"\0") for text in texts)  # what a fixed-length string type would cut off
    assert len({text_key(text) for text in [*texts, "\ud800", "\ud801"]}) == 2002


def test_no_texts(tmp_path: Path) -> None:
    assert VectorCache(tmp_path).encode(Recorder(), []).shape == (0, 3)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap"])
def test_a_damaged_shard_is_encoded_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder = Recorder()
    texts = ["one", "two", "three"]
    VectorCache(tmp_path).encode(encoder, texts)
    VectorCache(tmp_path).encode(encoder, ["four"])
    shards = sorted(tmp_path.rglob("*.npy"), key=lambda path: path.stat().st_size)
    content = bytearray(shards[-1].read_bytes())
    content[-2] ^= 1
    other = shards[0].read_bytes()
    shards[-1].write_bytes({"flip": bytes(content), "cut": bytes(content[:-9]), "empty": b"", "swap": other}[damage])
    np.testing.assert_array_equal(VectorCache(tmp_path).encode(encoder, [*texts, "four"]), expected([*texts, "four"]))
    assert "damaged" in caplog.text
    assert sorted(encoder.seen) == sorted([*texts, *texts, "four"])
    assert len(encoder.calls) == 3
    VectorCache(tmp_path).encode(encoder, texts)
    assert len(encoder.calls) == 3  # mended


def test_size_is_bounded_and_the_unused_goes_first(tmp_path: Path) -> None:
    encoder = Recorder()
    VectorCache(tmp_path).encode(encoder, ["old"])
    one = VectorCache(tmp_path).size_bytes()
    old = next(tmp_path.rglob("*.npy"))
    VectorCache(tmp_path).encode(encoder, ["middle"])
    for path in tmp_path.rglob("*.npy"):
        os.utime(path, (1_000_000, 1_000_000 + (path != old)))
    VectorCache(tmp_path).encode(encoder, ["old"])  # used: now the other is the older one
    VectorCache(tmp_path, max_bytes=2 * one).encode(encoder, ["new"])
    assert VectorCache(tmp_path).size_bytes() <= 2 * one
    VectorCache(tmp_path).encode(encoder, ["old", "new"])
    assert encoder.seen == ["old", "middle", "new"]


def test_many_small_shards_become_one(tmp_path: Path) -> None:
    encoder, cache = Recorder(), VectorCache(tmp_path)
    texts = [f"text {number}" for number in range(80)]
    for text in texts:
        cache.encode(encoder, [text])
    assert len(list(tmp_path.rglob("*.npy"))) < 40
    np.testing.assert_array_equal(cache.encode(encoder, texts), expected(texts))
    np.testing.assert_array_equal(VectorCache(tmp_path).encode(encoder, texts), expected(texts))
    assert len(encoder.seen) == 80


def test_an_interruption_keeps_what_was_done(tmp_path: Path) -> None:
    texts = [f"{number:06}" for number in range(3000)]

    class Interrupted(Recorder):
        def encode_document(
            self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
        ) -> NDArray[np.float32]:
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().encode_document(texts, batch_size=batch_size, on_progress=on_progress)

    with pytest.raises(KeyboardInterrupt):
        VectorCache(tmp_path).encode(Interrupted(), texts)
    encoder = Recorder()
    np.testing.assert_array_equal(VectorCache(tmp_path).encode(encoder, texts), expected(texts))
    assert len(encoder.seen) == 3000 - 2 * 1024


def test_progress_counts_every_text(tmp_path: Path) -> None:
    cache, encoder = VectorCache(tmp_path), Recorder()
    for _ in range(2):
        done: list[int] = []
        cache.encode(encoder, ["a", "b", "a"], on_progress=done.append)
        assert sum(done) == 3
        cache.encode(encoder, ["b", "q"], role="query", on_progress=done.append)
        assert sum(done) == 5


def test_useless_vectors_are_refused_and_not_kept(tmp_path: Path) -> None:
    class Broken(Recorder):
        rows: NDArray[np.float32] = np.array([[1, np.nan, 0]], dtype=np.float32)

        def encode_document(
            self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
        ) -> NDArray[np.float32]:
            return self.rows

    broken = Broken()
    with pytest.raises(EmbedlabError, match=r"'recorder' gave NaN .* 'some text'"):
        VectorCache(tmp_path).encode(broken, ["some text"])
    broken.rows = np.zeros((2, 3), dtype=np.float32)
    with pytest.raises(EmbedlabError, match=r"shape \(2, 3\) for 1 texts"):
        VectorCache(tmp_path).encode(broken, ["some text"])
    assert VectorCache(tmp_path).size_bytes() == 0


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_bytes=0"):
        VectorCache(tmp_path, max_bytes=0)
    with pytest.raises(InputError, match="role='doc'"):
        VectorCache(tmp_path).encode(Recorder(), ["x"], role="doc")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="single text"):
        VectorCache(tmp_path).encode(Recorder(), "x")
    nameless = Recorder()
    nameless.fingerprint = "../../etc"
    with pytest.raises(InputError, match="fingerprint"):
        VectorCache(tmp_path).encode(nameless, ["x"])


_CHILD = """
import sys
from embedlab.evaluate.cache import VectorCache
from embedlab.models import load_model
cache, model = VectorCache(sys.argv[1]), load_model()
for start in range(0, 600, 60):
    cache.encode(model, [f"text number {number}" for number in range(start, start + 90)])
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)]) for _ in range(2)]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    model = load_model()
    texts = [f"text number {number}" for number in range(630)]
    cache = VectorCache(tmp_path)
    np.testing.assert_array_equal(cache.encode(model, texts), model.encode_document(texts))
    assert cache.encoded == 0
