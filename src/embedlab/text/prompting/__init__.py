"""Embeddings from a frozen causal language model by prompts (PromptEOL, Echo, MetaEOL, PromptReps and others).

A language model has to sum a text up before it can go on, if the prompt leaves it no other way: "This sentence means in
one word:". The state of that last token is a vector of the text, without any training. Causal attention is the other
hurdle, since early words never see late ones; saying the text twice takes it, and the second copy is pooled.

    encoder = PromptEmbedder("a-causal-language-model", method="eol", layer=-2).fit(some_texts, fix="centre")
    vectors = encoder.encode_document(texts)
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from embedlab.text.prompting.embedder import PromptEmbedder
from embedlab.text.prompting.late_chunking import late_chunks
from embedlab.text.prompting.module import PromptModule
from embedlab.text.prompting.sparse import fuse_scores, sparse_weights
from embedlab.text.prompting.templates import Template, Templates, load_templates
from embedlab.text.prompting.thinking import ThinkingEncoder
from embedlab.text.prompting.whitening import whitening, whitening_module

if TYPE_CHECKING:
    from embedlab.testing.module import ModuleExample

__all__ = [
    "PromptEmbedder",
    "PromptModule",
    "Template",
    "Templates",
    "ThinkingEncoder",
    "example",
    "fuse_scores",
    "late_chunks",
    "load_templates",
    "sparse_weights",
    "whitening",
    "whitening_module",
]

METHOD = {
    "card": 38,
    "title": "LLMs are Also Effective Embedding Models: An In-depth Overview",
    "authors": "Chongyang Tao, Tao Shen, Shen Gao, Junshuo Zhang, Zhen Li, Kai Hua, Wenpeng Hu, Zhengwei Tao, Shuai Ma",
    "year": 2024,
    "source": "arXiv:2412.12591v2",
    "kinds": {"module": "PromptModule"},
    "extras": ["train"],
    "official_code": None,
    "deviations": [
        "The survey has no code of its own; each technique follows the paper it cites, with prompts in our own words "
        "but for the one-word limitation and the chain of thought, which are short formulae.",
        "Marks that a tokenizer puts after a text are never fed: the vector is the state of the prompt's last token.",
        "The slot of token prepending starts as the mask token or an underscore, not as a random vector, so that the "
        "same text always gets the same vector.",
        "Sparse weights keep the tokens of the text as they are; PromptReps lower-cases and drops stop words first.",
    ],
    "known_failures": [
        "A prompt that asks for one word needs a model that has read such prompts: tiny language models have not.",
        "Prompts of several tasks cost as many passes as there are tasks, and echo twice the tokens.",
        "Tokenizers that are not fast tell no offsets and are refused.",
    ],
}


def example(seed: int = 0) -> dict[str, ModuleExample]:
    """Make the smallest ready instance: a tiny decoder that pools the second copy of each text.

    Args:
        seed: Decides the weights.

    Returns:
        ``{"module": ...}`` for the contract of that kind.
    """
    from embedlab.testing.contract import Refusal
    from embedlab.testing.module import ModuleExample
    from embedlab.testing.tiny_decoder import save_tiny_decoder

    texts = ["a cat", "a cat sat on the mat", "the dog ran away from the cat on the mat"]
    known = load_templates()
    with tempfile.TemporaryDirectory() as folder:
        save_tiny_decoder(folder, texts=texts, seed=seed, max_length=96)
        opened = PromptEmbedder(folder, method="echo")
    module: PromptModule = opened.host[0]

    def refused(**options: object) -> PromptModule:
        return PromptModule(module.model, module.tokenizer, **{"templates": known.of("eol"), **options})  # type: ignore[arg-type]

    return {
        "module": ModuleExample(
            module=module,
            features=module.preprocess(texts),
            output="sentence_embedding",
            width=32,
            load=PromptModule.load,
            refuses=(
                Refusal(lambda: refused(layer=9), "layer=9"),
                Refusal(lambda: refused(weights=[0.5, 0.5]), "weights"),
                Refusal(lambda: refused(templates=[]), "templates"),
                Refusal(lambda: refused(slot_layers=5), "slot_layers=5"),
                Refusal(lambda: refused(padding_side="top"), "padding_side"),
                Refusal(lambda: refused(demos=[("a cat", "cat")], templates=known.of("echo")), "demos"),
                Refusal(lambda: refused(max_seq_length=4).preprocess(texts), "max_length=4"),
                Refusal(lambda: known.of("eoll"), "eol"),
                Refusal(lambda: Template("{text} in a word:", "end", end='"'), "end"),
            ),
        )
    }
