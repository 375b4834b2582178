"""Clusters made better by questions: which of two is nearer, whether two belong together, what a cluster is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedlab._core.errors import InputError
from embedlab.text.synthesis.generators import as_generator
from embedlab.text.synthesis.prompts import prompt_named
from embedlab.text.synthesis.template_writer import read_answer
from embedlab.text.synthesis.triplets import Triplet

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_SHOWN = 8  # texts of a cluster that are shown to name it, nearest to its centre first


@dataclass(frozen=True, slots=True)
class Question:
    """A text between two clusters, with one text of each.

    Attributes:
        text: Place of the text in doubt.
        first: Place of a text of its nearest cluster.
        second: Place of a text of another near one.
        entropy: How unsure its assignment is, in nats.
    """

    text: int
    first: int
    second: int
    entropy: float


@dataclass(frozen=True, slots=True)
class Granularity:
    """How many clusters fit the answers to pairwise questions.

    Attributes:
        num_clusters: The number that fits best; the smallest of several.
        agreement: Number of clusters -> F-measure of "in one cluster" against the answers "belong together".
        asked: Number of pairs asked about.
    """

    num_clusters: int
    agreement: dict[int, float]
    asked: int


class ClusterFeedback:
    """Improve clusters of texts with a few answers of a language model (or of a person).

    Texts whose assignment is the least sure say the most: the model is asked which of two near clusters such a text
    belongs with. The answers train the embedder; answers on pairs say how fine the clusters should be; doubtful texts
    can be moved, and clusters get names. Every two-sided question is asked in both orders, and contradictions are
    dropped.

    Args:
        llm: A ``TextGenerator``, ``"https://host/v1#model"``, the folder of a causal language model, or a function.
        criterion: What texts belong together by, as a sentence: ``"We sort questions by what the customer wants."``
        seed: Decides which texts stand for a cluster.

    Example:
        >>> import numpy as np
        >>> vectors = np.array([[0, 0], [0, 1], [9, 0], [9, 1], [4.4, 0.5]])
        >>> feedback = ClusterFeedback(lambda prompt: "A")
        >>> [question.text for question in feedback.questions(vectors, [0, 0, 1, 1, 0], most=1)]
        [4]

    References:
        Zhang et al. (2023), ClusterLLM, arXiv:2305.14871v2; official code zhang-yu-wei/ClusterLLM.
    """

    def __init__(self, llm: Any, *, criterion: str = "", seed: int = 0) -> None:
        self.generator = as_generator(llm)
        self._criterion, self._seed = criterion, seed

    def questions(self, vectors: ArrayLike, labels: ArrayLike, *, most: int = 256) -> list[Question]:
        """Choose the texts that an answer would help most.

        Args:
            vectors: Vectors of the texts, (N, D).
            labels: Cluster of each text, (N,).
            most: Largest number of questions, at least 1.

        Returns:
            Questions, the least sure first; with two texts that stand for the two clusters.

        Raises:
            InputError: there are fewer than two clusters, or ``most`` is below 1.
        """
        if most < 1:
            raise InputError(f"most={most}: must be at least 1")
        points, places = _checked(vectors, labels)
        chances = assignment_chances(points, places)  # (N, C)
        entropy = _entropy(chances)
        rng = np.random.default_rng(self._seed)
        members = [np.flatnonzero(places == each) for each in range(chances.shape[1])]
        found = []
        for i in np.argsort(-entropy, kind="stable")[: min(most, len(points))]:
            near = np.argsort(-chances[i], kind="stable")[:2]
            stand = [members[each][members[each] != i] for each in near]
            if all(len(each) for each in stand):
                first, second = (int(rng.choice(each)) for each in stand)
                found.append(Question(int(i), first, second, float(entropy[i])))
        return found

    def ask(self, texts: Sequence[str], questions: Sequence[Question]) -> list[tuple[Question, bool]]:
        """Ask which of the two texts is nearer.

        Args:
            texts: All texts.
            questions: What to ask.

        Returns:
            (question, whether it is the first) where both orders got the same answer.
        """
        prompt = prompt_named("nearer")
        found = []
        for each in questions:
            text, first, second = texts[each.text], texts[each.first], texts[each.second]
            straight = self._first(prompt.render([text, first, second], criterion=self._criterion))
            turned = self._first(prompt.render([text, second, first], criterion=self._criterion))
            if straight * turned < 0:  # first in one order and second in the other: the same text
                found.append((each, straight > 0))
        return found

    def triplets(self, texts: Sequence[str], answers: Sequence[tuple[Question, bool]]) -> list[Triplet]:
        """Turn answers into training triplets.

        Args:
            texts: All texts.
            answers: What ``ask`` gave.

        Returns:
            Triplets of the text in doubt, the one it belongs with, and the other.
        """
        return [
            Triplet(
                texts[each.text],
                texts[each.first if is_first else each.second],
                (texts[each.second if is_first else each.first],),
            )
            for each, is_first in answers
        ]

    def fine_tune(
        self, model: Any, texts: Sequence[str], answers: Sequence[tuple[Question, bool]], out: Path, **options: Any
    ) -> SentenceTransformer:
        """Train an embedder on the answers, by the recipe ``contrastive`` with the losing text as hard negative.

        Args:
            model: Folder, hub name or loaded model; it is left as it is.
            texts: All texts.
            answers: What ``ask`` gave, at least two.
            out: Folder of the run.
            **options: Further arguments of ``embedlab.text.train``.

        Returns:
            The trained model.

        Raises:
            InputError: there are fewer than two answers.
        """
        from embedlab._core.extras import require
        from embedlab.text.training.run import train

        triplets = self.triplets(texts, answers)
        if len(triplets) < 2:
            raise InputError(f"{len(triplets)} answers: at least two are needed to train on")
        rows = [{"anchor": t.query, "positive": t.positive, "negative_1": t.negatives[0]} for t in triplets]
        train("contrastive", model=model, data=rows, out=out, seed=self._seed, **{"evaluate": False, **options})
        loaded: SentenceTransformer = require("sentence_transformers", extra="train").SentenceTransformer(str(out))
        return loaded

    def granularity(
        self, texts: Sequence[str], vectors: ArrayLike, sizes: Sequence[int], *, most: int = 64
    ) -> Granularity:
        """Find how many clusters there should be, by asking whether pairs belong together.

        The texts are joined step by step (average linkage). The pairs that are asked about are those whose clusters
        join between the largest and the smallest number of clusters: all other pairs are in one cluster, or in two,
        whatever the number.

        Args:
            texts: All texts.
            vectors: Their vectors, (N, D).
            sizes: Numbers of clusters to choose from, each from 1 to N.
            most: Largest number of pairs to ask about.

        Returns:
            The number that fits best, and how well each does.

        Raises:
            InputError: a size is out of range.
        """
        from scipy.cluster.hierarchy import fcluster, linkage

        points = _vectors(vectors)
        wanted = sorted(set(map(int, sizes)))
        if not wanted or wanted[0] < 1 or wanted[-1] > len(points):
            raise InputError(f"sizes={list(sizes)}: numbers of clusters from 1 to {len(points)} are needed")
        tree = linkage(points, method="average")
        labels = {size: fcluster(tree, size, criterion="maxclust") for size in wanted}
        pairs = _undecided(labels[wanted[0]], labels[wanted[-1]], most, np.random.default_rng(self._seed))
        prompt = prompt_named("together")
        together = [
            self._chance_yes(prompt.render([texts[i], texts[j]], criterion=self._criterion))
            + self._chance_yes(prompt.render([texts[j], texts[i]], criterion=self._criterion))
            > 1.0
            for i, j in pairs
        ]
        agreement = {
            size: _f_measure([bool(labels[size][i] == labels[size][j]) for i, j in pairs], together) for size in wanted
        }
        best = max(wanted, key=lambda size: (agreement[size], -size))
        return Granularity(best, agreement, len(pairs))

    def reassign(self, texts: Sequence[str], vectors: ArrayLike, labels: ArrayLike, *, most: int = 256) -> NDArray[Any]:
        """Move the texts in doubt to the cluster that the answers say.

        Args:
            texts: All texts.
            vectors: Their vectors, (N, D).
            labels: Cluster of each, (N,).
            most: Largest number of questions.

        Returns:
            New labels, (N,).
        """
        given = np.array(labels)
        moved = given.copy()
        for question, is_first in self.ask(texts, self.questions(vectors, given, most=most)):
            moved[question.text] = given[question.first if is_first else question.second]
        return moved

    def names(self, texts: Sequence[str], vectors: ArrayLike, labels: ArrayLike) -> dict[Any, str]:
        """Name clusters by the texts nearest to their centres.

        Args:
            texts: All texts.
            vectors: Their vectors, (N, D).
            labels: Cluster of each, (N,).

        Returns:
            Label -> name; empty where no answer could be read.
        """
        points, given = _vectors(vectors), np.asarray(labels)
        prompt = prompt_named("name")
        asked = {}
        for label in np.unique(given):
            members = np.flatnonzero(given == label)
            centre = points[members].mean(axis=0)
            near = members[np.argsort(((points[members] - centre) ** 2).sum(axis=1), kind="stable")[:_SHOWN]]
            asked[label.item()] = prompt.render(["\n".join(texts[i] for i in near)], criterion=self._criterion)
        answers = [read_answer(raw, prompt.answer) for raw in self.generator.generate(list(asked.values()))]
        return {label: answer["name"] if answer else "" for label, answer in zip(asked, answers, strict=True)}

    def _first(self, prompt: str) -> float:
        first, second = self.generator.score(prompt, ("first", "second"))
        return first - second

    def _chance_yes(self, prompt: str) -> float:
        yes, no = self.generator.score(prompt, ("yes", "no"))
        return float(1 / (1 + np.exp(np.clip(no - yes, -50, 50))))


def assignment_chances(vectors: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Say how likely each text is in each cluster, by its distance to the centres.

    ``p_ik`` is proportional to ``1 / (1 + |x_i - m_k|^2)``, Student's t with one degree of freedom.

    Args:
        vectors: Vectors, (N, D).
        labels: Cluster of each, from 0 on without gaps, (N,).

    Returns:
        Rows that sum to one, (N, C).
    """
    centres = np.stack([vectors[labels == each].mean(axis=0) for each in range(int(labels.max()) + 1)])  # (C, D)
    squares = ((vectors[:, None, :] - centres[None]) ** 2).sum(axis=2)  # (N, C)
    near = 1 / (1 + squares)
    return np.asarray(near / near.sum(axis=1, keepdims=True))


def assignment_entropy(vectors: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Measure how unsure the assignment of each vector to its cluster is.

    A vector between two clusters says most when somebody tells which it belongs to. The entropy is that of the chances
    of the clusters, ``p_ik`` proportional to ``1 / (1 + |x_i - m_k|^2)`` with ``m_k`` the mean of cluster k, over the
    nearest two per cent of the clusters, at least two:
    ``H_i = - sum_k p_ik log p_ik``.

    Args:
        vectors: One vector a row.
        labels: Cluster of each; any whole numbers or texts.

    Shape:
        vectors (N, D) float, labels (N,) -> (N,) float

    Returns:
        Entropy of each, in nats, from 0 to log of the number of clusters that are looked at.

    Raises:
        InputError: vectors hold NaN or infinity or are no matrix, the lengths differ, or there is one cluster only.

    Example:
        >>> vectors = [[0.0, 0.0], [2.0, 0.0], [1.0, 0.0]]
        >>> assignment_entropy(vectors[:2], [0, 1]).round(3).tolist()
        [0.451, 0.451]

    References:
        Zhang et al. (2023), ClusterLLM: Large Language Models as a Guide for Text Clustering, arXiv:2305.14871v2,
        equations 1 and 2, named by the survey of card 7, arXiv:2412.09165v3, section 3.3; official code
        zhang-yu-wei/ClusterLLM (read, not copied).
    """
    points, places = _checked(vectors, labels)
    return _entropy(assignment_chances(points, places))


def _entropy(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    looked_at = max(2, round(0.02 * chances.shape[1]))
    near = -np.sort(-chances, axis=1)[:, :looked_at]
    near = near / near.sum(axis=1, keepdims=True)
    return np.asarray(-(near * np.log(near)).sum(axis=1))


def _vectors(vectors: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(vectors, dtype=np.float64)
    if points.ndim != 2 or not len(points) or not np.isfinite(points).all():
        raise InputError(f"vectors of shape {points.shape}: a matrix (N, D) of finite numbers is needed")
    return points


def _checked(vectors: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[Any]]:
    points, given = _vectors(vectors), np.asarray(labels)
    if given.shape != (len(points),):
        raise InputError(f"labels of shape {given.shape}: one for each of {len(points)} vectors is needed")
    known, places = np.unique(given, return_inverse=True)
    if len(known) < 2:
        raise InputError("labels name one cluster: at least two are needed for a doubt between them")
    return points, places


def _undecided(coarse: ArrayLike, fine: ArrayLike, most: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw pairs that the coarse clusters put together and the fine ones part."""
    one, many = np.asarray(coarse), np.asarray(fine)
    first, second = np.triu_indices(len(one), k=1)
    open_pairs = np.flatnonzero((one[first] == one[second]) & (many[first] != many[second]))
    drawn = np.sort(rng.permutation(open_pairs)[:most])
    return [(int(first[i]), int(second[i])) for i in drawn]


def _f_measure(predicted: Sequence[bool], true: Sequence[bool]) -> float:
    """F-measure of "together"; of "apart" too, so that answers that are all no can be fitted."""
    scores = []
    for side in (True, False):
        hits = sum(p is t is side for p, t in zip(predicted, true, strict=True))
        total = sum(p is side for p in predicted) + sum(t is side for t in true)
        if total:
            scores.append(2 * hits / total)
    return sum(scores) / len(scores) if scores else 1.0
