"""Measuring a finished model on the splits of its study."""

import json
from pathlib import Path

import pytest
from checkpoints import small_study, write_tiny

import seedfold
from seedfold import config, evaluation
from seedfold.recipe import Base, Recipe, Term
from seedfold.splits import deal


def test_eval_answers_the_studys_own_test_split_where_prompts_repeat(tmp_path: Path) -> None:
    mine = small_study(tmp_path, write_tiny(tmp_path / "model"), candidates=2, votes=[1])
    rows = [{"id": i, "prompt": f"Say word {i % 70}.", "share": 0.4} for i in range(140)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = seedfold.run(mine, tmp_path / "out")
    assert done.record["leakage"]["repeated_prompts"] > 0
    recipe, answers = tmp_path / "out" / "recipes" / "rank-01.json", tmp_path / "answers.jsonl"
    line = evaluation.evaluate(config.from_dict(mine), [recipe], "test", answers)
    asked = {json.loads(text)["example"] for text in answers.read_text().splitlines()}
    assert asked == {example.id for example in deal(config.from_dict(mine)).splits.test}
    assert line["accuracy"] == done.results[1]["accuracy"]


@pytest.mark.parametrize("kind", ["llava", "idefics3"])
def test_inspect_knows_models_that_see_by_their_checkpoints_names(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import safe_open

    from seedfold.engines.vision import VisionEngine

    monkeypatch.syspath_prepend(str(Path(__file__).parent / "engines"))
    from vision_models import write_vision

    model = config.Model(name=str(write_vision(kind, tmp_path / "model")))
    fingerprint = VisionEngine.open(model, config.Engine()).fingerprint
    base = Base(model.name, "", fingerprint)
    Recipe(base, (Term("rademacher", 5, 0.05),), dtype="bfloat16", include=("*vision*",)).save(tmp_path / "r.json")
    steps, recipe = evaluation.inspect(tmp_path / "r.json")
    assert recipe.base == base
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as written:
        names = {name: written.get_tensor(name).numel() for name in written.keys()}  # noqa: SIM118
    changed = {step.tensor: step for step in steps if step.changed}
    assert set(changed) == {name for name in names if "vision" in name}
    assert all(step.weights == names[name] and step.cosine > 0.9 for name, step in changed.items())
