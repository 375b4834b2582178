"""Kind ``concept``: a learned or edited state on a diffusers pipeline.

Promise: only the named parameters change; switching it off restores the same image; loading it again as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedlab.testing.contract import (
    Contract,
    Make,
    Refusal,
    check_refuses,
    demand,
    demand_close,
    frozen_copy,
    random_state_kept,
    same_bits,
)

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ConceptExample:
    """A concept with a pipeline small enough to draw in a second.

    Attributes:
        pipeline: The pipeline, without the concept.
        parameters: The pipeline's parameters by dotted name, as they are now.
        changes: Names (or their beginnings) of the parameters that the concept may change.
        learn: Makes the concept from the example's data; leaves the pipeline as it was.
        enable: Puts the concept on the pipeline.
        disable: Takes it off again.
        draw: Draws with the concept's prompt and a fixed seed: pixels (H, W, 3), in [0, 1].
        save: Writes the concept to a folder.
        load: Reads it from there.
        refuses: Bad values and what they must raise.
    """

    pipeline: Any
    parameters: Callable[[Any], dict[str, Any]]
    changes: tuple[str, ...]
    learn: Callable[[Any], Any]
    enable: Callable[[Any, Any], None]
    disable: Callable[[Any, Any], None]
    draw: Callable[[Any], Array]
    save: Callable[[Any, Path], None]
    load: Callable[[Path], Any]
    refuses: tuple[Refusal, ...]


def check_learning_leaves_pipeline(make: Make[ConceptExample]) -> None:
    """Learning leaves the pipeline's parameters and the global random states as they were."""
    example = make(0)
    before = frozen_copy(example.parameters(example.pipeline))
    with random_state_kept("learning"):
        example.learn(example.pipeline)
    demand(same_bits(before, frozen_copy(example.parameters(example.pipeline))), "learning changed the pipeline")


def check_only_named_change(make: Make[ConceptExample]) -> None:
    """Switched on, it changes some of the named parameters, and no other."""
    example = make(0)
    before = frozen_copy(example.parameters(example.pipeline))
    example.enable(example.pipeline, example.learn(example.pipeline))
    after = frozen_copy(example.parameters(example.pipeline))
    changed = [name for name in before.keys() | after.keys() if not same_bits(before.get(name), after.get(name))]
    others = [name for name in changed if not name.startswith(example.changes)]
    demand(not others, f"parameters changed that are not named: {', '.join(sorted(others)[:3])}")
    demand(changed or not example.changes, "none of the named parameters changed")


def check_has_effect(make: Make[ConceptExample]) -> None:
    """The image is made of finite pixels in [0, 1], and another with the concept than without."""
    example = make(0)
    plain = example.draw(example.pipeline)
    demand(np.isfinite(plain).all() and plain.min() >= 0 and plain.max() <= 1, "pixels are not all in [0, 1]")
    example.enable(example.pipeline, example.learn(example.pipeline))
    demand(
        not np.allclose(example.draw(example.pipeline), plain, atol=1e-4), "the concept changes nothing in the image"
    )


def check_disable_restores(make: Make[ConceptExample]) -> None:
    """Switched off, every parameter and the image are what they were, to the last bit."""
    example = make(0)
    plain, before = example.draw(example.pipeline).copy(), frozen_copy(example.parameters(example.pipeline))
    concept = example.learn(example.pipeline)
    example.enable(example.pipeline, concept)
    example.disable(example.pipeline, concept)
    demand(same_bits(before, frozen_copy(example.parameters(example.pipeline))), "a parameter was not restored")
    demand(same_bits(plain, example.draw(example.pipeline)), "the image after switching off is another")


def check_reload(make: Make[ConceptExample]) -> None:
    """Saved, loaded and put on a fresh pipeline, it gives the same image."""
    example, fresh = make(0), make(0)
    concept = example.learn(example.pipeline)
    example.enable(example.pipeline, concept)
    with tempfile.TemporaryDirectory() as folder:
        example.save(concept, Path(folder))
        fresh.enable(fresh.pipeline, fresh.load(Path(folder)))
    drawn, again = example.draw(example.pipeline), fresh.draw(fresh.pipeline)
    demand_close(again, drawn, "image of the loaded concept", atol=1e-6)


def check_seeded(make: Make[ConceptExample]) -> None:
    """One seed gives one concept: the same image."""
    images = []
    for example in (make(0), make(0)):
        example.enable(example.pipeline, example.learn(example.pipeline))
        images.append(example.draw(example.pipeline))
    demand(same_bits(*images), "two concepts learned with one seed draw different images")


CONTRACT = Contract(
    "concept",
    ConceptExample,
    (
        check_learning_leaves_pipeline,
        check_only_named_change,
        check_has_effect,
        check_disable_restores,
        check_reload,
        check_seeded,
        check_refuses,
    ),
)
