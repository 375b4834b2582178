"""The guide's vectors on disk: once per text, whole or not at all, never another guide's."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.text.gist import GuideStore


class Letters:
    """A guide that counts letters, and its own calls."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.seen += texts
        return np.array([[len(text), text.count("a"), text.count("e") + 1] for text in texts])

    def unit(self, text: str) -> np.ndarray:
        row = np.array([len(text), text.count("a"), text.count("e") + 1], dtype=np.float64)
        return row / np.sqrt(row @ row)


TEXTS = [f"text {i} " + "ae" * (i % 7) for i in range(50)]


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-6), ("float16", 1e-3)])
def test_gives_back_the_unit_vector_of_each_text(tmp_path, on_disk, dtype, atol):
    guide = Letters()
    store = GuideStore.build(
        guide, TEXTS + TEXTS[:9], tmp_path / "s" if on_disk else None, fingerprint="l:1", dtype=dtype, commit_every=7
    )
    wanted = [TEXTS[i] for i in (3, 49, 3, 0, 21)]
    np.testing.assert_allclose(store.vectors(wanted), [guide.unit(text) for text in wanted], atol=atol)
    assert sorted(guide.seen) == sorted(TEXTS)  # once per distinct text
    assert (len(store), store.dim, TEXTS[5] in store, "new" in store) == (50, 3, True, False)
    assert store.vectors([]).shape == (0, 3)


def test_a_second_build_embeds_only_what_is_new(tmp_path):
    GuideStore.build(Letters(), TEXTS[:30], tmp_path, fingerprint="l:1")
    guide, told = Letters(), []
    store = GuideStore.build(guide, TEXTS, tmp_path, fingerprint="l:1", commit_every=8, on_progress=told.append)
    assert guide.seen == TEXTS[30:]
    assert told == [30, 8, 8, 4]
    np.testing.assert_allclose(store.vectors(TEXTS), [guide.unit(text) for text in TEXTS], atol=1e-6)


def test_a_build_that_fails_keeps_what_was_done(tmp_path):
    class Breaking(Letters):
        def __call__(self, texts):
            if len(self.seen) >= 20:
                raise RuntimeError("the guide fell over")
            return super().__call__(texts)

    with pytest.raises(RuntimeError, match="fell over"):
        GuideStore.build(Breaking(), TEXTS, tmp_path, fingerprint="l:1", commit_every=10)
    assert len(GuideStore.open(tmp_path)) == 20
    guide = Letters()
    assert len(GuideStore.build(guide, TEXTS, tmp_path, fingerprint="l:1")) == 50
    assert guide.seen == TEXTS[20:]


def test_kill_at_any_moment_loses_at_most_one_shard(tmp_path):
    script = tmp_path / "build.py"
    script.write_text(
        "import sys\n"
        "from embedlab.text.gist.store import GuideStore\n"
        "GuideStore.build(lambda texts: [[len(t), 1.0] for t in texts], [f'{i}' for i in range(3000)],\n"
        "                 sys.argv[1], fingerprint='n:1', commit_every=1, on_progress=lambda n: print(n, flush=True))\n"
    )
    folder = tmp_path / "store"
    process = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    done = sum(int(process.stdout.readline()) for _ in range(40))
    process.send_signal(signal.SIGKILL)
    done += sum(int(line) for line in process.stdout)
    process.wait()
    process.stdout.close()
    store = GuideStore.open(folder)
    assert done <= len(store) <= done + 1
    assert len(store) < 3000  # it was still at work
    row = store.vectors(["0"])[0]
    np.testing.assert_allclose(row, np.array([1, 1]) / np.sqrt(2), atol=1e-6)


def test_another_guide_is_refused(tmp_path):
    GuideStore.build(Letters(), TEXTS, tmp_path, fingerprint="letters:1")
    with pytest.raises(InputError, match=r"stale.*letters:1.*letters:2"):
        GuideStore.build(Letters(), TEXTS, tmp_path, fingerprint="letters:2")
    with pytest.raises(InputError, match="stale"):
        GuideStore.open(tmp_path, fingerprint="letters:2")
    assert json.loads((tmp_path / "guide.json").read_text())["fingerprint"] == "letters:1"


def test_missing_text_is_named(tmp_path):
    store = GuideStore.build(Letters(), TEXTS, tmp_path, fingerprint="l:1")
    with pytest.raises(InputError, match=r"'Text 1 '.* and 1 more.*holds 50 texts.*GuideStore\.build"):
        store.vectors([TEXTS[0], "Text 1 ", "another"])  # keys are exact: case and spaces count
    with pytest.raises(InputError, match="no guide embedding for 'a'"):
        GuideStore.build(Letters(), [], fingerprint="l:1").vectors(["a"])


def test_the_encoders_own_fingerprint_is_recorded():
    class Tiny:
        name, dim, fingerprint = "tiny", 2, "tiny:0123"

        def encode_document(self, texts, *, batch_size=32, on_progress=None):
            return np.ones((len(texts), 2), np.float32)

        def encode_query(self, texts):
            raise AssertionError("the guide sees documents")

    assert GuideStore.build(Tiny(), ["a"]).fingerprint == "tiny:0123"


def test_a_worker_process_gets_the_folder_not_the_vectors(tmp_path):
    store = GuideStore.build(Letters(), TEXTS, tmp_path, fingerprint="l:1")
    sent = pickle.dumps(store)
    assert len(sent) < 500
    np.testing.assert_array_equal(pickle.loads(sent).vectors(TEXTS), store.vectors(TEXTS))  # noqa: S301 - our own
    memory = GuideStore.build(Letters(), TEXTS, fingerprint="l:1")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(memory)).vectors(TEXTS), store.vectors(TEXTS))  # noqa: S301


def test_vectors_stay_on_disk_until_looked_up(tmp_path):
    texts = [str(i) for i in range(2000)]
    GuideStore.build(lambda batch: np.ones((len(batch), 512)), texts, tmp_path, fingerprint="ones", commit_every=500)
    store = GuideStore.open(tmp_path)
    assert all(isinstance(shard, np.memmap) for shard in store._shards)


@pytest.mark.parametrize(
    ("rows", "says"),
    [([[1.0, 2.0]], "shape"), ([1.0, 2.0], "shape"), ([[1.0, 2.0], [np.nan, 0.0]], "'second'.*not finite")],
)
def test_a_guide_that_gives_nonsense_is_refused(rows, says):
    with pytest.raises(InputError, match=says):
        GuideStore.build(lambda texts: rows, ["first", "second"], fingerprint="x")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "fingerprint"),
        ({"fingerprint": "x", "dtype": "int8"}, "dtype"),
        ({"fingerprint": "x", "commit_every": 0}, "commit_every"),
    ],
)
def test_bad_options_are_named(options, says):
    with pytest.raises(InputError, match=says):
        GuideStore.build(Letters(), ["a"], **options)


def test_vectors_of_different_length_are_refused():
    with pytest.raises(InputError, match="one length"):
        GuideStore.build(lambda texts: np.ones((1, len(texts[0]))), ["a", "bb"], fingerprint="x", commit_every=1)


def test_texts_must_be_strings():
    with pytest.raises(InputError, match="texts"):
        GuideStore.build(Letters(), "one text", fingerprint="x")
    with pytest.raises(InputError, match=r"texts\[1\]=3"):
        GuideStore.build(Letters(), ["a", 3], fingerprint="x")


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="no usable guide store"):
        GuideStore.open(tmp_path / "nowhere")
    GuideStore.build(Letters(), TEXTS, tmp_path, fingerprint="l:1")
    shard = next(tmp_path.glob("*.npy"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InputError, match="no usable guide store"):
        GuideStore.open(tmp_path)


def test_a_pickle_posing_as_a_shard_is_not_run(tmp_path):
    GuideStore.build(Letters(), TEXTS, tmp_path, fingerprint="l:1")
    np.save(tmp_path / "evil.npy", np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        GuideStore.open(tmp_path)


def test_two_builds_at_once_both_arrive(tmp_path):
    GuideStore.build(Letters(), TEXTS[:30], tmp_path / "one", fingerprint="l:1", commit_every=5)
    GuideStore.build(Letters(), TEXTS[20:], tmp_path / "two", fingerprint="l:1", commit_every=5)
    for shard in (tmp_path / "two").glob("*.npy"):  # as if both had written into one folder
        shard.replace(tmp_path / "one" / shard.name)
    both = GuideStore.open(tmp_path / "one")
    assert len(both) == 50  # rows that occur twice count once
    np.testing.assert_allclose(both.vectors(TEXTS), [Letters().unit(text) for text in TEXTS], atol=1e-6)


def test_looking_up_a_batch_is_fast(tmp_path):
    texts = [f"{i}" for i in range(20_000)]
    store = GuideStore.build(lambda batch: np.ones((len(batch), 64)), texts, tmp_path, fingerprint="ones")
    start = time.perf_counter()
    for _ in range(50):
        store.vectors(texts[:128])
    assert (time.perf_counter() - start) / 50 < 0.02  # seconds; a training step takes far longer
