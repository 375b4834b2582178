"""Two processes that gather their candidates compute what one process computes on the whole batch."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from embedlab.testing.tiny import tiny_encoder
from embedlab.text.progressive import AdaptiveCurriculum, Modulator, ProgressiveContrastiveLoss, ScheduledWeights

COLUMNS = (
    ["a cat sat", "the stock fell", "rain in the north", "a dog ran home"],
    ["the cat slept", "shares fell again", "it rained a lot", "the cat slept"],  # one text twice, on both processes
    ["a cat ran", "the stock rained", "a dog slept", "ran in the north"],
)
TEXTS = [text for column in COLUMNS for text in column]


def modulator(name: str) -> Modulator:
    if name == "weights":
        return ScheduledWeights(start=0.2, end=0.5, steps=10)
    made = AdaptiveCurriculum(rate=0.5)
    made.t.fill_(0.6)
    return made


def made(name: str, mini_batch_size: int | None, *, gather: bool) -> ProgressiveContrastiveLoss:
    model = tiny_encoder(TEXTS, seed=0).double().train()
    loss = ProgressiveContrastiveLoss(
        model, modulator=modulator(name), mini_batch_size=mini_batch_size, gather_across_devices=gather
    )
    loss.modulator.double()
    return loss


def result(loss: ProgressiveContrastiveLoss, rows: slice) -> dict[str, torch.Tensor]:
    value = loss([loss.model.preprocess(column[rows]) for column in COLUMNS], None)
    value.backward()
    gradient = torch.cat([p.grad.flatten() for p in loss.model.parameters() if p.grad is not None])
    state = torch.tensor(list(loss.modulator.state().values()), dtype=torch.float64)
    return {"value": value.detach(), "gradient": gradient, "state": state}


def one_rank(rank: int, port: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for name in ("adaptive", "weights"):
        for size in (None, 1):
            loss = made(name, size, gather=True)
            torch.save(result(loss, slice(2 * rank, 2 * rank + 2)), folder / f"{name}-{size}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(one_rank, (port, tmp_path), nprocs=2)
    for name in ("adaptive", "weights"):
        whole = result(made(name, None, gather=False), slice(None))
        for size in (None, 1):
            ranks = [torch.load(tmp_path / f"{name}-{size}-{rank}.pt", weights_only=True) for rank in (0, 1)]
            for key in ("value", "gradient"):
                mean = (ranks[0][key] + ranks[1][key]) / 2
                torch.testing.assert_close(mean, whole[key], atol=1e-6, rtol=1e-6)
            for rank in ranks:  # the state moved by the positives of both
                torch.testing.assert_close(rank["state"], whole["state"], atol=1e-9, rtol=1e-9)
