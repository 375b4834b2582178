"""Two processes with half a batch each follow the loss of one process with the whole batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("training_child.py")
# float32 sums in another order, through six steps of Adam
TOLERANCE = 1e-3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def train(out: Path, processes: int) -> dict[str, float]:
    port = str(free_port())
    children = []
    for rank in range(processes):
        # what torchrun and accelerate set
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
        env = {**os.environ, **(shared | own if processes > 1 else {}), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        children.append(subprocess.Popen([sys.executable, str(CHILD), str(out)], env=env, stderr=subprocess.PIPE))
    for child in children:
        _, trouble = child.communicate(timeout=240)
        assert child.returncode == 0, trouble.decode()[-3000:]
    losses: dict[str, float] = json.loads((out / "report.json").read_text())["arm"]["losses"]
    return losses


def test_two_processes_follow_one(tmp_path: Path) -> None:
    one, two = train(tmp_path / "one", 1), train(tmp_path / "two", 2)
    assert list(one) == list(two) == [str(step) for step in range(1, 7)]
    assert list(two.values()) == pytest.approx(list(one.values()), rel=TOLERANCE)
