import math
import tomllib
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest

from seedfold import config
from seedfold.config import Config
from seedfold.errors import UserError


def message(settings=(), path=None):
    with pytest.raises(UserError) as caught:
        config.load(path, settings)
    return str(caught.value)


def to_toml(tree, prefix=""):
    """TOML of nested dicts of strings, numbers, booleans and lists of them."""
    import json

    plain = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    lines = [f"[{prefix}]"] if prefix else []
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for key, value in tree.items():
        if isinstance(value, dict):
            lines.append(to_toml(value, f"{prefix}.{key}" if prefix else key))
    return "\n".join(lines)


def leaves(kind, prefix=""):
    hints = get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            yield from leaves(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def test_without_a_file_the_defaults_hold():
    assert config.load() == Config() == config.from_dict({})


def test_a_config_comes_back_from_toml(tmp_path):
    settings = [
        "search.sigmas=[1e-3, 2]",
        "search.seed=18446744073709551615",
        'task.options={min=3, name="größer"}',
        "search.antithetic=true",
        "task.stop=['\\n', \"Q:\"]",
        "engine.top_p=0.9",
    ]
    made = config.load(None, settings)
    assert made.search.sigmas == (1e-3, 2.0)
    assert made.search.seed == 2**64 - 1
    assert made.task.options == {"min": 3, "name": "größer"}
    path = tmp_path / "study.toml"
    path.write_text(to_toml(made.to_dict()), encoding="utf-8")
    assert tomllib.loads(path.read_text(encoding="utf-8"))
    assert config.load(path) == made
    assert config.from_dict(made.to_dict()) == made


def test_settings_go_over_the_file_in_order(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("[search]\ncandidates = 20\nseed = 3\n")
    made = config.load(path, ["search.candidates=30", "search.candidates=40"])
    assert (made.search.candidates, made.search.seed) == (40, 3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("name=my run", "my run"),
        ("name='quoted'", "quoted"),
        ("name=a=b", "a=b"),
        ("model.name=./a/b.gguf", "./a/b.gguf"),
    ],
)
def test_a_bare_word_is_a_string(text, value):
    made = config.load(None, [text])
    assert value in (made.name, made.model.name)


def test_an_integer_stands_for_a_number_and_becomes_one():
    assert isinstance(config.load(None, ["engine.temperature=1"]).engine.temperature, float)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        # unknown
        ("search.candidate=8", ('"search.candidate"', "8", 'did you mean "search.candidates"')),
        ("serach.candidates=8", ('"serach"', 'did you mean "search"')),
        ("search.zzz=8", ('"search.zzz"', "known here", "sigmas")),
        # of another type
        ("search.candidates=eight", ('"search.candidates"', "'eight'", "whole number")),
        ("search.candidates=8.0", ('"search.candidates"', "8.0", "whole number")),
        ("search.candidates=true", ('"search.candidates"', "True", "whole number")),
        ("engine.temperature=true", ('"engine.temperature"', "True", "number")),
        ("search.sigmas=0.001", ('"search.sigmas"', "0.001", "list of numbers")),
        ("search.sigmas=[true]", ('"search.sigmas"', "True", "number")),
        ("search.sigmas=['a']", ('"search.sigmas"', "'a'", "number")),
        ("search.votes=[1.5]", ('"search.votes"', "1.5", "whole number")),
        ("search.antithetic=1", ('"search.antithetic"', "1", "true or false")),
        ("search.include='*'", ('"search.include"', "'*'", "list of strings")),
        ("name=3", ('"name"', "3", "string")),
        ("task.options=3", ('"task.options"', "3", "table")),
        ("search=3", ('"search"', "3", "section")),
        # out of range
        ("search.sigmas=[0.001, 0]", ('"search.sigmas"', "0.0", "above 0")),
        ("search.sigmas=[-0.1]", ('"search.sigmas"', "-0.1", "above 0")),
        ("search.sigmas=[nan]", ('"search.sigmas"', "nan", "finite")),
        ("search.sigmas=[inf]", ('"search.sigmas"', "inf", "finite")),
        ("search.sigmas=[]", ('"search.sigmas"', "[]", "at least one")),
        ("search.candidates=0", ('"search.candidates"', "0", "at least 1")),
        ("search.candidates=-3", ('"search.candidates"', "-3", "at least 1")),
        ("search.votes=[0]", ('"search.votes"', "0", "at least 1")),
        ("search.votes=[]", ('"search.votes"', "[]", "at least one")),
        ("search.seed=-1", ('"search.seed"', "-1", "2**64")),
        ("search.seed=18446744073709551616", ('"search.seed"', "18446744073709551616", "2**64")),
        ("search.keep=1.0", ('"search.keep"', "1.0", "between 0 and 1")),
        ("search.keep=nan", ('"search.keep"', "nan", "between 0 and 1")),
        ("search.scale=relative", ('"search.scale"', "'relative'", "absolute, rms")),
        ("search.include=[]", ('"search.include"', "[]", "at least one")),
        ("model.dtype=int8", ('"model.dtype"', "'int8'", "bfloat16")),
        ("model.name=''", ('"model.name"', "''", "give a name")),
        ("splits.test=1", ('"splits.test"', "1", "at least 2")),
        ("engine.batch=-1", ('"engine.batch"', "-1", "at least 0")),
        ("engine.top_p=0.0", ('"engine.top_p"', "0.0", "above 0")),
        ("engine.top_p=1.1", ('"engine.top_p"', "1.1", "at most 1")),
        ("engine.top_p=nan", ('"engine.top_p"', "nan", "at most 1")),
        ("stats.level=95", ('"stats.level"', "95", "between 0 and 1")),
        ("task.stop=['']", ('"task.stop"', "['']", "empty")),
        ("task.limit=short", ('"task.limit"', "'short'", "fixed, learned")),
        ("engine=fast", ('"engine.name"', "'fast'", "transformers, vllm, stacked")),
        ("engine=3", ('"engine"', "3", "section", 'engine = "NAME"')),
        ("search=few", ('"search"', "'few'", "section")),
        ("engine.count=-1", ('"engine.count"', "-1", "at least 0")),
        ("engine.memory=nan", ('"engine.memory"', "nan", "at least 0")),
        ("engine.base_copy=disk", ('"engine.base_copy"', "'disk'", "device, host")),
        ("engine.tensor_parallel=2", ('"engine.tensor_parallel"', "2", '"transformers"', "vllm")),
        ("engine.memory=2", ('"engine.memory"', "2", '"transformers"', "vllm")),
        ("engine.batch_invariant=false", ('"engine.batch_invariant"', "False", "vllm")),
        ("engine.copies=4", ('"engine.copies"', "4", "stacked")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_setting_is_refused_with_its_field_its_value_and_the_remedy(setting, named):
    said = message([setting])
    for part in named:
        assert part in said
    assert said.count("\n") == 0


def test_a_vote_larger_than_the_population_is_refused():
    said = message(["search.candidates=4", "search.votes=[2, 8]"])
    assert '"search.votes"' in said
    assert "8" in said
    assert '"search.candidates" is 4' in said


def test_pairs_need_an_even_population():
    said = message(["search.candidates=17", "search.antithetic=true"])
    assert '"search.candidates" is 17' in said
    assert "even" in said


def test_a_section_given_as_a_string_is_its_name(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('engine = "vllm"\nmodel = "some/model"\ntask = "gsm8k"\n[search]\ncandidates = 20\n')
    made = config.load(path)
    assert (made.engine.name, made.model.name, made.task.name) == ("vllm", "some/model", "gsm8k")
    assert made.engine.batch == Config().engine.batch
    assert config.from_dict({"engine": "stacked"}).engine == config.Engine(name="stacked")
    assert config.load(path, ["engine.count=3"]).engine == config.Engine(name="vllm", count=3)
    assert config.load(path, ["engine=stacked"]).engine.name == "stacked"
    assert config.load(None, ["engine.batch=3", "engine=vllm"]).engine == config.Engine(name="vllm", batch=3)
    assert config.load(None, ["task.options={model='a', engine=3}"]).task.options == {"model": "a", "engine": 3}


def test_a_folder_is_bound_to_what_changes_results():
    one = config.load(None, ["engine=vllm"])
    other = config.load(None, ["engine=vllm", "engine.count=4", "engine.memory=2.5", "engine.base_copy=host"])
    assert one.to_dict() != other.to_dict()
    assert one.binding() == other.binding()
    for item in ("engine=transformers", "engine.batch=3", "engine.batch_invariant=false", "engine.tensor_parallel=2"):
        assert config.load(None, ["engine=vllm", item]).binding() != one.binding()


@pytest.mark.parametrize("item", ["search.candidates", "=3", " =3", ""])
def test_a_setting_without_field_or_value_is_refused(item):
    assert f'"{item}"' in message([item])


@pytest.mark.parametrize("item", ["name.first=3", "search.seed.low=3"])
def test_a_value_is_no_section(item):
    assert "not a section" in message(["name=run", "search.seed=1", item])


def test_a_bad_file_is_named(tmp_path):
    path = tmp_path / "study.toml"
    assert str(path) in message(path=path)
    assert "does not exist" in message(path=path)
    path.write_text("[search\ncandidates = 3")
    assert f'"{path}" is not valid TOML' in message(path=path)
    assert "line 1" in message(path=path)
    path.write_bytes(b"name = '\xff'")
    assert "cannot be read" in message(path=path)
    assert "cannot be read" in message(path=tmp_path)


def test_bad_values_in_a_file_are_refused_as_in_settings(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("[search]\ncandidates = 0\n")
    assert '"search.candidates" is 0' in message(path=path)


def test_every_setting_is_described():
    described = config.describe()
    assert [path for path, *_ in described] == list(leaves(Config))
    for path, kind, default, doc in described:
        assert doc, path
        assert kind, path
        assert default == getattr_path(Config(), path)


def getattr_path(value, path):
    for name in path.split("."):
        value = getattr(value, name)
    return value


def test_every_default_passes_its_own_check():
    config.from_dict(Config().to_dict())
    assert all(math.isfinite(sigma) for sigma in Config().search.sigmas)


@pytest.mark.parametrize(("name", "batch", "at_once"), [("transformers", 0, 64), ("vllm", 0, 256), ("stacked", 32, 32)])
def test_an_engine_answers_as_many_at_once_as_suits_it_unless_told(name, batch, at_once):
    assert config.Engine(name=name, batch=batch).at_once == at_once


def test_a_study_may_go_on_with_its_judge_elsewhere() -> None:
    def binding(**options: object) -> dict[str, object]:
        return config.from_dict({"task": {"name": "writing", "path": "x.jsonl", "options": options}}).binding()

    here = binding(judge_url="http://127.0.0.1:1/v1", judge_model="m", retries=2)
    assert here == binding(judge_url="http://127.0.0.1:2/v1", judge_model="m", parallel=4)
    assert here != binding(judge_url="http://127.0.0.1:1/v1", judge_model="other")
