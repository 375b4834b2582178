"""Observatory: what does an encoder make of tables? Eight properties, each with an exact measure.

A relation has no order of rows or columns, columns that share values can be joined, and some columns decide others.
Embeddings of tables should know; whether they do is measured here, for any text encoder: a transformer that reads the
whole table, or a sentence encoder that reads one column at a time.

    report = characterize(load_table_encoder("sentence-transformers/all-MiniLM-L6-v2"), "folder-of-csv-files")
    report.write("report")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.data.tables import Table, as_table, read_tables
from embedlab.understand.observatory.context import heterogeneous_context, type_of_header
from embedlab.understand.observatory.dependencies import Dependency, find_fds, functional_dependencies
from embedlab.understand.observatory.encoders import (
    CellMeanEncoder,
    SentenceColumnEncoder,
    TableEmbedder,
    load_table_encoder,
)
from embedlab.understand.observatory.entities import entity_stability
from embedlab.understand.observatory.headers import abbreviate, perturbation_robustness, synonym
from embedlab.understand.observatory.invariance import column_order, noise_floor, row_order, sample_fidelity
from embedlab.understand.observatory.joins import Join, find_joins, join_discovery, join_relationship, overlap_pairs
from embedlab.understand.observatory.levels import LEVELS, Serialisation, register_level, serialise
from embedlab.understand.observatory.measures import (
    containment,
    cosines,
    jaccard,
    mcv,
    multiset_jaccard,
    nearest,
    purity,
    spearman,
)
from embedlab.understand.observatory.report import Report, characterize, reference_cosines
from embedlab.understand.observatory.results import (
    PROPERTIES,
    Measure,
    PropertyResult,
    measure_over_tables,
    register_property,
)
from embedlab.understand.observatory.transformer import TableEncoder, random_weights

if TYPE_CHECKING:
    from embedlab.testing.probe import ProbeExample

__all__ = [
    "LEVELS",
    "PROPERTIES",
    "CellMeanEncoder",
    "Dependency",
    "Join",
    "Measure",
    "PropertyResult",
    "Report",
    "SentenceColumnEncoder",
    "Serialisation",
    "Table",
    "TableEmbedder",
    "TableEncoder",
    "abbreviate",
    "as_table",
    "characterize",
    "column_order",
    "containment",
    "cosines",
    "entity_stability",
    "example",
    "find_fds",
    "find_joins",
    "functional_dependencies",
    "heterogeneous_context",
    "jaccard",
    "join_discovery",
    "join_relationship",
    "load_table_encoder",
    "mcv",
    "measure_over_tables",
    "multiset_jaccard",
    "nearest",
    "noise_floor",
    "overlap_pairs",
    "perturbation_robustness",
    "purity",
    "random_weights",
    "read_tables",
    "reference_cosines",
    "register_level",
    "register_property",
    "row_order",
    "sample_fidelity",
    "serialise",
    "spearman",
    "synonym",
    "type_of_header",
]

METHOD = {
    "card": 45,
    "title": "Observatory: Characterizing Embeddings of Relational Tables",
    "authors": "Tianji Cong, Madelon Hulsebos, Zhenjie Sun, Paul Groth, H. V. Jagadish",
    "year": 2023,
    "source": "arXiv:2310.07736v1 (PVLDB 17(4))",
    "kinds": {"probe": "mcv"},
    "extras": ["train", "evaluate"],
    "official_code": "superctj/observatory (no licence stated)",
    "deviations": [
        "Rows are permuted as rows; the official scripts draw permutations as long as there are columns.",
        "The coefficient of variation is Albert and Zhang's everywhere; one official file uses another, with the "
        "inverse of a covariance that is singular here.",
        "Groups of one row have no variance and are left out of the study of functional dependencies.",
        "Cells are tokenised one by one, so every order of a table has the same tokens and the same rows fit.",
        "Joins are studied twice: on pairs whose overlap is controlled, and on raw pairs.",
        "Every number has a bootstrap interval over tables or columns; a noise floor and the cosines between different "
        "columns stand beside them.",
        "Types of columns are guessed from headers unless given, and entities are cells with equal text.",
    ],
    "known_failures": [
        "The hidden states at all marks of one text can be the same vector (MiniLM: cosine above 0.999 from the third "
        "layer on): then columns are told apart by pooling='mean' only.",
        "Cosine says little in a narrow cone: compare it with the reference between different columns.",
        "MCV explodes for centred embeddings, whose mean is near 0, and hardly sees how vectors of one length turn: "
        "look at the cosine as well.",
        "An encoder without context has equal embeddings for equal cells, so it passes the test of functional "
        "dependencies by nature.",
        "A table whose headers alone exceed the encoder's limit is left out.",
    ],
}


def example(seed: int = 0) -> dict[str, ProbeExample]:
    """Return the smallest ready instance: twelve variants of one embedding, and how much they spread.

    Args:
        seed: Decides the vectors.

    Returns:
        Kind -> example, for the contract checks.
    """
    import numpy as np

    from embedlab.testing.contract import Refusal
    from embedlab.testing.probe import KnownValue, ProbeExample

    rows = np.random.default_rng(seed).normal(size=(12, 8)) + 2.0
    ladder = np.array([[1.0] * 5, [2.0] * 5, [6.0] * 5])
    table = Table("t", ("a", "b"), (("1", "2"), ("3", "4")))
    return {
        "probe": ProbeExample(
            compute=mcv,
            inputs=(rows,),
            numbers=lambda value: value,
            bounds=(0.0, np.inf),
            known=(
                KnownValue((ladder,), np.sqrt(7) / 3, "mean 3 and variance 7 along the diagonal, whatever the width"),
                KnownValue((1000 * ladder,), np.sqrt(7) / 3, "scaling changes nothing"),
                KnownValue((np.ones((4, 3)),), 0.0, "equal rows do not spread"),
            ),
            refuses=(
                Refusal(lambda: mcv(rows[:1]), says="vectors"),
                Refusal(lambda: serialise(table, level="colum"), says="level"),
                Refusal(lambda: find_fds(table, min_rows=1), says="min_rows"),
                Refusal(lambda: find_joins([table, table], min_containment=1.0), says="min_containment"),
                Refusal(lambda: nearest(rows, [0], 12), says="top_k"),
            ),
            rows="together",
            tie_rule="equal rows add nothing to the spread; of equally near cells the first in order counts",
        )
    }
