"""Where and with what a measurement was made: commit, versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

_REPORTED = ("numpy", "scipy", "torch", "transformers", "sentence-transformers", "lancedb", "mteb", "scikit-learn")


def commit(folder: Path) -> str | None:
    """Return the commit of the checkout, with ``+`` when files differ from it, or None outside a checkout."""
    try:
        ask = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("embedlab", *_REPORTED):
        try:
            found[package] = version_of(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    torch = sys.modules.get("torch")  # asked only if the run used it
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"system": platform.system(), "cpu": cpu, "cores": os.cpu_count(), "gpu": gpu}
