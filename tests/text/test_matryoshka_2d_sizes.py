"""Cutting a model, choosing its size call by call, and measuring every size."""

from __future__ import annotations

import copy
import itertools
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from typer.testing import CliRunner

from embedlab._core.errors import InputError
from embedlab.cli import app
from embedlab.models import Encoder
from embedlab.models.bidirectional import LAST_LAYERS, sees_later_tokens, to_bidirectional
from embedlab.testing.tiny import word_tokenizer
from embedlab.testing.tiny_decoder import tiny_decoder
from embedlab.text.matryoshka_2d import ElasticEncoder, Grid, evaluate_grid, truncate, write_report

TEXTS = ["a cat sat on the mat", "the stock fell", "rain in the north", "a dog", "rates rose again today"]
DEPTH, WIDTH = 4, 32
# family -> class of its configuration, and what its fields are called
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", {"intermediate_size": 48}),
    "roberta": ("RobertaConfig", {"intermediate_size": 48, "max_position_embeddings": 80}),
    "mpnet": ("MPNetConfig", {"intermediate_size": 48, "max_position_embeddings": 80}),
    "distilbert": ("DistilBertConfig", {"hidden_dim": 48}),
    "modernbert": ("ModernBertConfig", {"intermediate_size": 48, "global_attn_every_n_layers": 2}),
    "llama": ("LlamaConfig", {"intermediate_size": 48, "num_key_value_heads": 2}),
    "qwen2": ("Qwen2Config", {"intermediate_size": 48, "num_key_value_heads": 2}),
    "gpt2": ("GPT2Config", {}),
}


@cache
def made(family: str, unit: bool = False) -> SentenceTransformer:
    kind, fields = FAMILIES[family]
    tokenizer = word_tokenizer(TEXTS)
    config = getattr(transformers, kind)(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        **fields,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = transformers.AutoModel.from_config(config)
        for parameter in body.parameters():
            torch.nn.init.normal_(parameter, 0.3 if parameter.ndim == 1 else 0.0, 0.3)
    with tempfile.TemporaryDirectory() as folder:
        body.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        modules = [Transformer(folder, max_seq_length=32), Pooling(WIDTH, pooling_mode="mean")]
    return SentenceTransformer(modules=[*modules, *([Normalize()] if unit else [])], device="cpu").eval()


def readout(model: SentenceTransformer, layer: int) -> np.ndarray:
    """Mean over the tokens of hidden_states[layer], with the final norm where the family has one."""
    body = model[0].auto_model
    norm = next((getattr(body, name) for name in ("final_norm", "norm", "ln_f") if hasattr(body, name)), None)
    rows = []
    for text in TEXTS:  # one by one: no padding
        features = {k: v for k, v in model.preprocess([text]).items() if k in ("input_ids", "attention_mask")}
        with torch.no_grad():
            state = body(**features, output_hidden_states=True).hidden_states[layer]
            if norm is not None and layer < DEPTH:  # the last one has it already
                state = norm(state)
        rows.append(state[0].mean(dim=0))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_gives_the_hidden_states_of_the_whole_and_is_plain(family: str, tmp_path: Path) -> None:
    model = made(family)
    small = truncate(model, layers=3)
    np.testing.assert_allclose(small.encode(TEXTS), readout(model, 3), atol=1e-5)
    np.testing.assert_allclose(truncate(model, layers=DEPTH).encode(TEXTS), readout(model, DEPTH), atol=1e-5)
    cut = truncate(model, layers=1, dim=8)
    np.testing.assert_allclose(cut.encode(TEXTS), readout(model, 1)[:, :8], atol=1e-5)

    cut.save(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True)
    assert {type(module).__module__.partition(".")[0] for module in again} == {"sentence_transformers"}
    assert again[0].auto_model.config.num_hidden_layers == 1
    assert again.get_embedding_dimension() == 8
    saved, loaded = dict(cut.named_parameters()), dict(again.named_parameters())
    assert saved.keys() == loaded.keys()  # nothing was made anew
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    np.testing.assert_allclose(again.encode(TEXTS), cut.encode(TEXTS), atol=1e-6)


def test_a_cut_model_is_smaller_normalises_after_the_cut_and_leaves_the_whole_alone() -> None:
    model = made("bert", unit=True)
    before = copy.deepcopy(model.state_dict())
    small = truncate(model, layers=2, dim=8)
    rows = small.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    cut = readout(model, 2)[:, :8]
    np.testing.assert_allclose(rows, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)
    block = sum(p.numel() for p in model[0].auto_model.encoder.layer[0].parameters())
    whole, fewer = (sum(p.numel() for p in m.parameters()) for m in (model, small))
    assert whole - fewer == 2 * block - 8 * WIDTH
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert small[0].auto_model.encoder.config is small[0].auto_model.config


def test_what_cannot_be_cut_is_refused() -> None:
    model = made("bert")
    for options, says in (
        ({"layers": 5}, "1 to 4"),
        ({"layers": 0}, "1 to 4"),
        ({"layers": True}, "layers"),
        ({"dim": 33}, "1 to 32"),
    ):
        with pytest.raises(InputError, match=says):
            truncate(model, **options)  # type: ignore[arg-type]
    albert = copy.deepcopy(model)
    config = transformers.AlbertConfig(
        vocab_size=40, embedding_size=8, hidden_size=32, num_attention_heads=2, intermediate_size=32
    )
    with torch.random.fork_rng(devices=[]):
        albert[0].model = transformers.AlbertModel(config)
    with pytest.raises(InputError, match="albert"):
        truncate(albert, layers=1)
    strange = copy.deepcopy(model)
    strange[0].auto_model.encoder.register_forward_hook(
        lambda *given: type(given[2])(last_hidden_state=2 * given[2][0])
    )
    with pytest.raises(InputError, match="after its last layer"):
        truncate(strange, layers=2)
    with pytest.raises(InputError, match="Transformer"):
        truncate(SentenceTransformer(modules=[Normalize()], device="cpu"), layers=1)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's call of transformers
def test_adapters_are_folded_in() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    model = copy.deepcopy(made("bert"))
    model[0].model = peft.get_peft_model(model[0].model, config)
    merged = copy.deepcopy(model)
    merged[0].model = merged[0].model.merge_and_unload()
    small = truncate(model, layers=2)
    assert not any("lora" in name for name, _ in small.named_parameters())
    np.testing.assert_allclose(small.encode(TEXTS), readout(merged, 2), atol=1e-5)
    injected = copy.deepcopy(made("bert"))
    injected.add_adapter(config)
    with pytest.raises(InputError, match="merge"):
        truncate(injected, layers=2)


def test_layers_that_look_both_ways_are_counted_from_the_new_end() -> None:
    decoder = tiny_decoder(TEXTS, num_layers=3)
    partly = to_bidirectional(decoder, last_layers=2)
    small = truncate(partly, layers=2)
    assert getattr(small[0].auto_model.config, LAST_LAYERS) == 1
    assert sees_later_tokens(small)
    assert not sees_later_tokens(truncate(partly, layers=1))


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_an_elastic_encoder_stops_at_the_layer(family: str) -> None:
    model = made(family)
    body, ran = model[0].auto_model, []
    blocks = body.encoder.layer if family == "bert" else body.layers
    handles = [block.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, block in enumerate(blocks, start=1)]
    encoder = ElasticEncoder(model)
    assert isinstance(encoder, Encoder)
    assert (encoder.num_layers, encoder.dim) == (DEPTH, WIDTH)
    ran.clear()
    rows = encoder.encode([*TEXTS, " "], layer=2, dim=8)
    assert set(ran) == {1, 2}
    cut = readout(model, 2)[:, :8]
    np.testing.assert_allclose(rows[:-1], cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)
    assert rows.dtype == np.float32
    assert not rows[-1].any()
    whole = encoder.encode_document(TEXTS)
    np.testing.assert_allclose(whole, encoder.encode_query(TEXTS), atol=1e-6)
    part = encoder.at(layer=2, dim=8)
    assert isinstance(part, Encoder)
    assert part.dim == 8
    assert part.name.endswith("@2x8")
    assert part.fingerprint != encoder.fingerprint
    own = {id(p) for p in model.parameters()}
    assert sum(id(p) not in own for p in part.host.parameters()) == 1  # the cut itself
    for handle in handles:
        handle.remove()
    with pytest.raises(InputError, match="layers=9"):
        encoder.encode(TEXTS, layer=9)
    with pytest.raises(InputError, match="device"):
        ElasticEncoder(model, device="cpu")


@pytest.mark.parametrize("unit", [True, False])
def test_a_grid_scores_what_cut_models_give_and_encodes_each_text_once(unit: bool) -> None:
    model = made("bert", unit)
    count = {"texts": 0}
    handle = model[0].register_forward_hook(
        lambda _m, inputs, _o: count.update(texts=count["texts"] + len(inputs[0]["input_ids"]))
    )

    def score(part: SentenceTransformer) -> float:
        rows = part.encode(TEXTS, normalize_embeddings=True)
        return float((rows @ part.encode(TEXTS[0], normalize_embeddings=True)).sum())

    grid = evaluate_grid(model, score, layers=(4, 1, 3), dims=(8, 32), texts=TEXTS[:2])
    handle.remove()
    assert count["texts"] == len(TEXTS) + 3 * 4 * 2  # once each; then two texts, four times, at three depths
    assert (grid.layers, grid.dims) == ((1, 3, 4), (8, 32))
    for i, layer in enumerate(grid.layers):
        for j, dim in enumerate(grid.dims):
            assert grid.scores[i, j] == pytest.approx(score(truncate(model, layers=layer, dim=dim)), abs=1e-4)
    assert (grid.ms_per_text > 0).all()
    with pytest.raises(InputError, match="primary_metric"):
        evaluate_grid(model, lambda part: {"a": 1.0, "b": 2.0}, layers=(1,), texts=TEXTS)


def test_the_front_holds_what_nothing_beats(tmp_path: Path) -> None:
    scores = np.array([[0.5, 0.6, 0.6], [0.4, 0.7, 0.8]])
    grid = Grid((3, 6), (8, 16, 32), scores, np.array([1.0, 2.0]), "spearman")
    assert grid.front().tolist() == [[True, True, False], [False, True, True]]
    frame = grid.frame()
    assert frame["bytes_per_vector"].tolist() == [32, 64, 128] * 2
    pytest.importorskip("matplotlib")
    files = write_report(grid, tmp_path / "out")
    assert [file.name for file in files] == ["grid.json", "grid.md", "heatmap.svg", "pareto.svg"]
    assert "**0.8000**" in files[1].read_text()
    assert json.loads(files[0].read_text())["sizes"][5]["score"] == 0.8
    first = [file.read_bytes() for file in files]
    assert all(b"<svg" in content for content in first[2:])
    assert first == [file.read_bytes() for file in write_report(grid, tmp_path / "out")]


def test_the_command_line_measures_and_cuts(tmp_path: Path) -> None:
    made("bert").save(str(tmp_path / "model"))
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "sentence1,sentence2,score\n"
        + "".join(f"{a},{b},{n / 4}\n" for n, (a, b) in enumerate(itertools.pairwise(TEXTS)))
    )
    run = CliRunner().invoke
    result = run(
        app,
        [
            "elastic",
            "eval",
            str(tmp_path / "model"),
            str(pairs),
            "--layer",
            "2",
            "--layer",
            "4",
            "--dim",
            "8",
            "--out",
            str(tmp_path / "report"),
            "--json",
        ],
    )
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["sizes"]) == 2
    assert (tmp_path / "report" / "pareto.svg").is_file()
    both = tmp_path / "both.csv"
    both.write_text("anchor,positive\n" + "".join(f"{text},{text}\n" for text in TEXTS))
    result = run(app, ["elastic", "eval", str(tmp_path / "model"), str(both), "--layer", "4", "--dim", "32"])
    assert result.exit_code == 0, result.output
    assert "1.0000" in result.stdout  # each text is nearest to itself
    result = run(
        app, ["elastic", "truncate", str(tmp_path / "model"), str(tmp_path / "small"), "--layers", "2", "--dim", "8"]
    )
    assert result.exit_code == 0, result.output
    assert SentenceTransformer(str(tmp_path / "small"), device="cpu").encode(TEXTS).shape == (5, 8)
    again = run(app, ["elastic", "truncate", str(tmp_path / "model"), str(tmp_path / "small"), "--layers", "2"])
    assert isinstance(again.exception, InputError)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("matryoshka_2d", {"layers": [1, 2]}),
        ("matryoshka_2d", {"layers": [], "mini_batch_size": 4}),
        ("espresso", {"dim": 8}),
    ],
)
def test_recipes_train(recipe: str, options: dict[str, Any], tmp_path: Path) -> None:
    from embedlab.text import train

    rows = [{"anchor": a, "positive": f"{b} {n}"} for n, (a, b) in enumerate(itertools.product(TEXTS, TEXTS))]
    train(recipe, model=made("bert"), data=rows, out=tmp_path, steps=2, batch_size=8, evaluate=False, **options)
    assert SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS).shape == (5, WIDTH)
