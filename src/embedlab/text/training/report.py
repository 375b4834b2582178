"""What a training run gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TrainingReport:
    folder: Path
    recipe: str
    losses: Mapping[int, float]
