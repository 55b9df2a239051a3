"""Questions on images: what is right, what an image may be, and what is refused by its row."""

import base64
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as pillow
from pyarrow import parquet

from seedfold import leakage, tasks
from seedfold.config import Task as Settings
from seedfold.engines.base import Prompt, pictures
from seedfold.errors import UserError
from seedfold.tasks import gqa
from seedfold.tasks.base import Example
from seedfold.tasks.gqa import GQA
from seedfold.tasks.images import Images

PAGE = Path(__file__).parents[2] / "docs" / "tasks" / "gqa.md"


def picture(shade: int, kind: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    file = io.BytesIO()
    pillow.fromarray(np.full((size[1], size[0], 3), shade, dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def example(answer: str) -> Example:
    return Example.of({"question": "?", "answer": answer, "image": "0"})


@pytest.mark.parametrize(
    ("text", "answer", "strict", "lenient", "vote"),
    [
        ("red", "red", 1, 1, "red"),
        (" Red.\n", "red", 1, 1, "red"),
        ("The red", "red", 1, 1, "red"),
        ("ｒｅｄ", "red", 1, 1, "red"),
        ("a dining  table.", "dining table", 1, 1, "dining table"),
        ("left", "the left", 1, 1, "left"),
        ("an", "an", 1, 1, "an"),
        ("a", "a", 1, 1, "a"),
        ("another", "other", 0, 0, "another"),
        ("It is red.", "red", 0, 1, "it is red"),
        ("**red**", "red", 0, 1, "**red**"),
        ("red and blue", "red", 0, 1, "red and blue"),
        ("scarred", "red", 0, 0, "scarred"),
        ("the table for dining", "dining table", 0, 0, "table for dining"),
        ("Its color: dark-red!", "dark red", 0, 1, "its color: dark-red!"),
        ("yes", "yes", 1, 1, "yes"),
        ("No.", "no", 1, 1, "no"),
        ("Yes, there is no dog.", "yes", 0, 1, "yes, there is no dog"),
        ("Yes, there is no dog.", "no", 0, 0, "yes, there is no dog"),
        ("Well, yes", "yes", 0, 0, "well, yes"),
        ("nothing", "no", 0, 0, "nothing"),
        ("blue", "red", 0, 0, "blue"),
        ("2", "two", 0, 0, "2"),
        ("", "red", 0, 0, None),
        (" . ", "red", 0, 0, None),
        ("red " * 60, "red", 0, 1, None),
    ],
)
def test_grades(text: str, answer: str, strict: float, lenient: float, vote: str | None) -> None:
    one = example(answer)
    grade = GQA([one], {}).grade(text, one)
    assert (grade.strict, grade.lenient, grade.answer) == (strict, lenient, vote)


@settings(max_examples=200)
@given(st.text(max_size=60), st.sampled_from(["red", "yes", "no", "dining table", "t-shirt"]))
def test_no_text_raises_and_who_votes_alike_earns_alike(text: str, answer: str) -> None:
    one = example(answer)
    task = GQA([one], {})
    for form in ("{}", "The {}.", "  {} ", "{} " + answer):
        grade = task.grade(form.format(text), one)
        assert grade.lenient >= grade.strict
        if grade.answer is not None:
            assert grade.strict == float(grade.answer == gqa.normal(answer))
    assert task.grade(f" The {answer.upper()}.", one).strict == 1


@pytest.mark.parametrize("text", ["red " * 500_000, "\x00\ud800" * 1000, "ﷺ" * 500_000, "the " * 500_000, "." * 10**6])
def test_nasty_texts_are_read_at_once(text: str) -> None:
    start = time.perf_counter()
    assert GQA([], {}).grade(text, example("blue")).lenient == 0
    assert time.perf_counter() - start < 0.5


def write(folder: Path, *rows: dict[str, Any]) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"question": "Which?", "answer": "red", **row}) + "\n" for row in rows))
    return str(file)


def load(path: str, **options: Any) -> GQA:
    task = tasks.load(Settings(name="gqa", path=path, options=options), 1)
    assert isinstance(task, GQA)
    return task


def test_the_message_holds_the_image_and_the_question(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(9))
    task = tasks.load(Settings(name="gqa", path=write(tmp_path, {"image": "a.png"}), system="Look."), 1)
    system, user = task.messages(task.examples[0])
    assert system == {"role": "system", "content": "Look."}
    image, text = user["content"]
    assert (image["type"], text["type"]) == ("image", "text")
    assert text["text"] == "Which?\nAnswer the question using a single word or phrase."  # type: ignore[index]
    assert image["image"].data == picture(9)  # type: ignore[attr-defined, index]
    assert (task.max_tokens, task.stop) == (16, ())
    quoted = re.sub(r"^> ", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert gqa.INSTRUCTION in quoted


def test_one_picture_in_every_form_is_one_example(tmp_path: Path) -> None:
    data = picture(40, "JPEG")
    (tmp_path / "here.jpg").write_bytes(data)
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    forms = ["here.jpg", str(tmp_path / "here.jpg"), uri, {"bytes": None, "path": "here.jpg"}]
    assert len(load(write(tmp_path, *({"image": form} for form in forms))).examples) == 1
    stored = [
        {"question": "Which?", "answer": "red", "image": {"bytes": data, "path": "elsewhere.jpg"}},
        {"question": "Which?", "answer": "red", "image": {"bytes": picture(41), "path": "elsewhere.jpg"}},
    ]
    parquet.write_table(pa.Table.from_pylist(stored), tmp_path / "rows.parquet")
    both = load(str(tmp_path / "rows.parquet")).examples
    assert both[0] == load(write(tmp_path, {"image": "here.jpg"})).examples[0]
    assert len({one.id for one in both}) == 2
    plain = [{**row, "image": row["image"]["bytes"]} for row in stored]  # type: ignore[index]
    parquet.write_table(pa.Table.from_pylist(plain), tmp_path / "plain.parquet")
    assert load(str(tmp_path / "plain.parquet")).examples == both


def test_the_same_question_on_another_image_is_another_prompt(tmp_path: Path) -> None:
    for shade in (1, 2):
        (tmp_path / f"{shade}.png").write_bytes(picture(shade))
    task = load(write(tmp_path, {"image": "1.png"}, {"image": "2.png"}))
    texts = [leakage.prompt_text(task.messages(one)) for one in task.examples]
    assert len(set(texts)) == 2
    assert max(map(len, texts)) < 300  # the digest stands there, not the picture
    found = [pictures(task.messages(one)) for one in task.examples]
    prompts = {Prompt((1,), "k", *each) for each in found}
    assert len(prompts) == 2


def test_pictures_are_upright_rgb_and_the_first_frame(tmp_path: Path) -> None:
    file = io.BytesIO()
    exif = pillow.Exif()
    exif[0x0112] = 6  # turned by a quarter
    pillow.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(file, "JPEG", exif=exif)
    images = Images(tmp_path)
    assert images.read(file.getvalue(), "row 1").open().size == (6, 8)
    assert images.read(pillow.open(file), "row 1").open().size == (6, 8)
    for mode in ("L", "RGBA", "P", "1", "I;16"):
        file = io.BytesIO()
        pillow.new(mode, (5, 4)).save(file, "PNG")
        opened = images.read(file.getvalue(), "row 1").open()
        assert (opened.mode, opened.size) == ("RGB", (5, 4))


def test_a_picture_that_is_open_counts_by_its_pixels(tmp_path: Path) -> None:
    images = Images(tmp_path)
    one = images.read(pillow.open(io.BytesIO(picture(7))), "row 1")
    assert one == images.read(pillow.open(io.BytesIO(picture(7, "BMP"))), "row 2")
    assert one != images.read(pillow.open(io.BytesIO(picture(8))), "row 3")
    assert np.asarray(one.open()).tolist() == np.asarray(pillow.open(io.BytesIO(picture(7)))).tolist()


def test_the_folder_of_images_is_an_option(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(picture(9))
    path = write(tmp_path, {"image": "a.png"})
    assert len(load(path, images=str(tmp_path / "pictures")).examples) == 1
    with pytest.raises(UserError, match=r'row 1 has the image ".*a\.png", which cannot be read \(No such file'):
        load(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "absent.png"}, r'row 2 has the image ".*absent\.png", which cannot be read'),
        ({"image": "."}, "row 2 .*cannot be read .*directory"),
        ({"image": "\x00"}, "row 2 .*cannot be read"),
        ({"image": "text.png"}, r'row 2, image ".*text\.png", has an image that cannot be decoded \(Unidentified'),
        ({"image": "cut.png"}, r'row 2, image ".*cut\.png", has an image that cannot be decoded'),
        ({"image": "cut.jpg"}, r'row 2, image ".*cut\.jpg", has an image that cannot be decoded \(OSError'),
        ({"image": "data:image/png;base64,####"}, "row 2 has a data: URI that cannot be read"),
        ({"image": "data:image/png,abc"}, "row 2 has a data: URI that cannot be read .*data:image/png;base64"),
        ({"image": "https://example.org/a.png"}, "row 2 .*which is not fetched"),
        ({"image": None}, "row 2 has nothing for an image"),
        ({"image": ""}, "row 2 has nothing for an image"),
        ({"image": {"bytes": None, "path": None}}, "row 2 has nothing for an image"),
        ({"image": 7}, "row 2 has a int for an image"),
        ({}, r"row 2 is no GQA row \(columns question, answer\)"),
        ({"image": "a.png", "answer": ""}, "row 2 is no GQA row"),
        ({"image": "a.png", "answer": "..."}, "row 2 is no GQA row"),
        ({"image": "a.png", "question": 3}, "row 2 is no GQA row"),
    ],
)
def test_bad_rows_are_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    draw = np.random.Generator(np.random.PCG64(0))
    noise = pillow.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for kind in ("png", "jpg"):
        noise.save(tmp_path / f"cut.{kind}")
        (tmp_path / f"cut.{kind}").write_bytes((tmp_path / f"cut.{kind}").read_bytes()[:2000])
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, {"image": "a.png"}, row))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": ""}, '"task.path", which is empty'),
        ({"options": {"image": "x"}}, 'no option "image" = .* did you mean "images"'),
        ({"options": {"images": 3}}, '"task.options.images" is 3; give the folder'),
        ({"options": {"images": "/nowhere/at/all"}}, "there is no such folder"),
    ],
)
def test_settings_are_strict(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    wanted = {"name": "gqa", "path": write(tmp_path, {"image": "a.png"}), **changes}
    with pytest.raises(UserError, match=message):
        tasks.load(Settings(**wanted), 1)
