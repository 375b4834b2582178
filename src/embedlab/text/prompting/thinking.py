"""Think, then embed: a language model writes what an answer could look like, and that is what is searched with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedlab._core.errors import InputError
from embedlab.models.encoder import Encoder, checked_texts, unit_rows

if TYPE_CHECKING:
    from embedlab.text.synthesis.generators import TextGenerator

Thought = Literal["hyde", "query2doc", "think"]

_PROMPTS: dict[str, str] = {
    "hyde": "Write a short passage that answers the question.\n<query>{query}</query>\nPassage:",
    "query2doc": "Write a short passage that answers the question.\n<query>{query}</query>\nPassage:",
    "think": "Think about what a text that answers the question must say, in two sentences.\n<query>{query}</query>\n"
    "Thought:",
}


class ThinkingEncoder:
    """Encode queries by what a language model makes of them; documents as before.

    - ``"hyde"``: the mean of the query's vector and those of passages that could answer it, encoded as documents.
    - ``"query2doc"``: the vector of the query, said ``repeats`` times so that it keeps its weight, and a passage behind
      it.
    - ``"think"``: the vector of the query with a thought behind it.

    Args:
        encoder: Who encodes.
        generator: Who writes; see ``embedlab.text.synthesis``.
        thought: Which of the three.
        num_passages: Passages per query, at least 1.
        repeats: How often ``"query2doc"`` says the query.
        max_tokens: Longest passage.
        seed: Of what is written.

    Attributes:
        name: The encoder's name and the thought's.
        dim: Length of the vectors.

    Raises:
        InputError: a value is out of range.

    References:
        Gao et al. (2022), Precise Zero-Shot Dense Retrieval without Relevance Labels, arXiv:2212.10496v1.
        Wang et al. (2023), Query2doc, arXiv:2303.07678v2.
    """

    def __init__(
        self,
        encoder: Encoder,
        generator: TextGenerator,
        *,
        thought: Thought = "hyde",
        num_passages: int = 1,
        repeats: int = 3,
        max_tokens: int = 96,
        seed: int = 0,
    ) -> None:
        if thought not in get_args(Thought):
            raise InputError(f"thought={thought!r}: expected one of {', '.join(get_args(Thought))}")
        for argument, value in (("num_passages", num_passages), ("repeats", repeats), ("max_tokens", max_tokens)):
            if value < 1:
                raise InputError(f"{argument}={value}: must be at least 1")
        self.encoder, self.generator, self.thought = encoder, generator, thought
        self.name, self.dim = f"{encoder.name}+{thought}", encoder.dim
        self._num_passages, self._repeats, self._max_tokens, self._seed = num_passages, repeats, max_tokens, seed

    @property
    def fingerprint(self) -> str:
        """The encoder's own: documents are encoded as it encodes them, and a collection of them can be searched."""
        return self.encoder.fingerprint

    def encode_document(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Encode documents as the encoder does."""
        return self.encoder.encode_document(texts, batch_size=batch_size, on_progress=on_progress)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries by what is written for them; unit rows, the zero row for a blank text."""
        queries = checked_texts(texts)
        asked = [place for place, query in enumerate(queries) if query.strip()]
        rows = np.zeros((len(queries), self.dim), dtype=np.float32)
        own = self.encoder.encode_query([queries[place] for place in asked])
        total = own.copy() if self.thought == "hyde" else np.zeros_like(own)
        for turn in range(self._num_passages):
            prompts = [_PROMPTS[self.thought].format(query=queries[place]) for place in asked]
            written = self.generator.generate(prompts, max_tokens=self._max_tokens, seed=self._seed + turn)
            if self.thought == "hyde":
                total += self.encoder.encode_document(written)
            else:
                times = self._repeats if self.thought == "query2doc" else 1
                total += self.encoder.encode_query(
                    [" ".join([queries[place]] * times + [text]) for place, text in zip(asked, written, strict=True)]
                )
        rows[asked] = total
        return unit_rows(rows)
