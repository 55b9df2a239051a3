"""Against a real vLLM, with the transformers engine as the reference. Without a GPU that is vLLM's CPU build.

Starting vLLM takes half a minute, so three engines serve all tests: `tiny` (float32, tied head), `split` (bfloat16, two
workers, biases, an odd vocabulary, one head of keys and values) and `served` (SmolLM2, the base copy in host memory).
"""

import gc
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import transformers
from tiny_models import tiny_model

pytest.importorskip("vllm", reason="needs vllm; pip install 'seedfold[vllm]'", exc_type=ImportError)

from seedfold import config
from seedfold.engines.base import Decoding, Job, Prompt
from seedfold.engines.transformers import TransformersEngine
from seedfold.engines.vllm import VllmEngine
from seedfold.errors import UserError
from seedfold.models import EMBEDDED, locate
from seedfold.recipe import Base, Recipe, Term

CUDA = torch.cuda.is_available()
SMALL = {"kv_cache_memory_bytes": 2**28, "max_model_len": 512, "max_num_seqs": 16}

RECIPES = {
    "one term": {"terms": (Term("rademacher", 1, 0.02),)},
    "several": {"terms": (Term("rademacher", 1, 0.02), Term("gaussian", 2, -0.03), Term("rademacher", 2**63, 0.3))},
    "dither": {"terms": (Term("rademacher", 5, 0.002),), "rounding": "dither"},
    "rms": {"terms": (Term("rademacher", 6, 0.2),), "scale": "rms"},
    "some tensors": {"terms": (Term("gaussian", 7, 0.1),), "include": ("*k_proj*", "*embed*"), "exclude": ("*.0.*",)},
    "no terms": {"terms": ()},
}


def recipe_for(engine, name):
    return Recipe(Base("m", "", engine.fingerprint), dtype=engine.dtype, **RECIPES[name])


def checkpoint(folder, kind, **changes):
    """A tiny random model with SmolLM2's tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(locate(EMBEDDED))
    model = tiny_model(kind, torch.bfloat16, head_dim=32, bos_token_id=1, eos_token_id=2, **changes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def opened(folder, dtype, **settings):
    """(engine, reference) on one checkpoint."""
    model = config.Model(name=str(folder), dtype=dtype, device="cuda" if CUDA else "cpu")
    reference = TransformersEngine.open(replace(model, device="cpu"), config.Engine())
    return VllmEngine(model, **{**SMALL, **settings}), reference


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    vocabulary = len(transformers.AutoTokenizer.from_pretrained(locate(EMBEDDED)))
    folder = checkpoint(tmp_path_factory.mktemp("tiny"), "llama", vocab_size=vocabulary)
    engine, reference = opened(folder, "float32")
    yield engine, reference
    engine.close()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    if (torch.cuda.device_count() if CUDA else os.cpu_count() or 1) < 2:
        pytest.skip("needs two GPUs, or two cores")
    changes = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 300}
    folder = checkpoint(tmp_path_factory.mktemp("split"), "qwen2", **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
        engine, reference = opened(folder, "bfloat16", tensor_parallel_size=2)
    yield engine, reference
    engine.close()


@pytest.fixture(scope="module")
def served():
    engine, reference = opened(EMBEDDED, "bfloat16", base_copy="host")
    yield engine, reference
    engine.close()


@pytest.fixture(params=["tiny", "split"])
def pair(request):
    return request.getfixturevalue(request.param)


def chats(engine, count=6):
    return [
        Prompt(engine.encode([{"role": "user", "content": f"What is {i} plus {3 * i + 1}?"}]), str(i))
        for i in range(count)
    ]


def generated(engine, prompts, decoding, done=()):
    found = {}
    for batch in engine.generate(prompts, decoding, done):
        for answer in batch:
            assert (answer.index, answer.sample) not in found
            found[answer.index, answer.sample] = answer
    return found


def assert_alike(found, expected):
    """Equal; on a GPU, whose sums are others than a CPU's, mostly."""
    assert found.keys() == expected.keys()
    alike = sum(found[key] == expected[key] for key in expected)
    assert alike == len(expected) if not CUDA else alike >= 0.6 * len(expected)


# Weights


def test_the_base_is_the_references(pair):
    engine, reference = pair
    assert engine.fingerprint == reference.fingerprint
    assert list(engine.tensors.values()) == list(reference.weights.tensors.values())
    assert engine.sizes() == reference.sizes()


@pytest.mark.parametrize("name", RECIPES)
def test_weights_are_the_references_bit_for_bit(pair, name):
    engine, reference = pair
    recipe = recipe_for(engine, name)
    engine.become(recipe)
    reference.become(recipe)
    for tensor in engine.tensors:
        assert torch.equal(engine.tensor(tensor), reference.weights.live(tensor)), tensor
    assert engine.checksum() == reference.weights.checksum()
    engine.become(None)
    assert engine.checksum() == engine.fingerprint


def test_a_base_in_host_memory_does_as_well(served):
    engine, reference = served
    assert engine.fingerprint == reference.fingerprint
    assert engine.sizes() == reference.sizes()
    for name in ("one term", "rms"):
        engine.become(recipe_for(engine, name))
        reference.become(recipe_for(engine, name))
        assert engine.checksum() == reference.weights.checksum()
    engine.become(None)
    assert engine.checksum() == engine.fingerprint


def test_many_switches_leave_nothing_behind(pair):
    engine, reference = pair
    for seed in range(12):
        engine.become(replace(recipe_for(engine, "one term"), terms=(Term("rademacher", seed, 0.1 * (seed + 1)),)))
    recipe = recipe_for(engine, "dither")
    engine.become(recipe)
    reference.become(recipe)
    assert engine.checksum() == reference.weights.checksum()
    engine.become(None)
    assert engine.checksum() == engine.fingerprint


def test_padding_is_not_touched(pair):
    engine, _ = pair
    engine.become(recipe_for(engine, "several"))
    assert set(engine._all("seedfold_padding")) == {0.0}


def test_pieces_of_two_workers_are_shards(split):
    engine, _ = split
    layer = "model.layers.1."
    rows = engine._parts[layer + "mlp.gate_proj.weight"]
    assert [(rank, piece.start, piece.rows, piece.row_length) for rank, _, piece in rows] == [
        (0, 0, 1, 150 * 128),
        (1, 150 * 128, 1, 150 * 128),
    ]
    columns = engine._parts[layer + "mlp.down_proj.weight"]
    assert [(rank, piece.start, piece.rows, piece.row_length, piece.row_stride) for rank, _, piece in columns] == [
        (0, 0, 128, 150, 300),
        (1, 150, 128, 150, 300),
    ]
    held = [rank for rank, _, piece in engine._held if piece.tensor == layer + "self_attn.k_proj.bias"]
    assert held == [0, 1]  # both have the one head
    assert len(engine._parts[layer + "self_attn.k_proj.bias"]) == 1


def test_a_recipe_that_does_not_fit_is_refused_and_changes_nothing(tiny):
    engine, _ = tiny
    recipe = recipe_for(engine, "one term")
    engine.become(recipe)
    before = engine.checksum()
    for wrong, why in [
        (replace(recipe, base=Base("m", "", "0" * 32)), "0{32}"),
        (replace(recipe, include=("nothing",)), "leave no tensor"),
        (replace(recipe, terms=(Term("unknown", 1, 0.1),)), "unknown"),
    ]:
        with pytest.raises(UserError, match=why):
            engine.become(wrong)
    assert engine.checksum() == before
    assert engine.recipe == recipe


# Answers


@pytest.mark.parametrize("name", [None, "one term", "several"])
def test_greedy_answers_are_the_references(tiny, name):
    engine, reference = tiny
    recipe = name and recipe_for(engine, name)
    engine.become(recipe)
    reference.become(recipe)
    prompts = chats(engine)
    assert prompts == chats(reference)
    found = generated(engine, prompts, Decoding(24))
    assert_alike(found, generated(reference, prompts, Decoding(24)))
    assert len({answer.text for answer in found.values()}) > 3


def test_two_workers_answer_as_one(split):
    engine, reference = split
    engine.become(None)
    reference.become(None)
    prompts = [Prompt(tuple(range(65 + i, 91 + i)), str(i)) for i in range(6)]
    found, expected = generated(engine, prompts, Decoding(8)), generated(reference, prompts, Decoding(8))
    assert sum(found[key] == expected[key] for key in expected) >= 4  # bfloat16 adds in another order


def test_greedy_answers_of_a_real_model_are_mostly_the_references(served):
    engine, reference = served
    engine.become(None)
    reference.become(None)
    prompts = chats(engine, 10)
    found, expected = generated(engine, prompts, Decoding(12)), generated(reference, prompts, Decoding(12))
    assert sum(found[key] == expected[key] for key in expected) >= 6  # bfloat16: an answer may take another turn


def test_stop_strings_cut_answers(served):
    engine, _ = served
    engine.become(None)
    prompts = chats(engine, 8)
    whole = generated(engine, prompts, Decoding(32))
    for stop in (("concept",), ("is a", "um"), (" ",)):
        found = generated(engine, prompts, Decoding(32, stop=stop))
        for key, answer in found.items():
            text = whole[key].text
            places = [text.find(part) for part in stop if part in text]
            if places:
                assert answer.text == text[: min(places)]
                assert answer.finish == "stop"
                assert answer.tokens <= whole[key].tokens
            else:
                assert answer == whole[key]
        assert any(answer.finish == "stop" and answer.tokens < 32 for answer in found.values())


def test_an_end_token_ends_an_answer(tiny):
    engine, reference = tiny
    engine.become(None)
    reference.become(None)
    prompts = chats(engine)
    token = engine.tokenizer(generated(engine, prompts, Decoding(5))[0, 0].text, add_special_tokens=False)["input_ids"][
        2
    ]
    ends = engine._ends, reference._ends
    try:
        engine._ends, reference._ends = {token}, {token}
        found = generated(engine, prompts, Decoding(16))
        assert_alike(found, generated(reference, prompts, Decoding(16)))
        assert found[0, 0].finish == "stop"
        assert found[0, 0].tokens <= 5
    finally:
        engine._ends, reference._ends = ends


def test_samples_do_not_depend_on_company(tiny):
    engine, _ = tiny
    engine.become(recipe_for(engine, "one term"))
    prompts = chats(engine)
    for top_p in (1.0, 0.8):
        decoding = Decoding(12, temperature=0.9, top_p=top_p, samples=(1, 2, 5))
        found = generated(engine, prompts, decoding)
        assert generated(engine, prompts, decoding) == found
        alone = generated(engine, prompts[4:5], replace(decoding, samples=(2,)))
        assert replace(alone[0, 2], index=4) == found[4, 2]
        assert len({answer.text for answer in found.values()}) == len(found)
    assert engine.exact is True
    assert engine.recipe == recipe_for(engine, "one term")


def test_scores_do_not_depend_on_company(tiny):
    """What stands together in a step depends on what has arrived by then, so once is not enough."""
    engine, _ = tiny
    engine.become(None)
    prompts = [Prompt(tuple(range(50, 53 + 3 * i)), str(i)) for i in range(19)]
    tails = [prompt.tokens[:3] for prompt in prompts]
    alone = [engine.logprobs([prompt], [tail])[0] for prompt, tail in zip(prompts, tails, strict=True)]
    for _ in range(10):
        assert engine.logprobs(prompts, tails) == alone


def test_what_is_done_is_left_out(tiny):
    engine, _ = tiny
    engine.become(None)
    prompts, decoding = chats(engine), Decoding(6, temperature=1.0, samples=(0, 1))
    found = generated(engine, prompts, decoding)
    known = {(0, 0), (0, 1), (3, 1)}
    rest = generated(engine, prompts, decoding, known)
    assert rest == {key: answer for key, answer in found.items() if key not in known}
    assert generated(engine, prompts, decoding, set(found)) == {}
    assert generated(engine, [], decoding) == {}


def test_keys_and_values_of_another_recipe_are_never_used(tiny):
    engine, reference = tiny
    common = tuple(range(1000, 1300))  # longer than a block of the prefix cache
    prompts = [Prompt((*common, 100 + i), str(i)) for i in range(3)]
    for name in ("one term", None, "several", "one term"):
        recipe = name and recipe_for(engine, name)
        engine.become(recipe)
        reference.become(recipe)
        for _ in range(2):
            assert_alike(generated(engine, prompts, Decoding(6)), generated(reference, prompts, Decoding(6)))


def test_jobs_are_done_with_their_recipes(tiny):
    engine, reference = tiny
    prompts, recipes = chats(engine, 4), [recipe_for(engine, name) for name in ("one term", "several")]
    jobs = [Job(recipe, prompts, Decoding(8)) for recipe in (*recipes, None)]
    results = [
        {(number, answer.index): answer for number, batch in owner.run(jobs) for answer in batch}
        for owner in (engine, reference)
    ]
    assert_alike(*results)


def test_an_abandoned_generator_leaves_nothing_running(tiny):
    engine, _ = tiny
    engine.become(None)
    prompts = [replace(prompt, key=str(i)) for i, prompt in enumerate(chats(engine, 6) * 8)]
    answers = engine.generate(prompts, Decoding(64))
    next(answers)
    other = generated(engine, prompts[:2], Decoding(4))  # while the first is open
    assert set(other) == {(0, 0), (1, 0)}
    del answers
    gc.collect()
    assert not engine._pending
    assert not engine._finished
    engine.become(recipe_for(engine, "one term"))
    stale = engine.generate(prompts, Decoding(64))
    next(stale)
    engine.become(None)
    with pytest.raises(RuntimeError, match="became another recipe"):
        list(stale)
    assert generated(engine, prompts[:2], Decoding(4)) == other


def test_logprobs_are_the_references(tiny):
    engine, reference = tiny
    for name in (None, "one term"):
        recipe = name and recipe_for(engine, name)
        engine.become(recipe)
        reference.become(recipe)
        prompts = [*chats(engine), Prompt(tuple(range(1000, 1300)), "long")]
        tails = [tuple(range(50 + i, 50 + 3 * i)) for i in range(len(prompts))]  # the first is empty
        generated(engine, prompts, Decoding(2))  # fills the prefix cache
        found, expected = engine.logprobs(prompts, tails), reference.logprobs(prompts, tails)
        assert [len(line) for line in found] == [len(tail) for tail in tails]
        for line, other in zip(found, expected, strict=True):
            assert line == pytest.approx(other, abs=0.05 if CUDA else 1e-4)


def test_too_long_is_refused(tiny):
    engine, _ = tiny
    assert engine.positions == 512
    long = Prompt(tuple(range(500)), "x")
    with pytest.raises(UserError, match="exceed the 512 positions"):
        next(engine.generate([long], Decoding(13)))
    with pytest.raises(UserError, match="exceed the 512 positions"):
        engine.logprobs([long], [tuple(range(12))])
    with pytest.raises(UserError, match="give one each"):
        engine.logprobs([long], [])
    assert len(engine.logprobs([long], [tuple(range(11))])[0]) == 11


def test_an_exported_checkpoint_is_the_live_model(tiny, tmp_path):
    engine, _ = tiny
    recipe = recipe_for(engine, "rms")
    engine.become(recipe)
    engine.export(recipe, tmp_path / "out", "# card")
    exported = TransformersEngine.open(config.Model(name=str(tmp_path / "out"), dtype="float32"), config.Engine())
    assert exported.fingerprint == engine.checksum()
    assert (tmp_path / "out" / "README.md").read_text() == "# card"


def test_the_record_says_how_it_was_done(tiny, split):
    described = tiny[0].describe()
    assert described["engine"] == "vllm"
    assert described["dtype"] == "float32"
    assert described["cuda_graphs"] is CUDA
    assert described["tensor_parallel"] == 1
    assert split[0].describe()["tensor_parallel"] == 2


def test_its_processes_end_with_the_one_that_started_them():
    driver = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    code = "import seedfold.engines.vllm_worker, time; print('up', flush=True); time.sleep(600)"
    environment = {**os.environ, "SEEDFOLD_DRIVER": str(driver.pid)}
    worker = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert any(line == "up\n" for line in worker.stdout)
        driver.kill()
        driver.wait()
        assert worker.wait(timeout=20) == 1
    finally:
        driver.kill()
        worker.kill()


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA GPU")
def test_batch_invariant_kernels_make_answers_exact(served):
    engine, _ = served
    described = engine.describe()
    assert described["batch_invariant"] is True
    assert described["exact"] is True


def test_decoding_takes_the_tiles_of_prompts(monkeypatch):
    from vllm import envs
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends import flash_attn

    from seedfold.engines.vllm_worker import decode_like_prefill

    def told(invariant, queries):
        heard = []

        def attend(max_seqlen_q, causal):
            heard.append(max_seqlen_q)

        monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", attend, raising=False)
        monkeypatch.setattr(envs, "VLLM_BATCH_INVARIANT", invariant, raising=False)
        monkeypatch.setattr(type(current_platform), "is_cuda", lambda self: True)
        decode_like_prefill()
        flash_attn.flash_attn_varlen_func(max_seqlen_q=queries, causal=True)
        return heard

    assert told(True, 1) == [65]
    assert told(True, 300) == [300]
    assert told(False, 1) == [1]
