"""Latent attention and its relatives: the equations, tokens apart, instructions left out, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from embedlab.models import load_model
from embedlab.models.decoder import instruct
from embedlab.testing.slow_attention import slow_block
from embedlab.testing.tiny_decoder import tiny_decoder
from embedlab.text.nv_embed import InstructionMask, LatentAttentionPooling, SelfAttentionPooling
from embedlab.text.nv_embed.pooling import text_mask
from embedlab.text.pooling_attention import build_llm_embedder

MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
TOLD = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
TEXTS = [instruct("find a cat", "the dog ran"), "the dog ran over the mat", instruct("tell", "a dog"), "a dog"]


def features(**more: Any) -> dict[str, Any]:
    tokens = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    return {"token_embeddings": tokens, "attention_mask": MASK, "instruction_mask": TOLD, **more}


@pytest.mark.parametrize(("latents", "heads", "head_dim"), [(3, 1, None), (6, 2, 5), (2, 4, 2)])
def test_it_equals_the_equations(latents: int, heads: int, head_dim: int | None) -> None:
    pooling = LatentAttentionPooling(8, num_latents=latents, num_heads=heads, head_dim=head_dim, seed=2).eval()
    assert pooling.block.to_queries.weight.shape[0] == heads * (head_dim or 8)
    with torch.no_grad():
        found = pooling(features())["sentence_embedding"]
    for row, text in enumerate(features()["token_embeddings"]):
        kept = text[(MASK[row] > TOLD[row])].double().numpy()
        slow = np.mean(
            [slow_block(pooling.block, t, pooling.block.latents.detach().double().numpy()) for t in kept], axis=0
        )
        np.testing.assert_allclose(found[row], slow, atol=1e-5)


def test_tokens_are_mapped_apart_so_their_order_does_not_matter() -> None:
    pooling, given, order = LatentAttentionPooling(8, num_latents=4, num_heads=2).eval(), features(), [3, 0, 4, 1, 2]
    assert torch.allclose(
        pooling.block(given["token_embeddings"][:, order]), pooling.block(given["token_embeddings"])[:, order]
    )
    turned = {name: value[:, order] for name, value in given.items()}
    assert torch.allclose(pooling(turned)["sentence_embedding"], pooling(given)["sentence_embedding"], atol=1e-6)


@pytest.mark.parametrize("pooling", [LatentAttentionPooling(8, num_latents=4, num_heads=2), InstructionMask()])
def test_padding_and_instructions_never_reach_the_mean(pooling: Any) -> None:
    after = Pooling(8, "mean") if isinstance(pooling, InstructionMask) else torch.nn.Identity()
    given = features()
    before = after(pooling(dict(given)))["sentence_embedding"]
    noise = torch.where((MASK > TOLD)[..., None], given["token_embeddings"], torch.full((), 1e3))
    found = after(pooling(features(token_embeddings=noise)))["sentence_embedding"]
    assert torch.allclose(found, before, atol=1e-5)
    assert torch.equal(given["attention_mask"], MASK)
    if not isinstance(pooling, InstructionMask):
        pooling.include_prompt = True
        assert not torch.allclose(pooling(dict(given))["sentence_embedding"], before, atol=1e-3)


def test_a_row_with_nothing_left_is_zero() -> None:
    found = LatentAttentionPooling(8, num_latents=4, num_heads=2)(features(instruction_mask=MASK))["sentence_embedding"]
    assert not found.any()


@pytest.mark.parametrize("length", [2, torch.tensor([2]), torch.tensor([2, 1, 0])])
def test_the_hosts_count_of_prompt_tokens_is_heeded(length: Any) -> None:
    given = {"attention_mask": MASK, "prompt_length": length}
    expected = [[0, 0, 1, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    if torch.is_tensor(length) and len(length) == 3:
        expected = [[0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [1, 1, 0, 0, 0]]
    assert text_mask(given).tolist() == expected


def test_it_is_the_hosts_pooling_without_prompts_when_all_rows_have_one() -> None:
    model = build_llm_embedder(tiny_decoder(TEXTS), pooling="mean", attention="bidirectional")
    host = SentenceTransformer(modules=[model[0], Pooling(32, "mean", include_prompt=False)], device="cpu")
    options: dict[str, Any] = {"prompt": "find a cat: ", "normalize_embeddings": True}
    assert np.allclose(
        model.encode(["a dog", "the mat"], **options), host.encode(["a dog", "the mat"], **options), atol=1e-6
    )


@pytest.mark.parametrize("pooling", ["mean", "latent_attention", "self_attention"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_an_instruction_is_seen_by_the_decoder_but_not_pooled(pooling: Any, side: Any) -> None:
    base = tiny_decoder(TEXTS, padding_side=side, pad_is_eos=True)
    sizes = {} if pooling == "mean" else {"num_heads": 2}
    model = build_llm_embedder(base, pooling=pooling, attention="bidirectional", **sizes)
    alone = np.concatenate([model.encode([text]) for text in TEXTS])
    assert np.allclose(model.encode(TEXTS), alone, atol=1e-5)
    told, plain = model.encode([TEXTS[2], "a dog"])
    assert not np.allclose(told, plain, atol=1e-3)
    deaf = {**model.preprocess(TEXTS)}
    deaf["attention_mask"] = deaf["attention_mask"] * (1 - deaf["instruction_mask"])  # not even the decoder sees it
    assert not np.allclose(model(deaf)["sentence_embedding"][0].detach(), alone[0], atol=1e-3)


@pytest.mark.parametrize(
    "made", [LatentAttentionPooling(8, num_latents=3, num_heads=2, head_dim=5, include_prompt=True)]
)
def test_it_comes_back_from_a_folder(made: LatentAttentionPooling, tmp_path: Path) -> None:
    made.save(str(tmp_path))
    loaded = LatentAttentionPooling.load(str(tmp_path))
    assert loaded.get_config_dict() == made.get_config_dict()
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), made.state_dict().values(), strict=True))


def test_self_attention_looks_at_no_padding() -> None:
    pooling, given = SelfAttentionPooling(8, num_heads=2).eval(), features()
    noise = torch.where(MASK[..., None].bool(), given["token_embeddings"], torch.full((), 1e3))
    assert torch.allclose(
        pooling(features(token_embeddings=noise))["sentence_embedding"], pooling(given)["sentence_embedding"], atol=1e-6
    )


def test_latents_are_saved_beside_adapters(tmp_path: Path) -> None:
    from embedlab.testing.tiny_decoder import save_tiny_decoder

    save_tiny_decoder(tmp_path / "lm", texts=TEXTS)
    model = build_llm_embedder(
        tmp_path / "lm",
        pooling="latent_attention",
        attention="bidirectional",
        lora={"r": 4},
        num_latents=4,
        num_heads=2,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
                assert "lora" in name or "block" in name
    model.save(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "adapter_model.safetensors").is_file()
    loaded = load_model(str(tmp_path / "saved"), device="cpu").host  # type: ignore[attr-defined]
    assert np.allclose(loaded.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
