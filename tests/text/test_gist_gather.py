"""Two processes that gather their candidates compute what one process computes on the whole batch."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from embedlab.testing.tiny import tiny_encoder
from embedlab.text.gist import CachedGuidedContrastiveLoss, GuidedContrastiveLoss, GuideStore

ANCHORS = ["a cat sat", "the stock fell", "rain in the north", "a dog ran home"]
POSITIVES = ["the cat slept", "shares fell again", "it rained a lot", "a dog ran"]
NEGATIVES = ["a cat ran", "the stock rained", "a dog slept", "ran in the north"]
KINDS = {"plain": GuidedContrastiveLoss, "cached": CachedGuidedContrastiveLoss}
TEXTS = ANCHORS + POSITIVES + NEGATIVES
COLUMNS = (ANCHORS, POSITIVES, NEGATIVES)


def made(
    kind: str, folder: Path, *, guided: bool, gather: bool, options: dict[str, str] | None = None
) -> GuidedContrastiveLoss:
    student = tiny_encoder(TEXTS, seed=0).double()
    # without QQ: the host never gathers anchors, so that block alone differs between one process and two
    return KINDS[kind](
        student,
        GuideStore.open(folder) if guided else None,
        contrast_anchors=False,
        gather_across_devices=gather,
        **(options or {}),
    )


def one_rank(rank: int, port: int, kind: str, guided: bool, options: dict[str, str], folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    loss = made(kind, folder / "store", guided=guided, gather=True, options=options)
    mine = slice(2 * rank, 2 * rank + 2)
    value = loss([loss.preprocess(column[mine]) for column in COLUMNS], None)
    value.backward()
    gradient = torch.cat([p.grad.flatten() for p in loss.model.parameters() if p.grad is not None])
    torch.save({"value": value.detach(), "gradient": gradient}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("kind", "guided", "options"),
    [
        ("plain", True, {"negative_mode": "hard"}),
        ("plain", True, {"triplet": "hard"}),
        ("cached", True, {"triplet": "soft"}),
        ("plain", False, {}),
    ],
)
def test_two_processes_equal_one(kind, guided, options, tmp_path):
    guide = tiny_encoder(TEXTS, seed=1, dim=48, num_heads=3)
    GuideStore.build(guide.encode, TEXTS, tmp_path / "store", fingerprint="tiny:1")
    whole = made(kind, tmp_path / "store", guided=guided, gather=False, options=options)
    expected = whole([whole.preprocess(column) for column in COLUMNS], None)
    expected.backward()
    gradient = torch.cat([p.grad.flatten() for p in whole.model.parameters() if p.grad is not None])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(one_rank, (port, kind, guided, options, tmp_path), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    torch.testing.assert_close(sum(rank["value"] for rank in ranks) / 2, expected.detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(sum(rank["gradient"] for rank in ranks) / 2, gradient, atol=1e-6, rtol=1e-6)
