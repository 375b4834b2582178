"""Self Positioning: train one model per task, then learn on a small balanced probe how to merge them.

One embedder trained on several data sets at once suffers from tasks that pull it in different directions, and from
large data sets that drown small ones. Models trained one by one from the same start do not; what each training added
is a *task vector*. Self Positioning finds the place in the space of these vectors that serves all tasks best: one
weight per vector and one scale, learned by SGD in a minute.

    result = SelfPositioning(base, {"sts": sts_model, "search": search_model}).fit(balanced_probe(data))
    result.model.save("merged")

Averaging, spherical interpolation, TIES, Fisher and RegMean are here as well (``merge_task_vectors``), as are the
analyses that say whether merging is worth trying (``task_conflict_report``, ``task_vector_report``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab.text.self_positioning.diagnosis import (
    Mixture,
    TaskConflict,
    TaskVectorReport,
    task_conflict_report,
    task_vector_report,
)
from embedlab.text.self_positioning.fold import coefficients
from embedlab.text.self_positioning.merging import merge_task_vectors
from embedlab.text.self_positioning.pipelines import train_separately, train_sequentially
from embedlab.text.self_positioning.probe import balanced_probe
from embedlab.text.self_positioning.recipes import JOINT, SELF_POSITIONING
from embedlab.text.self_positioning.resampling import PUBLISHED_RATIOS, resample
from embedlab.text.self_positioning.search import MergeResult, SelfPositioning
from embedlab.text.self_positioning.statistics import cocktail_weights, fisher_information, input_moments
from embedlab.text.self_positioning.vectors import TaskVector, angles, gram_matrix

if TYPE_CHECKING:
    from pathlib import Path

    from embedlab.testing.surgery import SurgeryExample
    from embedlab.testing.trainer import Trained, TrainerExample

__all__ = [
    "JOINT",
    "PUBLISHED_RATIOS",
    "SELF_POSITIONING",
    "MergeResult",
    "Mixture",
    "SelfPositioning",
    "TaskConflict",
    "TaskVector",
    "TaskVectorReport",
    "angles",
    "balanced_probe",
    "cocktail_weights",
    "coefficients",
    "example",
    "fisher_information",
    "gram_matrix",
    "input_moments",
    "merge_task_vectors",
    "resample",
    "task_conflict_report",
    "task_vector_report",
    "train_separately",
    "train_sequentially",
]

METHOD = {
    "card": 2,
    "title": "Improving General Text Embedding Model: Tackling Task Conflict and Data Imbalance through Model Merging",
    "authors": "Mingxin Li, Zhijie Nie, Yanzhao Zhang, Dingkun Long, Richong Zhang, Pengjun Xie",
    "year": 2024,
    "source": "arXiv:2410.15035v1",
    "kinds": {"surgery": "merge_task_vectors", "trainer": "SelfPositioning"},
    "recipes": {"self_positioning": "SELF_POSITIONING", "joint": "JOINT"},
    "extras": ["train"],
    "official_code": None,
    "deviations": [
        "One angle over all parameters is the default; the paper does not say if it is one per tensor, which is an "
        "option.",
        "A step of the search takes one batch of every data set of the probe and averages, so that each step is "
        "balanced.",
        "Weights are held above 0.001 and the scale above 0, or parametrised by softplus; the paper leaves them free.",
        "TIES trims over all entries that training changed, so frozen parameters do not count.",
        "Merging is a one-way operation: restoring the base from the result is not offered.",
    ],
    "known_failures": [
        "Models that were not trained from the same base cannot be merged in a meaningful way, and this cannot be seen "
        "from their shapes.",
        "The spherical fold depends on the order of the models; with equal weights the last one counts most.",
        "RegMean treats linear layers only; GPT-2's Conv1D layers and embeddings are averaged.",
    ],
}


def example(seed: int = 0) -> dict[str, SurgeryExample | TrainerExample]:
    """Make the smallest ready instances: a tiny encoder, two models at some distance from it, a probe of pairs.

    Args:
        seed: Decides the weights.

    Returns:
        Kind -> example, for the contract checks.
    """
    import copy

    import torch
    from datasets import Dataset

    from embedlab.testing.contract import Refusal
    from embedlab.testing.surgery import SurgeryExample
    from embedlab.testing.tiny import tiny_encoder
    from embedlab.testing.trainer import Trained, TrainerExample

    anchors = ["a cat sat", "the dog ran", "rain fell on the sea", "stocks rose", "a blue boat", "my card is late"] * 4
    anchors = [f"{text} {word}" for text, word in zip(anchors, "abcdefghijklmnopqrstuvwx", strict=True)]
    positives = [" ".join(reversed(text.split())) for text in anchors]
    model = tiny_encoder(anchors, seed=seed)

    def moved(base: Any, number: int, size: float) -> Any:
        """Stand in for a model trained from the base: the base with every weight a little elsewhere."""
        twin = copy.deepcopy(base)
        generator = torch.Generator().manual_seed(1000 * number + seed)
        with torch.no_grad():
            for parameter in twin.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                parameter.add_((size * noise).to(parameter.dtype))
        return twin

    def vectors(base: Any) -> list[TaskVector]:
        return [TaskVector.from_models(base, moved(base, number, 0.05), name=f"task {number}") for number in (1, 2)]

    probe = Dataset.from_dict({"anchor": anchors, "positive": positives})
    near, far = moved(model, 1, 0.01), tiny_encoder(anchors, seed=seed + 7)

    def search(method: str) -> Any:
        def train(folder: Path, *, seed: int, max_steps: int) -> Trained:
            found = SelfPositioning(model, {"near": near, "far": far}, method=method, scale=0.05).fit(
                probe, lr=0.3, epochs=max_steps, batch_size=8, max_steps=max_steps, seed=seed, folder=folder / method
            )
            steps = len(found.history)
            weights = {"weights": found.weights, "scale": found.coefficients * found.scale}
            return Trained(weights, steps, 8 * steps, tuple(row["loss"] for row in found.history[found.resumed :]))

        return train

    given = vectors(model)
    return {
        "surgery": SurgeryExample(
            model=model,
            apply=lambda base: merge_task_vectors(base, vectors(base), method="slerp", weights=[2.0, 1.0]),
            texts=["a cat", "the dog ran on the sea", "stocks rose", "my blue boat is late a b c d"],
            refuses=(
                Refusal(lambda: merge_task_vectors(model, []), says="vectors"),
                Refusal(lambda: merge_task_vectors(model, given, method="slurp"), says="slerp"),
                Refusal(lambda: merge_task_vectors(model, given, weights=[1.0]), says="weights"),
                Refusal(lambda: merge_task_vectors(model, given, weights=[0.0, 0.0]), says="weights"),
                Refusal(lambda: merge_task_vectors(model, given, scale=float("nan")), says="scale"),
                Refusal(lambda: merge_task_vectors(model, given, method="ties", density=0.0), says="density"),
                Refusal(lambda: merge_task_vectors(model, given, method="fisher"), says="fisher_information"),
                Refusal(lambda: TaskVector.from_models(model, tiny_encoder(["other words"])), says="tokenizer"),
            ),
            neutral=lambda base: merge_task_vectors(base, vectors(base), scale=0.0),
        ),
        "trainer": TrainerExample(
            train=search("slerp"),
            baseline=search("average"),
            steps=8,
            data=(anchors, positives),
            refuses=(
                Refusal(lambda: SelfPositioning(model, [near]), says="models"),
                Refusal(lambda: SelfPositioning(model, [near, far], mu=-1.0), says="mu"),
                Refusal(lambda: SelfPositioning(model, [near, far], method="ties"), says="method"),
                Refusal(lambda: SelfPositioning(model, [near, model]), says="equals the base"),
                Refusal(lambda: SelfPositioning(model, [near, far]).fit({}), says="probe"),
                Refusal(lambda: SelfPositioning(model, [near, far]).fit(probe, lr=0.0), says="lr"),
                Refusal(lambda: balanced_probe({"one": probe}, per_task=99), says="per_task"),
            ),
        ),
    }
