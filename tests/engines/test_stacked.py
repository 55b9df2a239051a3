"""Several recipes in one pass. The reference is the transformers engine, in float32, where both give the same tokens."""

import pytest
import torch
from tiny_models import IdTokenizer, tiny_model

from seedfold.engines import stacked as stacked_engine
from seedfold.engines.base import Decoding, Job, Prompt
from seedfold.engines.stacked import SHARED, StackedEngine
from seedfold.errors import UserError
from seedfold.recipe import Base, Recipe, Term

KINDS = ["llama", "qwen2", "qwen3"]
CHANGES = {"qwen2": {"head_dim": 16}}


def stacked(kind, dtype=torch.float32, copies=3, slots=5, device="cpu", tokenizer=None, **changes):
    model = tiny_model(kind, dtype, **{**CHANGES.get(kind, {}), **changes})
    return StackedEngine(model, tokenizer or IdTokenizer(), kind, copies=copies, slots=slots, device=device)


def texts(count, step=11):
    return [Prompt(tuple((7 * i + j * j) % 300 for j in range(3 + i * step)), str(i)) for i in range(count)]


def jobs_on(recipe_on, engine, prompts, decoding, seeds):
    return [Job(recipe_on(engine, (seed, 0.05)), prompts, decoding) for seed in seeds]


def answers(engine, jobs):
    found = {}
    for number, batch in engine.run(jobs):
        for answer in batch:
            assert (number, answer.index, answer.sample) not in found
            found[number, answer.index, answer.sample] = answer
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_those_of_the_reference(tiny, recipe_on, kind):
    reference, engine = tiny(kind, **CHANGES.get(kind, {})), stacked(kind)
    assert engine.fingerprint == reference.fingerprint
    jobs = jobs_on(recipe_on, engine, texts(9), Decoding(12), range(5))
    found = answers(engine, jobs)
    assert found == answers(reference, jobs)
    assert len({answer.text for answer in found.values()}) > 30


def test_sampled_answers_are_those_of_the_reference(tiny, recipe_on):
    reference, engine = tiny("llama"), stacked("llama")
    for top_p in (1.0, 0.8):
        decoding = Decoding(10, temperature=1.0, top_p=top_p, samples=(1, 4))
        jobs = jobs_on(recipe_on, engine, texts(6), decoding, range(2))
        assert answers(engine, jobs) == answers(reference, jobs)


def test_greedy_and_sampled_jobs_may_be_mixed(tiny, recipe_on):
    reference, engine = tiny("llama"), stacked("llama")
    greedy = jobs_on(recipe_on, engine, texts(4), Decoding(6), [1, 2])
    sampled = jobs_on(recipe_on, engine, texts(4), Decoding(9, temperature=0.8, samples=(3,)), [1])
    jobs = [greedy[0], sampled[0], greedy[1]]
    assert answers(engine, jobs) == answers(reference, jobs)


def test_a_copy_that_has_become_a_recipe_gives_a_sign_of_life(recipe_on):
    engine = stacked("llama", copies=2)
    jobs = jobs_on(recipe_on, engine, texts(3), Decoding(6), range(3))
    come = list(engine.run(jobs))
    assert [number for number, answers in come[:2]] == [0, 1]
    assert not any(answers for _, answers in come[:2])
    assert sum(not answers for _, answers in come) == 3
    assert all(engine.generate(texts(3), Decoding(6)))


def test_a_step_leaves_idle_copies_out_when_they_are_many(recipe_on, monkeypatch):
    engine, steps = stacked("llama", copies=5), []
    decode = engine.model.decode

    def watched(ids, cache, positions, lengths, whole):
        steps.append((int((lengths.view(5, -1) > 0).any(1).sum()), whole))
        return decode(ids, cache, positions, lengths, whole)

    monkeypatch.setattr(engine.model, "decode", watched)
    jobs = [
        Job(recipe_on(engine, (seed, 0.05)), texts(2), Decoding(limit)) for seed, limit in enumerate((40, 20, 20, 6, 6))
    ]
    answers(engine, jobs)
    known = {busy: {whole for count, whole in steps if count == busy} for busy in (5, 3, 1)}
    assert known[5] == {True}
    assert False in known[3]  # the host learns of the end of an answer a few steps late
    assert known[1] == {False}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_answer_is_the_same_in_any_company(recipe_on, dtype):
    engine = stacked("qwen2", dtype)
    prompts, decoding = texts(12), Decoding(14)
    jobs = jobs_on(recipe_on, engine, prompts, decoding, range(4))
    together = answers(engine, jobs)
    for number in (0, 3):
        for index in (0, 5, 11):
            alone = answers(engine, [Job(jobs[number].recipe, [prompts[index]], decoding)])
            assert alone[0, 0, 0].text == together[number, index, 0].text
    assert engine.describe()["exact"] is True


def test_what_prompts_share_is_computed_once(tiny, recipe_on, monkeypatch):
    reference, engine = tiny("llama"), stacked("llama")
    common = tuple((3 * j) % 300 for j in range(SHARED + 70))
    prompts = [Prompt((*common, *prompt.tokens), prompt.key) for prompt in texts(7)]
    jobs = jobs_on(recipe_on, engine, prompts, Decoding(8), range(4))
    widths = []
    prefill = engine.model.prefill

    def counted(copy, ids, *rest):
        widths.append(ids.shape)
        return prefill(copy, ids, *rest)

    monkeypatch.setattr(engine.model, "prefill", counted)
    assert answers(engine, jobs) == answers(reference, jobs)
    assert widths.count((1, 320)) == 4
    assert all(shape[1] <= 192 for shape in widths if shape[0] > 1)


def test_long_texts_are_computed_a_few_at_a_time(tiny, recipe_on, monkeypatch):
    reference, engine = tiny("llama"), stacked("llama", slots=8)
    monkeypatch.setattr(stacked_engine, "TOKENS", 256)
    lengths = (5, 130, 40, 300, 131, 132, 20, 62)
    prompts = [Prompt(tuple((7 * i + 3 * j) % 300 for j in range(n)), str(i)) for i, n in enumerate(lengths)]
    shapes = []
    prefill = engine.model.prefill

    def counted(copy, ids, *rest):
        shapes.append(tuple(ids.shape))
        return prefill(copy, ids, *rest)

    monkeypatch.setattr(engine.model, "prefill", counted)
    jobs = jobs_on(recipe_on, engine, prompts, Decoding(8), range(1))
    assert answers(engine, jobs) == answers(reference, jobs)
    assert shapes == [(4, 64), (1, 192), (1, 192), (1, 192), (1, 320)]
    scores = engine.logprobs(prompts, [(1, 2)] * 8)
    assert scores[3] == engine.logprobs([prompts[3]], [(1, 2)])[0]


class Spelled(IdTokenizer):
    eos_token_id = 11


def test_answers_end_at_an_end_token_a_stop_string_or_the_limit(recipe_on):
    long = stacked("llama")
    prompts = texts(9)
    jobs = jobs_on(recipe_on, long, prompts, Decoding(30), range(3))
    whole = answers(long, jobs)
    end = int(next(a.text.split()[7] for a in whole.values()))
    tokenizer = Spelled()
    tokenizer.eos_token_id = end
    ended = answers(stacked("llama", tokenizer=tokenizer), jobs)
    stopped = answers(long, [Job(job.recipe, job.prompts, Decoding(30, (f" {end} ",))) for job in jobs])
    finishes = set()
    for key, answer in whole.items():
        tokens = [int(token) for token in answer.text.split()]
        cut = tokens.index(end) + 1 if end in tokens else 30
        assert ended[key].tokens == cut
        assert ended[key].finish == ("stop" if end in tokens else "length")
        text = answer.text
        assert stopped[key].text == text[: text.find(f" {end} ")] if f" {end} " in text else text
        assert stopped[key].finish == ("stop" if f" {end} " in text else "length")
        finishes.add(ended[key].finish)
    assert finishes == {"stop", "length"}


def test_known_answers_are_left_out(recipe_on):
    engine = stacked("llama")
    prompts, decoding = texts(9), Decoding(5, temperature=1.0, samples=(1, 2))
    recipe = recipe_on(engine, (1, 0.05))
    whole = answers(engine, [Job(recipe, prompts, decoding)])
    done = frozenset({(0, 1), (0, 2), (3, 1), (8, 2)})
    rest = answers(engine, [Job(recipe, prompts, decoding, done)])
    assert {key: answer for key, answer in whole.items() if key[1:] not in done} == rest
    every = frozenset((i, s) for i in range(9) for s in (1, 2))
    assert answers(engine, [Job(recipe, prompts, decoding, every)]) == {}
    assert answers(engine, []) == {}


def test_further_jobs_are_taken_in_while_copies_are_free(recipe_on, monkeypatch):
    """Those that choose their tokens in another way, or need more room, wait until the others are done."""
    engine = stacked("llama")
    jobs = jobs_on(recipe_on, engine, texts(4), Decoding(6), range(5))
    sampled = jobs_on(recipe_on, engine, texts(4), Decoding(6, temperature=1.0), (7, 8))
    long = jobs_on(recipe_on, engine, texts(4), Decoding(300), (9,))
    expected = answers(stacked("llama"), [*jobs, *sampled, *long])
    runs = []
    monkeypatch.setattr(engine, "_run", lambda *given: runs.append(1) or StackedEngine._run(engine, *given))
    coming = iter([[jobs[2]], [], [jobs[3], sampled[0]], [jobs[4]], [sampled[1], long[0]]])
    found = {}
    for number, batch in engine.run(jobs[:2], lambda: next(coming, [])):
        found |= {(number, answer.index, answer.sample): answer for answer in batch}
    place = {0: 0, 1: 1, 2: 2, 3: 3, 4: 5, 5: 4, 6: 6, 7: 7}  # the order in which they came
    assert {(place[number], *rest): answer for (number, *rest), answer in found.items()} == expected
    assert len(runs) == 3


def test_large_jobs_are_shared_out_where_copies_would_be_idle(recipe_on):
    engine = stacked("llama", copies=4, slots=5)
    (job,) = jobs_on(recipe_on, engine, texts(18, 1), Decoding(2), (1,))

    def parts(count, idle):
        return [len(unit.waiting) for unit in engine._units([*enumerate([job] * count)], idle)]

    assert parts(1, 4) == [5, 5, 5, 3]
    assert parts(1, 2) == [9, 9]
    assert parts(1, 0) == [18]
    assert parts(3, 4) == [18, 18, 18]


def test_a_caller_may_stop_listening(tiny, recipe_on):
    engine = stacked("llama")
    jobs = jobs_on(recipe_on, engine, texts(9), Decoding(20), range(4))
    pending = engine.run(jobs)
    next(pending)
    pending.close()
    assert answers(engine, jobs) == answers(tiny("llama"), jobs)


def test_generate_answers_as_the_recipe_it_became(tiny, recipe_on):
    reference, engine = tiny("llama"), stacked("llama")
    for recipe in (None, recipe_on(engine, (3, 0.05), ("gaussian", 4, 0.02)), None):
        for each in (reference, engine):
            each.become(recipe)
        made = [
            {a.index: a.text for batch in e.generate(texts(4), Decoding(6)) for a in batch} for e in (reference, engine)
        ]
        assert made[0] == made[1]


def test_every_copy_is_rebuilt_bit_for_bit(tiny, recipe_on):
    reference, engine = tiny("qwen2", torch.bfloat16, **CHANGES["qwen2"]), stacked("qwen2", torch.bfloat16)
    recipe = recipe_on(reference, (5, 0.01), ("gaussian", 6, 0.02), dtype="bfloat16", scale="rms", rounding="dither")
    reference.become(recipe)
    for weights in engine.model.weights:
        weights.become(recipe)
        assert weights.checksum() == reference.weights.checksum() != engine.fingerprint
    engine.model.weights[1].become(None)
    assert [weights.checksum() == engine.fingerprint for weights in engine.model.weights] == [False, True, False]


def test_logprobs_are_those_of_the_reference(tiny, recipe_on):
    reference, engine = tiny("qwen3"), stacked("qwen3")
    recipe = recipe_on(engine, (3, 0.05))
    prompts = texts(5, 17)
    tails = [tuple(range(1, 2 + i)) for i in range(5)]
    for each in (reference, engine):
        each.become(recipe)
    for mine, theirs in zip(engine.logprobs(prompts, tails), reference.logprobs(prompts, tails), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    assert engine.logprobs([], []) == []
    few = stacked("qwen3", copies=1, slots=2)  # fewer slots than texts
    few.become(recipe)
    assert few.logprobs(prompts, tails) == engine.logprobs(prompts, tails)
    with pytest.raises(UserError, match="2048 positions"):
        engine.logprobs([Prompt(tuple(range(300)) * 7, "x")], [(1,)])
    with pytest.raises(UserError, match="1 continuations were given for 5"):
        engine.logprobs(prompts, tails[:1])


def test_an_export_is_the_reference_engines(tiny, recipe_on, tmp_path):
    from transformers import AutoModelForCausalLM

    from seedfold.weights import Weights

    engine = stacked("llama", torch.bfloat16)
    recipe = recipe_on(engine, (1, 0.1), dtype="bfloat16")
    engine.export(recipe, tmp_path / "fold", "# A fold\n")
    engine.model.weights[2].become(recipe)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "fold", dtype="auto")
    assert Weights(loaded).fingerprint == engine.model.weights[2].checksum()


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("gpt2", {}, 'model type "gpt2" is not one the stacked engine knows'),
        ("mistral", {}, "has sliding windows"),
        ("llama", {"hidden_act": "gelu"}, 'has activation "gelu"'),
        ("llama", {"attention_bias": True}, "has a bias on an output"),
        ("llama", {"head_dim": 24}, "a head size that is no power of two"),
    ],
)
def test_models_it_would_compute_wrongly_are_refused(kind, changes, reason):
    with pytest.raises(UserError, match=reason):
        stacked(kind, **changes)


def test_recipes_of_other_models_and_texts_that_are_too_long_are_refused(recipe_on):
    engine = stacked("llama")
    with pytest.raises(UserError, match="is on base abc"):
        engine.become(Recipe(Base("other", "", "abc"), (Term("rademacher", 1, 0.1),), dtype="float32"))
    with pytest.raises(UserError, match="2048 positions"):
        next(engine.generate(texts(2), Decoding(2047)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_answers_do_not_depend_on_company(recipe_on, kind):
    engine = stacked(kind, torch.bfloat16, copies=4, slots=32, device="cuda")
    prompts, decoding = texts(40, 5), Decoding(40)
    jobs = jobs_on(recipe_on, engine, prompts, decoding, range(6))
    together = answers(engine, jobs)
    alone = answers(engine, [jobs[4]])
    assert all(alone[0, i, 0] == together[4, i, 0] for i in range(40))
    assert engine.exact
