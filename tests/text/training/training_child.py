"""A training run for another process: the folder to write is the only argument."""

from __future__ import annotations

import sys

from datasets import Dataset

from embedlab.testing.tiny import tiny_encoder
from embedlab.text import train

LOOKS = ("red", "blue", "green", "dark", "light", "small", "big", "old")
THINGS = ("cat", "dog", "house", "river", "stone", "tree")
QUERIES = [f"{look} {thing} please" for look in LOOKS for thing in THINGS]
ANSWERS = [f"this is the {thing} that looks {look}" for look in LOOKS for thing in THINGS]

if __name__ == "__main__":
    train(
        "contrastive",
        model=tiny_encoder([*QUERIES, *ANSWERS], seed=0),
        data=Dataset.from_dict({"anchor": QUERIES, "positive": ANSWERS}),
        out=sys.argv[1],
        steps=6,
        batch_size=8,
        learning_rate=1e-3,
        evaluate=False,
    )
