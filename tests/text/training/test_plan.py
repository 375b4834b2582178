"""A recipe file is checked as a whole before anything is done, and resolved so that it can be run again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedlab._core.errors import InputError
from embedlab.text.training.arguments import settle
from embedlab.text.training.catalogue import compose, find_recipe, recipe_names
from embedlab.text.training.plan import Plan, read_plan
from embedlab.text.training.recipe import Recipe, Setting

ROWS = [{"query": "what is tea", "answer": "leaves"}, {"query": "what is law", "answer": "rules"}]


def plan(content: Any = "contrastive", **given: Any) -> Plan:
    return read_plan(content, **{"data": ROWS, "out": "made", **given})


def test_every_recipe_can_be_loaded_and_says_what_its_options_mean() -> None:
    for name in recipe_names():
        recipe = find_recipe(name)
        assert isinstance(recipe, Recipe)
        assert recipe.name == name
        assert recipe.summary.endswith(".")
        assert set(recipe.options) == set(recipe.describe), name
        assert (recipe.loss is None) == (recipe.fit is not None), name
        assert recipe.baseline in recipe_names(), name
        settle(recipe.arguments)


def test_what_is_given_goes_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("query,answer\na,b\nc,d\n")
    (tmp_path / "r.yaml").write_text(
        "recipe: contrastive\ndata: {path: faq.csv, limit: 5}\nout: result\nseed: 3\ncompare: true\n"
        "options: {temperature: 0.02}\narguments: {learning_rate: 2e-5, epochs: 3}\nlora: 8\n"
        "evaluation: {tasks: [stsb], held_out: 0.1}\n"
    )
    found = read_plan(tmp_path / "r.yaml")
    assert found.sources[0].data == str(tmp_path / "faq.csv")
    assert found.out == tmp_path / "result"
    assert found.arguments["learning_rate"] == 2e-5
    assert found.lora is not None
    assert found.lora["rank"] == 8
    changed = read_plan(
        tmp_path / "r.yaml",
        out="other",
        evaluate={"held_out": 0.3},
        overrides={"temperature": 0.1, "steps": 7, "gradient_checkpointing": True},
    )
    assert changed.out == Path("other")
    assert changed.options["temperature"] == 0.1
    assert (changed.arguments["steps"], changed.arguments["gradient_checkpointing"]) == (7, True)
    assert changed.judging is not None
    assert (changed.judging.held_out, changed.judging.tasks) == (0.3, ("stsb",))
    assert read_plan(tmp_path / "r.yaml", evaluate=False).judging is None


def test_a_resolved_plan_is_a_recipe_file_of_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("query,answer\na,b\nc,d\n")
    first = plan({"recipe": "contrastive", "lora": True}, data=tmp_path / "faq.csv", overrides={"temperature": 0.3})
    (tmp_path / "again.yaml").write_text(first.to_yaml())
    again = read_plan(tmp_path / "again.yaml", out="elsewhere")
    assert again.to_dict() == first.to_dict()
    assert yaml.safe_load(first.to_yaml())["options"]["temperature"] == 0.3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("contrastve", "unknown recipe 'contrastve': did you mean 'contrastive'"),
        ({"recipe": "contrastive", "optoins": {}}, "did you mean 'options'"),
        ({"recipe": "contrastive", "options": {"temprature": 1}}, "did you mean 'temperature'"),
        ({"recipe": "contrastive", "arguments": {"learning_rates": 1}}, "did you mean 'learning_rate'"),
        ({"recipe": "contrastive", "arguments": {"output_dir": "x"}}, "set by the run itself"),
        ({"recipe": "contrastive", "arguments": {"learning_rate": -1}}, "learning_rate=-1.0: must be above 0"),
        ({"recipe": "contrastive", "arguments": {"learning_rate": "2e-5"}}, "must be a number"),
        ({"recipe": "contrastive", "arguments": {"steps": 0}}, "steps=0"),
        ({"recipe": "contrastive", "arguments": {"batch_size": 1}}, "batch_size=1"),
        ({"recipe": "contrastive", "arguments": {"warmup": 1.5}}, "warmup=1.5"),
        ({"recipe": "contrastive", "arguments": {"max_length": "long"}}, "max_length='long'"),
        ({"recipe": "contrastive", "arguments": []}, "arguments=[]: expected keys"),
        ({"recipe": "contrastive", "loss": "cosinus"}, "did you mean 'cosine'"),
        ({"recipe": "contrastive", "modules": "cosent"}, "'cosent' has no such part; it has loss"),
        ({"recipe": "contrastive", "lora": {"ranks": 3}}, "did you mean 'rank'"),
        ({"recipe": "contrastive", "lora": 0}, "rank must be at least 1"),
        ({"recipe": "contrastive", "seed": "x"}, "seed='x'"),
        ({"recipe": "contrastive", "compare": "yes"}, "compare='yes'"),
        ({"recipe": "contrastive", "evaluation": {"heldout": 0.1}}, "did you mean 'held_out'"),
        ({"recipe": "contrastive", "evaluation": {"held_out": 2}}, "held_out=2"),
        ({"recipe": "contrastive", "evaluation": {"select": "first"}}, "unknown value of select 'first'"),
    ],
)
def test_one_clear_error(content: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(content)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe: contrastive\nrecipe: cosent\n", "the key 'recipe' occurs twice"),
        ("recipe: [\n", "no valid YAML"),
        ("!!python/object/apply:os.system [ls]\n", "no valid YAML"),
        ("contrastive\n", "holds no keys"),
        ("recipe: contrastive\ndata: nothing.csv\nout: x\n", "nothing.csv does not exist"),
        ("recipe: contrastive\nout: x\n", "data: none given"),
    ],
)
def test_a_bad_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_plan(tmp_path / "r.yaml")
    assert said in str(caught.value)


def test_missing_file_missing_out_and_unknown_override_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be read"):
        plan(Path("nowhere.yaml"))
    with pytest.raises(InputError, match="out: say where"):
        plan(out=None)
    with pytest.raises(InputError, match="did you mean 'temperature'"):
        plan(overrides={"temperatur": 1})


def test_the_later_of_steps_and_epochs_counts() -> None:
    assert settle({"steps": 5}, {"epochs": 2})["steps"] is None
    assert settle({"num_train_epochs": 5}, {"max_steps": 2})["steps"] == 2
    assert settle({"epochs": 2, "steps": 9})["steps"] == 9


def test_a_part_of_another_recipe_sees_its_own_options(tmp_path: Path) -> None:
    whole = compose("contrastive", {"loss": "cosent"})
    assert whole.name == "contrastive+loss:cosent"
    assert whole.takes == ("scored",)
    assert set(whole.options) == {"scale"}
    seen: list[Setting] = []
    from embedlab.text.training import catalogue

    spy = Recipe(
        name="spy", summary="Looks.", takes=("pairs",), loss=lambda *given: None, options={"own": 1, "temperature": 9},
        post=lambda model, base, setting: seen.append(setting),
    )  # fmt: skip
    part = catalogue._narrowed(spy.post, spy)
    assert part is not None
    part(None, None, Setting({"own": 5, "other": 3}, tmp_path, 0))
    assert seen[0].options == {"own": 5, "temperature": 9}


def test_the_recipe_files_of_the_page_are_right(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "train.md"
    blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for name in ("faq.csv", "threads.parquet", "handbook"):
        (tmp_path / name).touch()
    for number, block in enumerate(blocks):
        (tmp_path / "r.yaml").write_text(block)
        rest = {"data": ROWS, "out": "made"} if number == 2 else {}
        assert read_plan(tmp_path / "r.yaml", **rest).recipe.loss is not None
