"""The designs: built on three architectures, trained, saved; padding on either side; the equations by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedlab._core.errors import EmbedlabError, InputError
from embedlab.models import load_model
from embedlab.models.bidirectional import sees_later_tokens
from embedlab.testing.slow_attention import slow_block
from embedlab.testing.tiny import tiny_encoder
from embedlab.testing.tiny_decoder import Family, save_tiny_decoder, tiny_decoder
from embedlab.text import train
from embedlab.text.nv_embed import HardNegativesRankingLoss
from embedlab.text.pooling_attention import (
    DESIGNS,
    VARIANTS,
    LatentPooling,
    Tuning,
    build_llm_embedder,
    parameter_counts,
    search,
    tune_designs,
)

TEXTS = ["a cat sat", "the dog ran over the mat", "a dog", "the mat"]
ALL = sorted({*DESIGNS.values(), *VARIANTS})
SIZES: dict[str, Any] = {"num_latents": 3, "num_heads": 2}


def sizes(pooling: str) -> dict[str, Any]:
    return {} if pooling in ("eos", "mean") else SIZES


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("number", DESIGNS)
def test_each_design_trains_a_step_and_comes_back(number: int, family: Family, tmp_path: Path) -> None:
    pooling, attention = DESIGNS[number]
    save_tiny_decoder(tmp_path / "lm", texts=TEXTS, family=family)
    model = build_llm_embedder(tmp_path / "lm", pooling=pooling, attention=attention, device="cpu", **sizes(pooling))
    before = model.encode(TEXTS)
    loss = HardNegativesRankingLoss(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    loss([model.preprocess(TEXTS[:2]), model.preprocess(TEXTS[2:])], None).backward()
    head = [p for module in list(model)[1:] for p in module.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head)
    optimiser.step()
    after = model.encode(TEXTS)
    assert not np.allclose(after, before, atol=1e-4)
    model.save(str(tmp_path / "saved"))
    loaded = load_model(str(tmp_path / "saved"), device="cpu").host  # type: ignore[attr-defined]
    assert np.array_equal(loaded.encode(TEXTS), after)
    assert sees_later_tokens(loaded) == (attention == "bidirectional")
    assert np.allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "mistral"])
@pytest.mark.parametrize(("pooling", "attention"), ALL)
def test_padding_changes_no_design(pooling: Any, attention: Any, family: Family) -> None:
    models = [
        build_llm_embedder(
            tiny_decoder(TEXTS, family=family, padding_side=side, pad_is_eos=True),
            pooling=pooling,
            attention=attention,
            device="cpu",
            **sizes(pooling),
        )
        for side in ("left", "right")
    ]
    alone = np.concatenate([models[0].encode([text]) for text in TEXTS])
    for model in models:
        assert np.allclose(model.encode(TEXTS), alone, atol=1e-5)
        features = model.preprocess(TEXTS)
        for before, after in ((3, 0), (0, 4), (2, 2)):  # columns of nothing
            wide = {
                key: torch.nn.functional.pad(value, (before, after), value=3 if key == "input_ids" else 0)
                for key, value in features.items()
                if isinstance(value, torch.Tensor)
            }
            with torch.no_grad():
                found = model({**features, **wide})["sentence_embedding"]
            assert np.allclose(found, alone, atol=1e-5)


def states(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_layers(**options: Any) -> LatentPooling:
    return LatentPooling(8, num_latents=3, num_heads=2, layers="all", num_layers=4, **options).double().eval()


def test_a_state_for_each_layer_goes_through_the_equations() -> None:
    pooling = all_layers()
    with torch.no_grad():
        found = pooling({"layer_summaries": states()})["sentence_embedding"].numpy()
    rows, latents = (p.detach().numpy() for p in (pooling.layer_rows, pooling.block.latents))
    for row, text in enumerate(states().numpy()):
        slow = np.mean([slow_block(pooling.block, latent, text + rows) for latent in latents], axis=0)
        np.testing.assert_allclose(found[row], slow, atol=1e-10)


def test_the_order_of_layers_matters_only_through_their_rows() -> None:
    pooling, order = all_layers(), [2, 0, 3, 1]
    given, turned = states(), states()[:, order]
    one, two = (pooling({"layer_summaries": each})["sentence_embedding"] for each in (given, turned))
    assert not torch.allclose(one, two, atol=1e-3)
    with torch.no_grad():
        pooling.layer_rows.zero_()
    one, two = (pooling({"layer_summaries": each})["sentence_embedding"] for each in (given, turned))
    assert torch.allclose(one, two, atol=1e-12)


def test_a_single_key_gives_every_latent_the_same_vector() -> None:
    pooling = LatentPooling(8, num_latents=3, num_heads=2, token_summary="last_token").double().eval()
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]])
    found, _ = pooling._looked_up({"token_embeddings": states(), "attention_mask": mask})
    assert torch.equal(found[:, 0], torch.stack([states()[0, 3], states()[1, 3], states()[2, 1]]))
    added = pooling.block._attend(
        pooling.block.norm_queries(pooling.block.latents.expand(3, -1, -1)), pooling.block.norm_keys(found), None
    )
    assert torch.allclose(added, added[:, :1].expand_as(added), atol=1e-12)


@pytest.mark.parametrize("summary", ["mean", "last_token"])
def test_layers_of_the_host_do_as_well(summary: Any) -> None:
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]])
    every = tuple(states(seed) for seed in range(5))  # the words, and four layers
    found = all_layers(token_summary=summary)({"all_layer_embeddings": every, "attention_mask": mask})
    rows = [[s[row][mask[row].bool()] for s in every[1:]] for row in range(3)]
    told = torch.stack([torch.stack([r.mean(0) if summary == "mean" else r[-1] for r in row]) for row in rows])
    assert torch.allclose(found["sentence_embedding"], all_layers()({"layer_summaries": told})["sentence_embedding"])


def test_all_layers_are_summed_up_inside_the_forward_pass() -> None:
    model = build_llm_embedder(tiny_decoder(TEXTS, num_layers=3), device="cpu", **SIZES)
    features = model[0](model.preprocess(TEXTS))
    assert features["layer_summaries"].shape == (4, 3, 32)
    assert "all_layer_embeddings" not in features


def test_parameters_are_counted() -> None:
    base = tiny_decoder(TEXTS)
    body = sum(p.numel() for p in base.parameters())
    plain = parameter_counts(build_llm_embedder(base, pooling="eos", attention="causal"))
    assert plain == {"decoder": body, "adapters": 0, "pooling": 0, "trainable": body, "total": body}
    found = parameter_counts(build_llm_embedder(base, lora={"r": 4}, **SIZES))
    inner, dim = 32, 32
    block = 3 * dim + 3 * 2 * dim + 4 * inner * dim + (dim * 8 * dim + 8 * dim) + (4 * dim * dim + dim)
    assert found["pooling"] == block + 2 * dim  # and a row for each layer
    assert found["adapters"] > 0
    assert found["trainable"] == found["adapters"] + found["pooling"]
    assert found["total"] == found["decoder"] + found["trainable"]


def test_what_is_no_design_is_refused() -> None:
    base = tiny_decoder(TEXTS)
    for wrong, says in (
        ({"pooling": "max"}, "pooling"),
        ({"attention": "both"}, "attention"),
        ({"pooling": "eos", "num_latents": 4}, "num_latents"),
        ({"num_heads": 0}, "num_heads"),
    ):
        with pytest.raises(InputError, match=says):
            build_llm_embedder(base, **wrong)  # type: ignore[arg-type]
    encoder = tiny_encoder(TEXTS)
    encoder.tokenizer.eos_token = encoder.tokenizer.sep_token
    with pytest.raises(EmbedlabError, match="BertModel"):
        build_llm_embedder(encoder, pooling="eos", attention="causal")
    with pytest.raises(InputError, match="layer_summaries"):
        all_layers()({"token_embeddings": states(), "attention_mask": torch.ones(3, 4)})
    with pytest.raises(InputError, match="num_layers=4"):
        all_layers()({"layer_summaries": states()[:, :3]})


def test_the_base_is_left_alone() -> None:
    base = tiny_decoder(TEXTS)
    before = base.encode(TEXTS)
    build_llm_embedder(base, pooling="mean", attention="bidirectional", max_seq_length=5)
    assert np.array_equal(base.encode(TEXTS), before)
    assert base.max_seq_length == 64


@pytest.mark.parametrize("design", DESIGNS)
def test_the_recipe_runs(design: int, tmp_path: Path) -> None:
    rows = [
        {"anchor": f"a {a}", "positive": f"the {a} {b}"} for a in ["cat", "dog", "mat"] for b in ["sat", "ran", "slept"]
    ]
    texts = [text for row in rows for text in row.values()]
    options = {"design": design} | ({} if design == 1 else SIZES)
    train(
        "pooling_attention",
        model=tiny_decoder(texts),
        data={"pairs": rows},
        out=tmp_path / "out",
        steps=2,
        batch_size=4,
        evaluate=False,
        **options,
    )
    model = load_model(str(tmp_path / "out"), device="cpu").host  # type: ignore[attr-defined]
    assert sees_later_tokens(model) == (DESIGNS[design][1] == "bidirectional")


def test_designs_are_tuned_alike() -> None:
    words = [f"word{i}" for i in range(24)]
    rows = [[f"a {word}", f"the {word} here"] for word in words[:16]]
    asked = words[16:]
    probe = search("held out", [f"a {w}" for w in asked], [f"the {w} here" for w in asked], [{i} for i in range(8)])
    base = tiny_decoder([text for row in rows for text in row] + words)
    seen: list[str] = []

    def run(seed: int) -> dict[str, dict[str, float]]:
        return tune_designs(
            base,
            {"1": DESIGNS[1], "5": DESIGNS[5]},
            rows=rows,
            probes=[probe],
            tuning=Tuning(steps=3, batch_size=8, num_latents=2, num_heads=2, head_dim=4),
            seed=seed,
            on_design=lambda name, model: seen.append(name),
        )

    first, again = run(0), run(0)
    assert first == again
    assert seen == ["1", "5", "1", "5"]
    assert all(0 <= score <= 1 for found in first.values() for score in found.values())
    with pytest.raises(InputError, match="rows"):
        tune_designs(base, {"1": DESIGNS[1]}, rows=rows, probes=[probe])
