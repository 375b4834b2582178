"""Kind ``surgery``: a model in, a changed model out (extend, fold, merge, transfer, split).

Promise: the input model is untouched; the result has the same ``encode``; the neutral setting is the identity; it can
be undone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedlab._core.extras import require
from embedlab.testing.contract import (
    Contract,
    Make,
    Refusal,
    as_array,
    check_refuses,
    demand,
    demand_close,
    frozen_copy,
    precisions,
    random_state_kept,
    same_bits,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    Operation = Callable[[SentenceTransformer], SentenceTransformer]


@dataclass(frozen=True, slots=True)
class SurgeryExample:
    """An operation on a model, with texts to see its effect on.

    Attributes:
        model: The model to operate on, on the CPU in float32 (``embedlab.testing.tiny``).
        apply: The operation: returns a changed model and leaves its argument alone.
        texts: At least four texts of different lengths.
        refuses: Bad values and what they must raise.
        neutral: The operation at the setting that changes nothing, or None where there is none (say why in METHOD).
        restore: Undoes ``apply``: takes its result, returns a model with the original bits; None where it is a one-way
            operation (merging, for example).
        load: Opens a saved result from a folder; the host's own loader by default.
        changes_vectors: False for operations that must keep every vector (a lossless split, for example).
        half_atol: Absolute tolerance of the vectors in bfloat16, or None where half precision is not claimed.
    """

    model: SentenceTransformer
    apply: Operation
    texts: Sequence[str]
    refuses: tuple[Refusal, ...]
    neutral: Operation | None = None
    restore: Operation | None = None
    load: Callable[[str], SentenceTransformer] | None = None
    changes_vectors: bool = True
    half_atol: float | None = None


def check_input_untouched(make: Make[SurgeryExample]) -> None:
    """Operating leaves the given model, bit for bit, and the global random states as they were."""
    example = make(0)
    weights, vectors = frozen_copy(dict(example.model.state_dict())), _encode(example.model, example.texts)
    with random_state_kept("the operation"):
        changed = example.apply(example.model)
    demand(changed is not example.model, "apply returned the model it was given: it must return a new one")
    demand(same_bits(weights, dict(example.model.state_dict())), "apply changed the weights of the model it was given")
    demand(same_bits(vectors, _encode(example.model, example.texts)), "the given model encodes differently afterwards")


def check_encodes(make: Make[SurgeryExample]) -> None:
    """The result encodes texts to finite rows, other than before where it should."""
    example = make(0)
    before, after = _encode(example.model, example.texts), _encode(example.apply(example.model), example.texts)
    demand(after.ndim == 2 and len(after) == len(example.texts), f"encode gives shape {after.shape}, not (N, D)")
    demand(np.isfinite(after).all(), "encode gives values that are not finite")
    same = after.shape == before.shape and np.allclose(after, before, atol=1e-6)
    if example.changes_vectors:
        demand(not same, "apply has no effect on the vectors")
    else:
        demand(same, "apply changed the vectors though changes_vectors is False")


def check_neutral_is_identity(make: Make[SurgeryExample]) -> None:
    """At the neutral setting every vector stays as it was."""
    example = make(0)
    if example.neutral is not None:
        vectors = _encode(example.neutral(example.model), example.texts)
        demand_close(vectors, _encode(example.model, example.texts), "vectors at the neutral setting", atol=1e-6)


def check_restorable(make: Make[SurgeryExample]) -> None:
    """Undoing gives back the original parameters to the last bit."""
    example = make(0)
    if example.restore is not None:
        restored = example.restore(example.apply(example.model))
        original = dict(example.model.named_parameters())
        back = dict(restored.named_parameters())
        demand(original.keys() == back.keys(), f"restored parameters differ by name: {original.keys() ^ back.keys()}")
        wrong = [name for name in original if not same_bits(frozen_copy(original[name]), frozen_copy(back[name]))]
        demand(not wrong, f"restored parameters differ from the original: {', '.join(wrong[:3])}")


def check_save_load(make: Make[SurgeryExample]) -> None:
    """The result, saved and loaded again, gives the same vectors."""
    host = require("sentence_transformers", extra="train")
    example = make(0)
    changed = example.apply(example.model)
    load = example.load or (lambda folder: host.SentenceTransformer(folder, device="cpu", local_files_only=True))
    with tempfile.TemporaryDirectory() as folder:
        changed.save(folder)
        vectors = _encode(load(folder), example.texts)
    demand_close(vectors, _encode(changed, example.texts), "vectors after saving and loading", atol=1e-6)


def check_row_alone(make: Make[SurgeryExample]) -> None:
    """One text alone gives the row it has among many."""
    example = make(0)
    changed = example.apply(example.model)
    alone = np.concatenate([_encode(changed, [text]) for text in example.texts])
    demand_close(alone, _encode(changed, example.texts), "texts encoded one by one")


def check_deterministic(make: Make[SurgeryExample]) -> None:
    """The same operation on the same model gives the same vectors."""
    first, second = make(0), make(0)
    left, right = (_encode(one.apply(one.model), one.texts) for one in (first, second))
    demand(same_bits(left, right), "two runs with one seed give different vectors")


def check_precision(make: Make[SurgeryExample]) -> None:
    """On a double-precision model, and in half where claimed, the result is the same within the lesser precision."""
    example = make(0)
    single = _encode(example.apply(example.model), example.texts)
    for dtype, atol in precisions(example.half_atol):
        twin = make(0)
        changed = twin.apply(twin.model.to(dtype))
        found = {str(p.dtype) for p in changed.parameters()}
        demand(found == {str(dtype)}, f"a {dtype} model came back with {', '.join(sorted(found))}")
        demand_close(_encode(changed, twin.texts), single, f"vectors in {dtype} against float32", atol=atol, rtol=1e-3)


def _encode(model: SentenceTransformer, texts: Sequence[str]) -> NDArray[Any]:
    vectors = model.encode(list(texts), convert_to_numpy=False, convert_to_tensor=True, show_progress_bar=False)
    return as_array(vectors).copy()


CONTRACT = Contract(
    "surgery",
    SurgeryExample,
    (
        check_input_untouched,
        check_encodes,
        check_neutral_is_identity,
        check_restorable,
        check_save_load,
        check_row_alone,
        check_deterministic,
        check_precision,
        check_refuses,
    ),
)
