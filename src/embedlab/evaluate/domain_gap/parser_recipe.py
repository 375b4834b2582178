"""How the shipped parser was made: spaCy's blank English and a parser, trained on UD English EWT.

``python -m embedlab.evaluate.domain_gap.parser_recipe`` makes it again from ``EMBEDLAB_DATA`` and writes its card with
the attachment scores on the test part. Trained on the dev part (the train part is not among the data sets), so it is a
small parser; nothing of the test part is seen.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab._core.files import atomic_folder
from embedlab.data.loaders import Tree, load_ewt
from embedlab.evaluate.domain_gap.dependency import PARSER_FOLDER, dependency_distance

_log = logging.getLogger(__name__)

_WIDTH = 64
_BATCH = 16
_CONFIG = f"""
[nlp]
lang = "en"
pipeline = ["tok2vec", "tagger", "parser"]

[components]

[components.tok2vec]
factory = "tok2vec"
[components.tok2vec.model]
@architectures = "spacy.Tok2Vec.v2"
[components.tok2vec.model.embed]
@architectures = "spacy.MultiHashEmbed.v2"
width = {_WIDTH}
attrs = ["NORM", "PREFIX", "SUFFIX", "SHAPE"]
rows = [3000, 500, 1000, 500]
include_static_vectors = false
[components.tok2vec.model.encode]
@architectures = "spacy.MaxoutWindowEncoder.v2"
width = {_WIDTH}
window_size = 1
maxout_pieces = 3
depth = 4

[components.tagger]
factory = "tagger"
[components.tagger.model]
@architectures = "spacy.Tagger.v2"
[components.tagger.model.tok2vec]
@architectures = "spacy.Tok2VecListener.v1"
width = {_WIDTH}

[components.parser]
factory = "parser"
[components.parser.model]
@architectures = "spacy.TransitionBasedParser.v2"
state_type = "parser"
extra_state_tokens = false
hidden_width = 64
maxout_pieces = 2
use_upper = true
[components.parser.model.tok2vec]
@architectures = "spacy.Tok2VecListener.v1"
width = {_WIDTH}
"""


def train(trees: Sequence[Tree], *, epochs: int = 12, seed: int = 0) -> Any:
    """Train a parser, with a tagger beside it that makes the shared layers better and is then dropped.

    Args:
        trees: Sentences with gold dependencies.
        epochs: Passes over them, at least 1.
        seed: Decides initial weights, order and dropout.

    Returns:
        A spaCy pipeline of a ``tok2vec`` and a ``parser``.

    Raises:
        InputError: ``trees`` are empty or ``epochs`` is below 1.
        MissingExtraError: spaCy is not installed.
    """
    if not trees or epochs < 1:
        raise InputError(f"trees ({len(trees)}) must not be empty and epochs={epochs} at least 1")
    spacy = require("spacy", extra="evaluate")
    from spacy.util import load_config_from_str
    from thinc.api import Adam, warmup_linear

    pipeline = spacy.util.load_model_from_config(load_config_from_str(_CONFIG, interpolate=True), auto_fill=True)
    examples = list(_examples(pipeline, trees))
    steps = epochs * -(-len(examples) // _BATCH)
    rate: Any = warmup_linear(2e-3, steps // 20, steps)
    optimizer = Adam(rate, L2=0.01, grad_clip=1.0)
    order = random.Random(seed)
    with _borrowed_random_state(seed):
        pipeline.initialize(lambda: examples, sgd=optimizer)
        for epoch in range(epochs):
            started, losses = time.perf_counter(), dict.fromkeys(pipeline.pipe_names, 0.0)
            order.shuffle(examples)
            for start in range(0, len(examples), _BATCH):
                batch = examples[start : start + _BATCH]
                pipeline.update(batch, sgd=optimizer, drop=0.2, losses=losses)
                optimizer.step_schedules()
            _log.info("epoch %d: parser loss %.0f, %.1f s", epoch + 1, losses["parser"], time.perf_counter() - started)
    for _, component in pipeline.pipeline:
        component.model.use_params(optimizer.averages).__enter__()  # the mean of all steps, for good
    pipeline.remove_pipe("tagger")
    return pipeline


def attachment(pipeline: Any, trees: Sequence[Tree]) -> dict[str, float]:
    """Parse gold words and compare heads.

    Args:
        pipeline: A spaCy pipeline with a parser.
        trees: Sentences with gold dependencies.

    Returns:
        Share of words, without punctuation, with the right head (``uas``) and also the right relation (``las``); share
        of all words with the right head (``uas_all``); mean dependency distance of the parses (``mdd``) and of the gold
        trees (``mdd_gold``).
    """
    right = labelled = counted = right_all = total = 0
    parsed: list[Tree] = []
    words = [_document(pipeline, tree) for tree in trees]
    for tree, document in zip(trees, pipeline.pipe(words), strict=True):
        heads = tuple(token.head.i for token in document)
        relations = tuple(token.dep_ for token in document)
        for place, gold in enumerate(tree.heads):
            hit = heads[place] == gold
            right_all, total = right_all + hit, total + 1
            if tree.relations[place] != "punct":
                right, counted = right + hit, counted + 1
                labelled += hit and relations[place].lower() == tree.relations[place].split(":")[0]
        kept = tuple("punct" if gold == "punct" else name for gold, name in zip(tree.relations, relations, strict=True))
        parsed.append(Tree(tree.words, heads, kept, tree.tags, tree.spaces))
    return {
        "uas": right / counted,
        "las": labelled / counted,
        "uas_all": right_all / total,
        "mdd": dependency_distance(parsed).mean,
        "mdd_gold": dependency_distance(trees).mean,
    }


def save(pipeline: Any, folder: Path, *, scores: dict[str, float]) -> None:
    """Write the pipeline without what parsing does not need, and its card.

    Args:
        pipeline: What ``train`` gave.
        folder: Where to; replaced as a whole.
        scores: What ``attachment`` gave.
    """
    pipeline.meta.update(name="embedlab_ewt_small", version="1.0.0", license="CC BY-SA 4.0", description=_TITLE)
    pipeline.meta.update(spacy_version=">=3.8.0,<4.0.0")
    with atomic_folder(folder) as fresh:
        pipeline.to_disk(fresh, exclude=["lookups", "vectors"])
        (fresh / "README.md").write_text(_card(scores), encoding="utf-8")


def main() -> None:
    """Make the parser, print its scores, write it where the package looks for it."""
    words = argparse.ArgumentParser(prog="python -m embedlab.evaluate.domain_gap.parser_recipe", description=_TITLE)
    words.add_argument("--epochs", type=int, default=12)
    words.add_argument("--out", type=Path, default=PARSER_FOLDER)
    given = words.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipeline = train(load_ewt("dev"), epochs=given.epochs)
    scores = attachment(pipeline, load_ewt("test"))
    save(pipeline, given.out, scores=scores)
    size = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file())
    _log.info("%s; %.2f MB in %s", ", ".join(f"{k} {v:.3f}" for k, v in scores.items()), size / 1e6, given.out)


@contextmanager
def _borrowed_random_state(seed: int) -> Iterator[None]:
    """The host draws from the global states: seed them inside, put them back after."""
    from thinc.api import fix_random_seed

    python, numbers = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002 - kept, to be put back
    try:
        fix_random_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002


def _examples(pipeline: Any, trees: Sequence[Tree]) -> Iterator[Any]:
    from spacy.tokens import Doc
    from spacy.training import Example

    for tree in trees:
        gold = Doc(
            pipeline.vocab,
            words=list(tree.words),
            spaces=list(tree.spaces),
            heads=list(tree.heads),
            deps=["ROOT" if name == "root" else re.sub(":.*", "", name) for name in tree.relations],
            tags=list(tree.tags),
        )
        yield Example(_document(pipeline, tree), gold)


def _document(pipeline: Any, tree: Tree) -> Any:
    from spacy.tokens import Doc

    return Doc(pipeline.vocab, words=list(tree.words), spaces=list(tree.spaces))


_TITLE = "Small dependency parser for English, trained on UD English EWT, to compare the syntax of data sets"


def _card(scores: dict[str, float]) -> str:
    return f"""# {_TITLE}

A spaCy pipeline (`tok2vec`, `parser`) in spaCy's own form: configuration, JSON and msgpack, nothing pickled.
`embedlab.evaluate.domain_gap.SpacyParser()` loads it; to remake it:
`python -m embedlab.evaluate.domain_gap.parser_recipe`.

| Measured on the test part of UD English EWT, gold words | |
| --- | --- |
| Unlabelled attachment (UAS), without punctuation | {scores["uas"]:.3f} |
| The same with punctuation | {scores["uas_all"]:.3f} |
| Labelled attachment (LAS, main relation), without punctuation | {scores["las"]:.3f} |
| Mean dependency distance of its parses / of the gold trees | {scores["mdd"]:.3f} / {scores["mdd_gold"]:.3f} |

**Data.** The 2,001 sentences of the dev part of UD_English-EWT (Silveira et al. 2014, A Gold Standard Dependency Corpus
for English; UniversalDependencies/UD_English-EWT), CC BY-SA 4.0. The weights are derived from it and are under
[CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/) as well, unlike the code around them.

**For.** Comparing mean dependency distance between data sets that are parsed by it alike. **Not for** studying single
sentences, or languages other than English. Parsing errors grow with sentence length and lengthen the measured distance.
"""


if __name__ == "__main__":
    main()
