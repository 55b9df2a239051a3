"""Measuring a finished model on the splits of its study."""

import json
from pathlib import Path

from checkpoints import small_study, write_tiny

import seedfold
from seedfold import config, evaluation
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
