"""Prompts whose examples are chosen by depth, for any language model that is a function from text to text.

The examples that stand for their label are the deepest of it (``embedlab.understand.tte_depth.select_exemplars``);
random and label-balanced random choices are the baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from embedlab._core.errors import InputError
from embedlab.understand.tte_depth import select_exemplars
from embedlab.understand.tte_depth.exemplars import Strategy


@dataclass(frozen=True, slots=True)
class FewShotPrompt:
    """An instruction with examples, waiting for a text.

    Attributes:
        instruction: What is asked, before the examples.
        examples: Texts with their labels, in the order in which they are shown.
        labels: Every label there is, in order of first appearance.
        rows: Rows of the examples among the candidates.
    """

    instruction: str
    examples: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    rows: tuple[int, ...]

    def for_text(self, text: str) -> str:
        """Return the whole prompt for a text; each text and label is kept on a line of its own.

        Args:
            text: The text to label.
        """
        parts = [self.instruction, *(f"Text: {_line(shown)}\nLabel: {label}" for shown, label in self.examples)]
        return "\n\n".join([*parts, f"Text: {_line(text)}\nLabel:"])

    def read(self, answer: str) -> str | None:
        """Find the label in a model's answer.

        Args:
            answer: What the model said.

        Returns:
            The label that the first line begins with, or is the only one it holds, whatever the case; None otherwise.
        """
        lines = [line.strip() for line in answer.splitlines() if line.strip()]
        said = lines[0].casefold().removeprefix("label:").strip(" \t\"'`.*") if lines else ""
        begins = [label for label in self.labels if said.startswith(label.casefold())]
        if begins:
            return max(begins, key=len)  # "card lost", not "card"
        held = [label for label in self.labels if label.casefold() in said]
        return held[0] if len(held) == 1 else None


def few_shot_prompt(
    texts: Sequence[str],
    labels: Sequence[str],
    embeddings: ArrayLike,
    *,
    k: int = 1,
    strategy: Strategy = "deep",
    balanced: bool = True,
    instruction: str | None = None,
    seed: int = 0,
) -> FewShotPrompt:
    """Choose examples by depth and make a prompt of them.

    Args:
        texts: Candidates.
        labels: Label of each.
        embeddings: Vector of each.
        k: Examples for each label if ``balanced``, otherwise in all.
        strategy: As in ``select_exemplars``: ``"deep"``, ``"shallow"``, ``"random"`` or ``"deep_diverse"``.
        balanced: Measure depth within each label and take ``k`` of each; otherwise over all candidates.
        instruction: What to ask; a request to give one of the labels by default.
        seed: Decides the random strategy.

    Shape:
        embeddings (N, D), texts and labels N -> FewShotPrompt

    Returns:
        The prompt; the deepest example comes last within its round, next to the text to label, and labels take turns.

    Raises:
        InputError: numbers of texts, labels and embeddings differ, a label is empty, or as for ``select_exemplars``.

    Example:
        >>> texts = ["lost my card", "card is gone", "what is the rate", "card lost"]
        >>> labels = ["card", "card", "rate", "card"]
        >>> rows = [[1.0, 0.1], [0.8, 0.3], [0.0, 1.0], [1.0, 0.2]]
        >>> print(few_shot_prompt(texts, labels, rows).for_text("my card!"))
        Give the label of the last text. The label is one of: card, rate.
        <BLANKLINE>
        Text: card lost
        Label: card
        <BLANKLINE>
        Text: what is the rate
        Label: rate
        <BLANKLINE>
        Text: my card!
        Label:

    References:
        Seegmiller and Preum (2023), arXiv:2310.15010v1, section 4.
    """
    if len(texts) != len(labels):
        raise InputError(f"texts has {len(texts)} entries and labels {len(labels)}: give one label per text")
    names = [str(label).strip() for label in labels]
    if not all(names):
        raise InputError(f"labels[{[bool(name) for name in names].index(False)}] is empty: every text needs a label")
    chosen = select_exemplars(embeddings, k, labels=names if balanced else None, strategy=strategy, seed=seed)
    if len(texts) <= int(chosen.max()):
        raise InputError(f"embeddings have more rows than the {len(texts)} texts: give one vector per text")
    rows = [int(row) for row in chosen]
    if balanced:  # label after label, best first -> rounds of all labels, the best round last
        rows = [rows[start + place] for place in reversed(range(k)) for start in range(0, len(rows), k)]
    else:
        rows.reverse()
    known = tuple(dict.fromkeys(names))
    asked = instruction or f"Give the label of the last text. The label is one of: {', '.join(known)}."
    return FewShotPrompt(asked, tuple((texts[row], names[row]) for row in rows), known, tuple(rows))


def label_texts(prompt: FewShotPrompt, texts: Iterable[str], ask: Callable[[str], str]) -> list[str | None]:
    """Have a language model label texts.

    Args:
        prompt: Instruction and examples.
        texts: The texts to label, one request each.
        ask: The model: a function from prompt to answer.

    Returns:
        A label per text; None where the answer names none, or several.

    Example:
        >>> prompt = FewShotPrompt("Which?", (("a cat", "animal"), ("an oak", "plant")), ("animal", "plant"), (0, 1))
        >>> label_texts(prompt, ["a dog", "a stone"], lambda asked: "Animal." if "dog" in asked else "neither")
        ['animal', None]
    """
    return [prompt.read(ask(prompt.for_text(text))) for text in texts]


def _line(text: str) -> str:
    return " ".join(text.split())
