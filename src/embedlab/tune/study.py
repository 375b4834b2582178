"""A tuning study from end to end: judgements, search on one half of them, proof on the other, report."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import InputError
from embedlab.tune.bench import Bench, documents_of
from embedlab.tune.judgements import Judgements, judged_by_people, made_from
from embedlab.tune.knob import Knob, chosen
from embedlab.tune.measures import Goal
from embedlab.tune.proof import Finalist, finalists_of, prove
from embedlab.tune.trials import Ledger, Step, Trial, name_of, search

if TYPE_CHECKING:
    from embedlab.search import Collection

_FOR_THE_PROOF = 0.15  # share of the time that is left for the end


@dataclass(frozen=True, slots=True)
class Limits:
    """What a system must keep to.

    Attributes:
        max_bytes_per_doc: Bytes of the vectors of one document, on average.
        max_latency_ms: Median time of a search.
        max_encode_ms: Median time to encode a query.
    """

    max_bytes_per_doc: float | None = None
    max_latency_ms: float | None = None
    max_encode_ms: float | None = None


@dataclass(frozen=True, slots=True)
class TuningReport:
    """What a study found.

    Attributes:
        collection: Name of the collection.
        goal: What was to be large.
        limits: What systems had to keep to.
        made: Whether the queries were made from the documents, not asked by people.
        queries: Development and test queries.
        level: Chance of a false alarm over all finalists.
        untouched: The collection as it is.
        finalists: What was proved, best on development first.
        winner: The first finalist that keeps to the limits and is better by more than chance; where the collection as
            it is breaks a limit, the first that is not worse by more than chance. None if there is none.
        trials: Everything tried on all development queries, best first.
        refused: Systems that could not be tried, and why.
        seconds: Time it took.
        seed: Decided everything random.
        folder: Where the study is kept.
    """

    collection: str
    goal: str
    limits: Limits
    made: bool
    queries: tuple[int, int]
    level: float
    untouched: Finalist
    finalists: tuple[Finalist, ...]
    winner: Finalist | None
    trials: tuple[Trial, ...]
    refused: Mapping[str, str]
    seconds: float
    seed: int
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON; trials without their single values."""
        told = {name: getattr(self, name) for name in ("collection", "goal", "made", "queries", "level", "seed")}
        trials = [
            {"system": each.system, "development": each.score, "bytes_per_document": each.bytes_per_document}
            for each in self.trials
        ]
        return told | {
            "limits": asdict(self.limits),
            "untouched": asdict(self.untouched),
            "finalists": [asdict(each) for each in self.finalists],
            "winner": None if self.winner is None else self.winner.system,
            "trials": trials,
            "refused": dict(self.refused),
            "seconds": round(self.seconds, 1),
        }


def tune(
    collection: Collection,
    *,
    queries: Mapping[str, str] | None = None,
    qrels: Mapping[str, Mapping[str, float]] | None = None,
    minutes: float = 10.0,
    goal: str = "ndcg@10",
    limits: Limits | None = None,
    knobs: Sequence[str] | None = None,
    own_knobs: Sequence[Knob] = (),
    num_queries: int = 400,
    num_finalists: int = 3,
    level: float = 0.05,
    seed: int = 0,
    folder: Path | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> TuningReport:
    """Find settings that make a collection's search better, and prove it on queries that no choice has seen.

    Queries come from people, or are made from the documents: a title or a first sentence asks for the document it was
    taken out of. They are split so that no document is relevant on both sides; settings are chosen on one half, and the
    few best are tested on the other, once, against the collection as it is. The collection is not changed.

    Time is bounded by ``minutes``, memory by the vectors of all passages under every model and codec tried. What was
    tried is kept in ``folder``; an interrupted study with the same data, goal and seed goes on.

    Args:
        collection: The collection.
        queries: Queries of people by id; None makes queries.
        qrels: For each query id the grades of documents by source, above 0 for relevant ones; with ``queries``.
        minutes: Time to take, at least a few seconds.
        goal: ``"ndcg@10"``, ``"recall@100"`` or ``"map"``.
        limits: What systems must keep to.
        knobs: Names of the knobs to turn; None for all there are.
        own_knobs: Further knobs, such as models.
        num_queries: Most queries to make.
        num_finalists: Systems that are tested.
        level: Chance of calling a system better that is not.
        seed: Decides queries, halves, and what is random in models and codecs.
        folder: Where the study is kept; by default with this user's data, under the collection's name.
        on_step: Called as the search goes on.

    Returns:
        The report.

    Raises:
        InputError: an argument is out of range, or the collection offers too few queries.
    """
    began = time.monotonic()
    if minutes <= 0:
        raise InputError(f"minutes={minutes!r}: must be above 0")
    if (queries is None) != (qrels is None):
        raise InputError("queries and qrels belong together: give both, or neither to have queries made")
    if not 0 < level < 1:
        raise InputError(f"level={level!r}: must lie between 0 and 1")
    aim, bounds = Goal.of(goal), limits or Limits()
    documents = documents_of(collection)
    if queries is not None and qrels is not None:
        judged = judged_by_people(queries, qrels, [document.source for document in documents])
    else:
        judged, documents = made_from(documents, most=num_queries, seed=seed)
    development, test = judged.split(seed=seed)
    home = folder or home_of(collection)
    every = chosen(knobs) | {knob.name: knob for knob in own_knobs}
    usable = {name: knob for name, knob in every.items() if not (judged.made and knob.needs_people)}
    bench = Bench(documents, collection.settings, collection.encoder, knobs=usable, folder=home / "bench", seed=seed)
    ledger = Ledger(home / "trials.jsonl", _key(bench, judged, aim, seed))
    deadline = began + 60 * minutes * (1 - _FOR_THE_PROOF)
    trials = search(
        bench,
        development,
        aim,
        ledger=ledger,
        deadline=deadline,
        max_bytes=bounds.max_bytes_per_doc,
        on_step=on_step,
    )
    untouched = ledger.trials[name_of({})]
    first, proved = prove(bench, finalists_of(trials, most=num_finalists), untouched, test, aim, level=level, seed=seed)
    return TuningReport(
        collection=collection.name,
        goal=aim.name,
        limits=bounds,
        made=judged.made,
        queries=(len(development), len(test)),
        level=level,
        untouched=first,
        finalists=tuple(proved),
        winner=_winner(first, proved, bounds),
        trials=tuple(trials),
        refused=ledger.refused,
        seconds=time.monotonic() - began,
        seed=seed,
        folder=home,
    )


def model_knob(names: Sequence[str]) -> Knob:
    """Make a knob of other models.

    Args:
        names: As ``embedlab.models.load_model`` takes them.

    Returns:
        The knob; its neutral setting is the collection's own model.
    """
    from embedlab.models import load_model

    return Knob(
        name="model",
        stage="model",
        settings=(None, *dict.fromkeys(names)),
        summary="the model that makes the vectors",
        make=lambda name, _encoder, _texts, _seed: load_model(name),
    )


def home_of(collection: Collection) -> Path:
    """Return the folder in which studies of a collection are kept.

    Args:
        collection: The collection.

    Returns:
        A folder with this user's data; it need not exist.
    """
    from embedlab._core.files import embedlab_home

    place = hashlib.blake2b(collection.path.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return embedlab_home() / "tune" / f"{collection.name}-{place}"


def _winner(untouched: Finalist, proved: Sequence[Finalist], limits: Limits) -> Finalist | None:
    """Return the first that is better; where the untouched system breaks a limit, the first that is not worse."""
    fitting = [each for each in proved if _keeps(each, limits)]
    if _keeps(untouched, limits):
        return next((each for each in fitting if each.better), None)
    return next((each for each in fitting if not each.worse), None)


def _keeps(finalist: Finalist, limits: Limits) -> bool:
    costs = finalist.costs
    bounds = (
        (costs.bytes_per_document, limits.max_bytes_per_doc),
        (costs.p50_ms, limits.max_latency_ms),
        (costs.encode_ms, limits.max_encode_ms),
    )
    return all(bound is None or cost <= bound for cost, bound in bounds)


def _key(bench: Bench, judgements: Judgements, goal: Goal, seed: int) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in (bench.data, bench.encoder.fingerprint, repr(bench.settings), goal.name, str(seed)):
        digest.update(part.encode() + b"\0")
    for query, relevant in zip(judgements.queries, judgements.relevant, strict=True):
        digest.update(repr((query, sorted(relevant.items()))).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
