"""Pairs of sentences with how alike people found them."""

from __future__ import annotations

import csv
import io

from embedlab._core.errors import unknown_name
from embedlab.data.datasets import PairData
from embedlab.data.loaders.opening import open_text


def load_stsb(split: str = "test", *, language: str = "en") -> PairData:
    """Load the STS benchmark: sentence pairs, scored 0 (unrelated) to 5 (same meaning).

    Args:
        split: ``"train"``, ``"dev"`` or ``"test"``.
        language: ``"en"``, or for the test split ``"de"``, ``"es"``, ``"fr"`` or ``"zh"``, machine translated.

    Returns:
        The pairs.

    Raises:
        MissingDataError: there is no such file in ``EMBEDLAB_DATA``.

    References:
        Cer et al. (2017), SemEval-2017 Task 1.
    """
    rows = list(csv.reader(io.StringIO(open_text("stsb", f"stsb-{language}-{split}.csv.gz"), newline="")))
    return PairData([row[0] for row in rows], [row[1] for row in rows], [float(row[2]) for row in rows], [])


def load_sick(split: str = "test") -> PairData:
    """Load SICK: sentence pairs with relatedness from 1 to 5 and entailment.

    Args:
        split: ``"train"``, ``"trial"`` or ``"test"``.

    Returns:
        The pairs with their labels.

    Raises:
        InputError: there is no such split.
        MissingDataError: the file is not in ``EMBEDLAB_DATA``.

    References:
        Marelli et al. (2014), A SICK cure for the evaluation of compositional distributional semantic models.
    """
    names = {"train": "SICK_train.txt.gz", "trial": "SICK_trial.txt.gz", "test": "SICK_test_annotated.txt.gz"}
    if split not in names:
        raise unknown_name("split", split, names)
    rows = list(csv.DictReader(open_text("sick", names[split]).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    return PairData(
        [row["sentence_A"] for row in rows],
        [row["sentence_B"] for row in rows],
        [float(row["relatedness_score"]) for row in rows],
        [row["entailment_judgment"] for row in rows],
    )
