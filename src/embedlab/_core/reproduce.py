"""Running a method's reproduction: load its file, measure seed by seed, judge the claims, keep the result."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedlab._core.claims import LEVELS, Claim, Judgement, judge, worst
from embedlab._core.errors import InputError, unknown_name
from embedlab._core.files import atomic_write
from embedlab._core.machine import commit, hardware, versions
from embedlab._core.registry import MethodRecord
from embedlab._core.results import ReproductionError, code_hashes, reproductions_folder, store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A method's reproduction file, loaded.

    Attributes:
        method: The method's record.
        path: The reproduction file.
        words: Its docstring.
        claims: What is claimed.
        oracle: The exact check; raises when the method is wrong.
        run: One measurement: ``(seed, level) -> numbers``, with the data's hash under ``"data"``.
    """

    method: MethodRecord
    path: Path
    words: str
    claims: tuple[Claim, ...]
    oracle: Callable[[], None]
    run: Callable[[int, str], Mapping[str, float | str]]

    def hashes(self) -> dict[str, str]:
        """Return the fingerprints of the code that a result depends on."""
        return code_hashes(self.method, self.path)


def load_reproduction(record: MethodRecord, folder: Path | None = None) -> Reproduction:
    """Load a method's reproduction file and check its shape.

    Args:
        record: The method.
        folder: Where reproduction files are; ``reproductions_folder()`` by default.

    Returns:
        The reproduction, not yet run.

    Raises:
        ReproductionError: there is no file, or something in it is missing or of the wrong type.
    """
    path = (folder or reproductions_folder()) / f"{record.name}.py"
    if not path.is_file():
        raise ReproductionError(f"{path} does not exist: write it as docs/reproductions.md describes")
    spec = importlib.util.spec_from_file_location(f"reproductions.{record.name}", path)
    if spec is None or spec.loader is None:
        raise ReproductionError(f"{path} cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up while it is being made
    spec.loader.exec_module(module)
    claims = getattr(module, "CLAIMS", None)
    if not isinstance(claims, tuple) or not claims or not all(isinstance(claim, Claim) for claim in claims):
        raise ReproductionError(f"{path}: CLAIMS must be a tuple of at least one Claim, got {claims!r:.80}")
    ids = [claim.id for claim in claims]
    if len(set(ids)) < len(ids):
        raise ReproductionError(f"{path}: two claims share an id: {', '.join(ids)}")
    for name in ("oracle", "run"):
        if not callable(getattr(module, name, None)):
            raise ReproductionError(f"{path}: lacks the function {name}()")
    if not (module.__doc__ or "").strip():
        raise ReproductionError(f"{path}: lacks a docstring that states the claim and what would falsify it")
    return Reproduction(record, path, (module.__doc__ or "").strip(), claims, module.oracle, module.run)


def measure(reproduction: Reproduction, seed: int, level: str) -> dict[str, Any]:
    """Run one seed and check what it returns.

    Args:
        reproduction: What to run.
        seed: The seed, 0 or more.
        level: ``"smoke"``, ``"cpu"`` or ``"gpu"``.

    Returns:
        ``{"seed", "seconds", "data", "numbers"}``.

    Raises:
        ReproductionError: the numbers are not flat and finite, or lack the data's hash or a number that a claim needs.
    """
    start = time.perf_counter()
    returned = dict(reproduction.run(seed, level))
    seconds = time.perf_counter() - start
    where = f"{reproduction.path.name}: run({seed}, {level!r})"
    data = returned.pop("data", None)
    if not isinstance(data, str):
        raise ReproductionError(f"{where} must return the data's hash under 'data', got {data!r}: use data_hash(...)")
    for key, value in returned.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ReproductionError(f"{where} returned {key}={value!r}: a finite number is needed")
    for claim in reproduction.claims:
        for needed in (claim.metric, claim.baseline):
            if isinstance(needed, str) and needed not in returned:
                raise ReproductionError(f"{where} lacks {needed!r}, which claim {claim.id!r} needs")
    numbers = {key: float(value) for key, value in returned.items()}
    return {"seed": seed, "seconds": round(seconds, 3), "data": data, "numbers": numbers}


def reproduce(
    reproduction: Reproduction,
    level: str,
    *,
    seeds: int | None = None,
    results: Path | None = None,
    on_seed: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run all seeds of a level, judge the claims and write the result file.

    Finished seeds are kept aside and taken up again after an interruption, as long as no code has changed.

    Args:
        reproduction: What to run.
        level: ``"smoke"`` (nothing is written), ``"cpu"`` or ``"gpu"``.
        seeds: Number of seeds; by default the largest that a claim asks for, or 1 at ``"smoke"``.
        results: Folder of result files; ``results`` beside the reproduction by default.
        on_seed: Called with each finished measurement.

    Returns:
        The report of the level, as it stands in the result file.

    Raises:
        InputError: ``level`` is unknown or ``seeds`` is below 1.
        ReproductionError: see ``measure``.
    """
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    count = seeds if seeds is not None else 1 if level == "smoke" else max(c.seeds for c in reproduction.claims)
    if count < 1:
        raise InputError(f"seeds={seeds} must be at least 1")
    folder = results or reproduction.path.parent / "results"
    aside = folder / ".unfinished" / f"{reproduction.method.name}.{level}.json"
    hashes = reproduction.hashes()
    runs = _kept(aside, hashes) if level != "smoke" else {}
    reproduction.oracle()
    for seed in range(count):
        if seed not in runs:
            runs[seed] = measure(reproduction, seed, level)
            if level != "smoke":
                atomic_write(aside, json.dumps({"hashes": hashes, "runs": list(runs.values())}))
        if on_seed:
            on_seed(runs[seed])
    report = _report(reproduction, level, [runs[seed] for seed in range(count)], hashes)
    if level != "smoke":
        store(folder / f"{reproduction.method.name}.json", reproduction.method.name, level, report)
        aside.unlink(missing_ok=True)
    return report


def _kept(aside: Path, hashes: dict[str, str]) -> dict[int, dict[str, Any]]:
    if not aside.is_file():
        return {}
    try:
        content = json.loads(aside.read_text(encoding="utf-8"))
    except ValueError:
        log.warning("%s is damaged: starting from the first seed", aside)
        return {}
    return {run["seed"]: run for run in content["runs"]} if content["hashes"] == hashes else {}


def _report(
    reproduction: Reproduction, level: str, runs: list[dict[str, Any]], hashes: dict[str, str]
) -> dict[str, Any]:
    judged = [judge(c, [run["numbers"] for run in runs]) for c in reproduction.claims if level in (*c.levels, "smoke")]
    return {
        "verdict": worst(each.verdict for each in judged) if judged else "not run",
        "claims": [_as_data(each) for each in judged],
        "seeds": [run["seed"] for run in runs],
        "seconds": round(sum(run["seconds"] for run in runs), 3),
        "runs": runs,
        "hashes": hashes,
        "command": f"embedlab reproduce {reproduction.method.name} --level {level}",
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(reproduction.path.parent),
        "versions": versions(),
        "hardware": hardware(),
    }


def _as_data(judgement: Judgement) -> dict[str, Any]:
    claim = judgement.claim
    return {
        "id": claim.id,
        "words": claim.words,
        "verdict": judgement.verdict,
        "metric": claim.metric,
        "metric_mean": judgement.metric_mean,
        "baseline": claim.baseline,
        "baseline_mean": judgement.baseline_mean,
        "direction": claim.direction,
        "margin": claim.margin,
        "gains": list(judgement.gains),
        "gain_mean": judgement.gain_mean,
        "gain_spread": judgement.gain_spread,
        "published": claim.published,
        "published_source": claim.published_source,
    }
