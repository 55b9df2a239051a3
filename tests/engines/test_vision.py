"""Models that see: the image reaches the model as the model's own library would bring it there."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from checkpoints import write_tiny
from PIL import Image as pillow
from safetensors import safe_open
from vision_models import qwen2_vl, write_vision

import seedfold
from seedfold import config, models
from seedfold.engines import open_engine, opened
from seedfold.engines.base import Answer, Decoding, Prompt, pictures
from seedfold.engines.text import encode_chat
from seedfold.engines.transformers import TransformersEngine
from seedfold.engines.vision import VisionEngine, weights_of
from seedfold.errors import UserError
from seedfold.evaluate import Evaluator
from seedfold.noise.torch import perturbation
from seedfold.progress import Progress
from seedfold.recipe import Term
from seedfold.report.record import TIMES
from seedfold.tasks.gqa import GQA
from seedfold.tasks.images import Images

COLOURS = {"red": (220, 30, 20), "green": (10, 190, 40), "blue": (20, 40, 230), "white": (250, 250, 250)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = write_vision(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return get


@pytest.fixture(scope="module", params=["idefics3", "llava", "gemma3"])
def engine(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> VisionEngine:
    return opened_on(checkpoint(request.param))


@pytest.fixture(scope="module")
def llava(checkpoint: Callable[[str], Path]) -> VisionEngine:
    return opened_on(checkpoint("llava"))


@pytest.fixture(autouse=True)
def _engines_start_as_their_base(request: pytest.FixtureRequest) -> None:
    for name in ("engine", "llava"):
        if name in request.fixturenames:
            request.getfixturevalue(name).become(None)


def opened_on(folder: Path) -> VisionEngine:
    made = open_engine(config.Model(name=str(folder), device="cpu"), config.Engine())
    assert isinstance(made, VisionEngine)
    return made


def png(colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> bytes:
    """Noise around a colour, so that tiles of an image differ."""
    draw = np.random.Generator(np.random.PCG64(sum(colour)))
    pixels = np.clip(np.array(colour) + draw.integers(-20, 20, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def chat(colour: str, question: str = "Which colour?") -> list[dict[str, Any]]:
    image = Images(Path()).read(png(COLOURS[colour]), "row 1")
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]


def prompt(engine: VisionEngine, messages: list[dict[str, Any]], key: str = "k") -> Prompt:
    return Prompt(engine.encode(messages), key, *pictures(messages))


def answers(engine: VisionEngine, prompts: list[Prompt], decoding: Decoding) -> list[Answer]:
    found = [answer for batch in engine.generate(prompts, decoding) for answer in batch]
    return sorted(found, key=lambda answer: (answer.index, answer.sample))


def by_the_library(folder: Path, messages: list[dict[str, Any]], new: int) -> tuple[Any, list[int]]:
    """Inputs and greedy tokens by transformers alone, from the checkpoint's files."""
    processor = hf.AutoProcessor.from_pretrained(folder, backend="pil")
    model = hf.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).eval()
    plain = json.loads(json.dumps(messages, default=lambda image: ""))
    for message, own in zip(plain, messages, strict=True):
        for part, mine in zip(message["content"], own["content"], strict=True):
            if part["type"] == "image":
                part["image"] = pillow.open(io.BytesIO(mine["image"].data))
    inputs = processor.apply_chat_template(
        plain, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ).to(torch.bfloat16)
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False)
        logits = model(**inputs).logits[0, -1].float()
    return (inputs, logits), tokens[0, inputs["input_ids"].shape[1] :].tolist()


def test_the_engine_says_what_transformers_says(engine: VisionEngine) -> None:
    for messages in (chat("red"), chat("blue", "What is it?")):
        (inputs, logits), tokens = by_the_library(Path(engine.name), messages, 12)
        mine = prompt(engine, messages)
        assert mine.tokens == tuple(inputs["input_ids"][0].tolist())
        found = answers(engine, [mine], Decoding(12))[0]
        assert found.text == engine.tokenizer.decode(tokens, skip_special_tokens=True)
        assert (found.tokens, found.finish, found.prompt_tokens) == (12, "length", len(mine.tokens))
        scores = engine.logprobs([mine], [tokens])[0]
        assert scores[0] == pytest.approx(float(logits.log_softmax(-1)[tokens[0]]), abs=0.02)
        assert np.mean(scores) > np.mean(engine.logprobs([mine], [tokens[::-1]])[0])


def test_another_image_is_another_answer(engine: VisionEngine) -> None:
    prompts = [prompt(engine, chat(colour), colour) for colour in COLOURS]
    assert len({one.tokens for one in prompts}) == 1  # the tokens alone would tell nothing
    tail = [engine.tokenizer.encode(" red and blue")] * 4
    scores = engine.logprobs(prompts, tail)
    assert len({tuple(score) for score in scores}) == 4
    assert np.ptp([sum(score) for score in scores]) > 0.1
    assert len({answer.text for answer in answers(engine, prompts, Decoding(8))}) == 4
    assert engine.logprobs(prompts[::-1], tail) == scores[::-1]


def test_answers_do_not_depend_on_company(engine: VisionEngine) -> None:
    prompts = [prompt(engine, chat(colour), colour) for colour in COLOURS]
    text = prompt(engine, [{"role": "user", "content": "Just say something."}], "text")
    sampled = Decoding(6, temperature=1.0, top_p=0.9, samples=(1, 2, 5))
    together = answers(engine, [*prompts, text], sampled)
    assert len({answer.text for answer in together}) == 15
    for i, one in enumerate([*prompts, text]):
        alone = answers(engine, [one], Decoding(6, temperature=1.0, top_p=0.9, samples=(5,)))[0]
        assert alone.text == together[3 * i + 2].text
    known = {(0, 1), (0, 2), (0, 5), (2, 2)}
    rest = [answer for batch in engine.generate([*prompts, text], sampled, known) for answer in batch]
    assert rest == [answer for answer in together if (answer.index, answer.sample) not in known]


def test_positions_of_an_image_s_grid_do_not_stay_for_the_next_prompt() -> None:
    """Qwen2-VL keeps its last prompt's positions in the model; a text after an image must not be answered with them."""
    engine = VisionEngine(*qwen2_vl(), "qwen2-vl")
    text = [{"role": "user", "content": [{"type": "text", "text": "Hello there"}]}]
    prompts = [prompt(engine, messages) for messages in (chat("green"), text, chat("blue"))]
    assert len(prompts[0].tokens) > len(prompts[1].tokens) + 4
    after = answers(engine, prompts, Decoding(8))
    for mine, found in zip(prompts, after, strict=True):
        inputs = {"input_ids": torch.tensor([mine.tokens])}
        if mine.images:
            inputs = {name: value.clone() for name, value in engine._prepared(mine.chat, mine.images).items()}
        engine.model.base_model.rope_deltas = None  # as it is when loaded
        with torch.no_grad():
            tokens = engine.model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False)[0, -8:]
        assert found.text == engine.tokenizer.decode(tokens, skip_special_tokens=True)


def test_stop_strings_and_the_end_token_end_an_answer(llava: VisionEngine) -> None:
    one = prompt(llava, chat("green"))
    whole = answers(llava, [one], Decoding(12))[0]
    cut = whole.text[4:7]
    stopped = answers(llava, [one], Decoding(12, stop=(cut,)))[0]
    assert (stopped.text, stopped.finish) == (whole.text[: whole.text.find(cut)], "stop")
    assert stopped.tokens < whole.tokens
    llava._ends.add(llava.tokenizer.encode(whole.text)[0])
    assert answers(llava, [one], Decoding(12))[0].tokens == 1


def test_length_is_checked_and_images_count(llava: VisionEngine) -> None:
    one = prompt(llava, chat("red"))
    assert one.tokens.count(llava.tokenizer.convert_tokens_to_ids("<image>")) == 4
    with pytest.raises(UserError, match="exceed the 512 positions"):
        next(llava.generate([one], Decoding(500)))
    assert llava.logprobs([one, one], [[], [5]])[0] == []


def test_recipes_reach_the_tower_too_and_leave_it_again(engine: VisionEngine, recipe_on: Any) -> None:
    base, tail = engine.weights.checksum(), [[7, 8, 9]]
    one = prompt(engine, chat("white"))
    before = engine.logprobs([one], tail)
    tower = recipe_on(engine, (5, 0.05), include=("*vision_*",))
    engine.become(tower)
    assert engine.logprobs([one], tail) != before
    changed = [n for n in engine.weights.tensors if not torch.equal(engine.weights.live(n), engine.weights.base(n))]
    assert changed
    assert all("vision" in name for name in changed)
    engine.become(recipe_on(engine, (6, 0.01)))
    moved = [n for n in engine.weights.tensors if not torch.equal(engine.weights.live(n), engine.weights.base(n))]
    assert set(moved) == set(engine.weights.tensors)
    engine.become(None)
    assert engine.weights.checksum() == base
    assert engine.logprobs([one], tail) == before


def test_tensors_have_the_checkpoint_s_names(engine: VisionEngine, recipe_on: Any) -> None:
    with safe_open(Path(engine.name) / "model.safetensors", "pt") as file:
        written = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    assert {name: tuple(value.shape) for name, value in written.items()} == {
        name: tensor.shape for name, tensor in engine.weights.tensors.items()
    }
    for name, value in written.items():
        assert torch.equal(value.view(-1), engine.weights.base(name))
    engine.become(recipe_on(engine, (11, 0.02)))
    for name, value in written.items():
        step = perturbation(engine.weights.tensors[name].segment(), [Term("rademacher", 11, 0.02)])
        assert torch.equal(engine.weights.live(name), (value.view(-1).float() + step).bfloat16())


def test_export_is_an_ordinary_checkpoint(engine: VisionEngine, recipe_on: Any, tmp_path: Path) -> None:
    recipe = recipe_on(engine, (3, 0.02))
    engine.export(recipe, tmp_path / "out", "# card\n")
    _, tokens = by_the_library(tmp_path / "out", chat("blue"), 8)
    one = prompt(engine, chat("blue"))
    assert answers(engine, [one], Decoding(8))[0].text == engine.tokenizer.decode(tokens, skip_special_tokens=True)
    again = opened_on(tmp_path / "out")
    assert again.fingerprint == engine.weights.checksum() != engine.fingerprint
    assert prompt(again, chat("blue")) == one
    assert again.logprobs([one], [[1, 2]]) == engine.logprobs([one], [[1, 2]])
    assert (tmp_path / "out" / "README.md").read_text() == "# card\n"


def test_what_an_engine_tells_of_itself(llava: VisionEngine) -> None:
    found = llava.describe()
    assert found["images"] == "SiglipImageProcessorPil"
    assert found["exact"] is True
    assert llava.positions == 512
    assert llava.sizes()["cache_bytes_per_token"] == 2 * 2 * 2 * 12 * 2
    held = sum(tensor.numel for tensor in llava.weights.tensors.values())
    assert llava.sizes()["weights"] == 2 * held


def test_a_probe_that_differs_is_told(llava: VisionEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    other = VisionEngine(llava.model, llava.processor, llava.name)
    drift = iter(range(1000))
    plain = other._go_on
    monkeypatch.setattr(
        other, "_go_on", lambda *given: plain(*given) + next(drift) * torch.arange(len(other.tokenizer))
    )
    assert other.exact is False


def test_prepared_images_are_kept_while_there_is_room(llava: VisionEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    other = VisionEngine(llava.model, llava.processor, llava.name)
    prompts = [prompt(llava, chat(colour)) for colour in COLOURS]
    other._room = 2 * 3 * 28 * 28 * 2 + 1000
    called = []
    plain = type(other.processor).apply_chat_template
    monkeypatch.setattr(
        type(other.processor), "apply_chat_template", lambda *a, **k: called.append(1) or plain(*a, **k)
    )
    first = other.logprobs(prompts, [[1]] * 4)
    assert (len(called), len(other._kept)) == (4, 2)
    assert other.logprobs(prompts, [[1]] * 4) == first == llava.logprobs(prompts, [[1]] * 4)
    assert len(called) >= 6


def test_prompts_travel_and_name_their_images_cheaply(llava: VisionEngine) -> None:
    one = prompt(llava, chat("red"))
    again = pickle.loads(pickle.dumps(one))
    assert (again, hash(again)) == (one, hash(one))
    assert again.images[0].data == one.images[0].data
    assert len(repr(one.images)) < 100
    assert one.images[0].digest in one.chat
    assert Prompt((1, 2), "k") == Prompt((1, 2), "k", (), "")
    assert one != prompt(llava, chat("blue"))


def test_a_prompt_of_another_processor_is_refused(llava: VisionEngine) -> None:
    one = prompt(llava, chat("red"))
    with pytest.raises(ValueError, match="was not encoded by this model's processor"):
        llava.logprobs([Prompt(one.tokens[:-1], "k", one.images, one.chat)], [[1]])


def test_a_question_that_holds_the_image_s_mark_is_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match=r"refuses a prompt .*change or drop that example"):
        opened_on(checkpoint("idefics3")).encode(chat("red", "What does <image> mean?"))


def test_a_processor_without_a_template_is_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("llava"), folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"has no chat template.*chat_template\.jinja"):
        opened_on(folder).encode(chat("red"))
    (folder / "processor_config.json").unlink()
    with pytest.raises(UserError, match=r'"model\.name" is ".*copy".*processor'):
        opened_on(folder)


def test_engines_for_text_refuse_images(smol: TransformersEngine, tmp_path: Path) -> None:
    image = Images(Path()).read(png(COLOURS["red"]), "row 1")
    from seedfold.tasks.base import Example

    example = Example.of({"question": "?", "answer": "red", "image": image.digest})
    evaluator = Evaluator(smol, GQA([example], {image.digest: image}), None, Progress(quiet=True))
    with pytest.raises(UserError, match=r'the task shows images, but model "smollm2-135m" is read as text alone'):
        evaluator.prompt(example)
    with pytest.raises(UserError, match="shows images"):
        encode_chat(smol.tokenizer, chat("red"), "any")
    plain = [{"role": "user", "content": "Hello"}]
    assert encode_chat(smol.tokenizer, plain, "any") == smol.encode(plain)


def test_models_that_see_are_told_from_others(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    assert models.sees(config.Model(name=str(checkpoint("llava"))))
    assert not models.sees(config.Model())
    assert not models.sees(config.Model(name=str(write_tiny(tmp_path / "text"))))
    with pytest.raises(UserError, match=r'"model\.device" is "cuda:9"'):
        VisionEngine.open(config.Model(name=str(checkpoint("llava")), device="cuda:9"), config.Engine())


def test_tensors_in_another_shape_than_the_checkpoint_s_are_refused() -> None:
    shape = hf.MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    with pytest.raises(UserError, match=r'model "moe" holds .*experts.* in another shape'):
        weights_of(hf.MixtralForCausalLM(shape), "moe")


# The whole


def write_rows(folder: Path, count: int) -> Path:
    lines = []
    for number in range(count):
        name, colour = list(COLOURS.items())[number % 4]
        (folder / f"{number}.png").write_bytes(png(tuple(max(0, c - number) for c in colour)))  # type: ignore[arg-type]
        lines.append(
            json.dumps({"question": f"Which colour is it, {number % 7}?", "answer": name, "image": f"{number}.png"})
        )
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def study(folder: Path, model: Path, engine: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "colours",
        "model": {"name": str(model), "device": "cpu"},
        "task": {"name": "gqa", "path": str(write_rows(folder, 20)), "max_tokens": 4},
        "splits": {"search": 8, "select": 4, "test": 6},
        "search": {"candidates": 3, "sigmas": [0.02, 0.05], "votes": [1, 2]},
        "engine": engine,
        "stats": {"resamples": 200},
    }


def test_a_study_runs_resumes_and_is_the_same(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = study(tmp_path, checkpoint("idefics3"), {})
    whole = seedfold.run(wanted, tmp_path / "whole").record

    plain, left = VisionEngine._answers, iter(range(25))

    def cut(*arguments: Any) -> list[Answer]:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(VisionEngine, "_answers", cut)
    with pytest.raises(KeyboardInterrupt):
        seedfold.run(wanted, tmp_path / "cut")
    monkeypatch.setattr(VisionEngine, "_answers", plain)
    again = seedfold.run(wanted, tmp_path / "cut").record
    for record in (whole, again):
        for name in TIMES:
            record.pop(name, None)
    assert again == whole
    assert {line["n"] for line in whole["results"]} == {6}
    for number in range(20):  # other pictures under the same names
        (tmp_path / f"{number}.png").write_bytes(png((number, 2, 3)))
    with pytest.raises(UserError, match="examples and prompts changed"):
        seedfold.run(wanted, tmp_path / "whole")


def test_a_pool_of_engines_gives_the_same_answers(checkpoint: Callable[[str], Path]) -> None:
    model = config.Model(name=str(checkpoint("llava")), device="cpu")
    here = opened_on(checkpoint("llava"))
    with opened(model, config.Engine(count=2, threads=1)) as pool:
        assert pool.encode(chat("red")) == here.encode(chat("red"))
        prompts = [prompt(here, chat(colour), colour) for colour in COLOURS]
        found = sorted((a for batch in pool.generate(prompts, Decoding(6)) for a in batch), key=lambda a: a.index)
        assert found == answers(here, prompts, Decoding(6))
