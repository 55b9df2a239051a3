"""Reading rows: what is read, and one sentence for each way that it can fail."""

import builtins
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import code, data, latex


def test_jsonl_keeps_line_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes('\ufeff{"a": "x\u2028y"}\r\n\n{"a": 2}\n'.encode())
    assert data.rows(str(file)) == [(1, {"a": "x\u2028y"}), (3, {"a": 2})]
    assert len(data.rows(str(file), limit=1)) == 1


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra seedfold[parquet] is not installed")
    from pyarrow import parquet

    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"prompt": ["a", "b"], "n": [1, 2]}), file)
    assert data.rows(str(file)) == [(1, {"prompt": "a", "n": 1}), (2, {"prompt": "b", "n": 2})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r'a.jsonl" line 2 is not valid JSON \(Expecting value\)'),
        ("a.jsonl", b"[" * 100_000, r"line 1 is not valid JSON \(RecursionError\)"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "line 2 is a JSON list, not an object"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', "not UTF-8 in line 2; save it as UTF-8"),
        ("a.jsonl", b"\n \n", "has no rows"),
        ("a.jsonl", b"", "has no rows"),
        ("a.csv", b"a,b\n", 'whose ending ".csv" is not read; give a .jsonl or .parquet file'),
        ("a.parquet", b"no parquet", r"cannot be read \(.*Parquet magic bytes"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        data.rows(str(file))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'does not exist; check "task.path"'):
        data.rows(str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match=r'whose ending ".json" is not read'):
        data.rows("none.json")
    with pytest.raises(UserError, match=r"a folder; give a .jsonl"):
        data.rows(str(tmp_path))


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, split: str) -> list[dict[str, int]]:
        asked.append((name, config, split))
        if name == "none/such":
            raise FileNotFoundError("no dataset\nlong story")
        return [{"a": 1}, {"a": 2}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert data.rows("owner/name:main", "test") == [(1, {"a": 1}), (2, {"a": 2})]
    assert asked == [("owner/name", "main", "test")]
    with pytest.raises(
        UserError, match=r'"none/such", split "train", cannot be read \(FileNotFoundError: no dataset\)'
    ):
        data.rows("none/such")


@pytest.mark.parametrize(
    ("name", "changes", "asked"),
    [
        ("math500", {}, ("HuggingFaceH4/MATH-500", None, "test")),
        ("math500", {"path": "HuggingFaceH4/MATH-500"}, ("HuggingFaceH4/MATH-500", None, "test")),
        ("math500", {"path": "own/math"}, ("own/math", None, "train")),
        ("math500", {"hub_split": "validation"}, ("HuggingFaceH4/MATH-500", None, "validation")),
        ("humaneval", {}, ("openai/openai_humaneval", None, "test")),
        ("humaneval", {"path": "own/code", "hub_split": "test"}, ("own/code", None, "test")),
        ("mbpp", {}, ("google-research-datasets/mbpp", None, "train")),
        ("mbpp", {"hub_split": "prompt"}, ("google-research-datasets/mbpp", None, "prompt")),
        ("gsm8k", {}, ("openai/gsm8k", "main", "train")),
        ("olympiadbench", {}, ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train")),
    ],
)
def test_a_published_dataset_is_read_in_the_one_split_that_it_has(
    name: str, changes: dict[str, str], asked: tuple[str, str | None, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []

    def load_dataset(name: str, config: str | None, split: str) -> list[dict[str, int]]:
        found.append((name, config, split))
        return []

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(code, "opened", lambda settings: None)  # no sandbox is needed to read
    monkeypatch.setattr(latex, "need_package", lambda name: None)
    with pytest.raises(UserError, match="has no rows"):
        tasks.load(Settings(name=name, **changes), 1)
    assert found == [asked]


@pytest.mark.parametrize(
    ("path", "package", "extra"), [("owner/name", "datasets", "tasks"), ("a.parquet", "pyarrow", "parquet")]
)
def test_missing_packages_name_their_extra(
    path: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=rf'pip install "seedfold\[{extra}\]"'):
        data.rows(path)
