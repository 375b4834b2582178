"""Is a domain different, or are its data sets only harder? Complexity of data sets, and tests that hold it fixed.

Models often score lower on a domain's benchmark than on a general one. That alone says little: its data sets may be
harder for anyone. So the complexity of every data set is measured without any model under test, and the gap is asked
for again among data sets of like complexity. The data set is the unit of all tests here: a thousand resamples of three
data sets are still three data sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.evaluate.domain_gap.anova import anova_two_way
from embedlab.evaluate.domain_gap.dependency import ConlluParses, Parser, SpacyParser, dependency_distance
from embedlab.evaluate.domain_gap.difficulty import LLMErrorRate, ModelErrorRate
from embedlab.evaluate.domain_gap.entropy import corpus_entropy, entropy, window_entropy
from embedlab.evaluate.domain_gap.finding import Finding
from embedlab.evaluate.domain_gap.measures import controls_of, measure
from embedlab.evaluate.domain_gap.ranks import spearman
from embedlab.evaluate.domain_gap.readability import count, sentences, syllables
from embedlab.evaluate.domain_gap.report import GapReport, domain_gap
from embedlab.evaluate.domain_gap.similarity import dataset_similarity
from embedlab.evaluate.domain_gap.suites import SuiteReport, compare_suites

if TYPE_CHECKING:
    from embedlab.testing.probe import ProbeExample

__all__ = [
    "ConlluParses",
    "Finding",
    "GapReport",
    "LLMErrorRate",
    "ModelErrorRate",
    "Parser",
    "SpacyParser",
    "SuiteReport",
    "anova_two_way",
    "compare_suites",
    "controls_of",
    "corpus_entropy",
    "count",
    "dataset_similarity",
    "dependency_distance",
    "domain_gap",
    "entropy",
    "example",
    "measure",
    "sentences",
    "spearman",
    "syllables",
    "window_entropy",
]

METHOD = {
    "card": 27,
    "title": "Do We Need Domain-Specific Embedding Models? An Empirical Investigation",
    "authors": "Yixuan Tang, Yi Yang",
    "year": 2024,
    "source": "arXiv:2409.18511v2",
    "kinds": {"probe": "domain_gap"},
    "extras": ["evaluate"],
    "official_code": None,
    "deviations": [
        "The analysis of variance on 500 resamples per cell is the paper's, and marked as no evidence. Beside it is a "
        "test that exchanges the domain's label between data sets.",
        "Intervals after control come from data sets' means with HC3 errors: errors clustered by data set, the usual "
        "choice, reject far too often with a few dozen data sets.",
        "The paper does not print its readability index, nor how text values are pooled: Gunning's Fog, means over "
        "texts. Entropy is also given on windows of equal length, since it grows with length.",
        "Resamples draw data sets of a task type, not instances within them.",
    ],
    "known_failures": [
        "With three data sets a side and type no test of one type can reach p = 0.05; only types together can.",
        "A reader of the same sort as the models under test (ModelErrorRate) explains away part of any gap.",
        "Complexity of a sort that is not measured looks like an effect of the domain.",
        "Readability, syllables and the parser are for English; other scripts are refused, other languages in Latin "
        "letters are not noticed.",
    ],
}


def example(seed: int = 0) -> dict[str, ProbeExample]:
    """Return the smallest ready instance: three models on sixteen data sets of two types, harder ones scored lower.

    Args:
        seed: Decides the scores.

    Returns:
        Kind -> example, for the contract checks.
    """
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame

    from embedlab.testing.contract import Refusal
    from embedlab.testing.probe import KnownValue, ProbeExample

    rng = np.random.default_rng(seed)
    names = np.array([f"set {place:02}" for place in range(16)])
    domain = np.array(["general", "finance"] * 8)
    types = np.array(["STS"] * 8 + ["Retrieval"] * 8)
    hard = rng.normal(size=16)
    scores = 0.6 - 0.1 * hard[:, None] - 0.05 * (domain == "finance")[:, None] + 0.02 * rng.normal(size=(16, 3))

    def compute(
        values: NDArray[np.float64], who: NDArray[np.str_], side: NDArray[np.str_], kind: NDArray[np.str_]
    ) -> GapReport:
        complexity = DataFrame({"hard": hard}, index=list(names))
        kept = complexity if set(who) <= set(names) else None
        return domain_gap(
            values, domain=list(side), types=list(kind), datasets=list(who), complexity=kept, num_boot=20, seed=seed
        )

    def numbers(report: GapReport) -> NDArray[np.float64]:
        gaps = report.gaps.table[["gap", "relative"]].to_numpy(dtype=np.float64).ravel()
        held = report.regression.table["gap"].to_numpy(dtype=np.float64)[1:]
        return np.concatenate([gaps, report.label_test.table["p"].to_numpy(dtype=np.float64), held])

    # means 0.7 and 0.4 per model: 0.3 less, 3/7 of the general score; 2 of the 6 relabellings are as far apart
    by_hand = np.array([[0.6, 0.8], [0.8, 0.6], [0.3, 0.5], [0.5, 0.3]])
    sides, plain = np.array(["general", "general", "finance", "finance"]), np.array(["STS"] * 4)
    known = (by_hand, np.array(["a", "b", "c", "d"]), sides, plain)

    def refused(**changed: object) -> object:
        given: dict[str, object] = {"scores": scores, "domain": list(domain), "types": list(types)} | changed
        return domain_gap(given.pop("scores"), **given)  # type: ignore[arg-type]

    return {
        "probe": ProbeExample(
            compute=compute,
            inputs=(scores, names, domain, types),
            numbers=numbers,
            bounds=(-10.0, 10.0),
            known=(
                KnownValue(
                    known, [-0.3, -3 / 7, -0.3, -3 / 7, 1 / 3, 1 / 3], "worked out by hand: mean 0.7 against 0.4"
                ),
            ),
            refuses=(
                Refusal(lambda: refused(domain=["general"] * 16), says="domain"),
                Refusal(lambda: refused(domain=list(domain[:3])), says="domain"),
                Refusal(lambda: refused(general="generel"), says="general"),
                Refusal(lambda: refused(types=list(domain)), says="types"),
                Refusal(lambda: refused(models=["a", "a", "b"]), says="models"),
                Refusal(lambda: refused(confidence=1.0), says="confidence"),
                Refusal(lambda: refused(complexity=DataFrame({"hard": [1.0]})), says="complexity"),
            ),
            rows="together",
            tie_rule="equal scores share their mean rank; relabellings as far apart as the one seen count as extreme",
        )
    }
