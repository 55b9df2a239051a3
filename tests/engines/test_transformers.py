import random
from types import SimpleNamespace

import pytest
import torch

from seedfold import config
from seedfold.engines import open_engine
from seedfold.engines import transformers as module
from seedfold.engines.base import Answer, Decoding, Prompt
from seedfold.engines.transformers import TransformersEngine
from seedfold.errors import UserError

KINDS = ("llama", "qwen2", "mistral", "gemma3", "gpt2", "gpt_neox")
DTYPES = (torch.float32, torch.bfloat16)


def random_prompts(engine, lengths, shared=0, seed=0):
    draw = random.Random(seed)
    vocabulary = engine.model.config.vocab_size
    prefix = [draw.randrange(vocabulary) for _ in range(shared)]
    return [
        Prompt((*prefix, *(draw.randrange(vocabulary) for _ in range(length))), f"{seed}-{i}")
        for i, length in enumerate(lengths)
    ]


def questions(engine, count):
    texts = [
        f"What is {7 * i + 13} + {11 * i + 5}? Answer with the number only."
        if i % 2
        else f"Tom has {i + 3} apples and buys {2 * i + 1} more. How many apples does he have now?"
        for i in range(count)
    ]
    return [Prompt(engine.encode([{"role": "user", "content": text}]), str(i)) for i, text in enumerate(texts)]


def answers(engine, prompts, decoding):
    """(key, sample) -> (text, tokens, finish)."""
    found = [answer for batch in engine.generate(prompts, decoding) for answer in batch]
    assert len(found) == len(prompts) * len(decoding.samples)
    return {(prompts[a.index].key, a.sample): (a.text, a.tokens, a.finish) for a in found}


@pytest.fixture
def logits(monkeypatch):
    """(key, sample, step) -> the logits that the token was picked from."""
    seen = {}
    picker = module._picker

    def spying(decoding, rows):
        pick = picker(decoding, rows)

        def spy(values, active, step):
            for place, row in enumerate(active):
                if row != module.ENDED:
                    seen[(*rows[row], step)] = values[place].clone()
            return pick(values, active, step)

        return spy

    monkeypatch.setattr(module, "_picker", spying)
    return seen


def traced(engine, prompts, decoding, seen):
    """The answers, and the logits of every step."""
    seen.clear()
    return answers(engine, prompts, decoding), dict(seen)


def assert_part(part, whole):
    """Equal answers and logits bit for bit, wherever both have them."""
    for mine, theirs in zip(part, whole, strict=True):
        for place in mine.keys() & theirs.keys():
            if isinstance(mine[place], torch.Tensor):
                assert torch.equal(mine[place], theirs[place]), place
            else:
                assert mine[place] == theirs[place], place
        assert mine.keys() & theirs.keys()


# Same (recipe, prompt, sample), same answer


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("lengths", "shared"),
    [((1, 2, 15, 16, 17, 18, 30, 33, 48, 49), 0), ((1, 5, 16, 17, 40), 50), ((1, 60), 250)],
    ids=["short", "prefix", "long"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_the_same_whatever_is_beside_it(tiny, logits, kind, lengths, shared, dtype):
    engine = tiny(kind, dtype)
    prompts = random_prompts(engine, lengths * 2, shared)
    decoding = Decoding(18 if shared < 100 else 4, temperature=1.0, samples=(0, 3))
    whole = traced(engine, prompts, decoding, logits)
    shuffled = random.Random(1).sample(prompts, len(prompts))
    assert_part(traced(engine, shuffled, decoding, logits), whole)
    for subset in ([prompts[0]], [prompts[-1]], prompts[1:4]):
        assert_part(traced(engine, subset, decoding, logits), whole)
    strangers = random_prompts(engine, (40,), seed=9)  # nothing is shared any more
    assert_part(traced(engine, strangers + prompts, decoding, logits), whole)
    assert_part(traced(engine, prompts, Decoding(6, temperature=1.0, samples=(3,)), logits)[1:], whole[1:])
    engine.batch = 16
    assert_part(traced(engine, prompts, decoding, logits), whole)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_the_same_whatever_is_beside_them(tiny, kind, dtype):
    engine = tiny(kind, dtype)
    prompts = random_prompts(engine, (1, 3, 16, 17, 30, 90), shared=210)
    tails = [tuple(range(3 * i)) for i in range(len(prompts))]
    whole = engine.logprobs(prompts, tails)
    assert [engine.logprobs([p], [t])[0] for p, t in zip(prompts, tails, strict=True)] == whole
    assert engine.logprobs(prompts[::-1], tails[::-1]) == whole[::-1]
    for cut in (0, 100):  # no prefix, half of the prefix
        stranger = Prompt((*prompts[0].tokens[:cut], *range(30)), "stranger")
        assert engine.logprobs([stranger, *prompts], [(1,), *tails])[1:] == whole


def test_real_answers_are_the_same_in_any_company(smol, logits):
    prompts = questions(smol, 17)
    decoding = Decoding(8)
    whole = traced(smol, prompts, decoding, logits)
    assert_part(traced(smol, [prompts[7]], decoding, logits), whole)
    assert_part(traced(smol, [prompts[i] for i in (13, 2, 5)], decoding, logits), whole)


def test_an_answer_is_the_same_after_other_recipes_were_evaluated(tiny, logits, recipe_on):
    engine = tiny("llama", torch.bfloat16)
    prompts = random_prompts(engine, (5, 9), shared=40)
    recipes = [recipe_on(engine, (seed, 0.05)) for seed in range(3)]
    first = {}
    for recipe in (*recipes, None):
        engine.become(recipe)
        first[recipe and recipe.key] = traced(engine, prompts, Decoding(8), logits)
    assert len({next(iter(found[0].values())) for found in first.values()}) == 4
    for recipe in (None, recipes[2], recipes[0], recipes[1]):
        engine.become(recipe)
        assert_part(traced(engine, prompts, Decoding(8), logits), first[recipe and recipe.key])


def test_answers_of_very_different_lengths_are_exact(tiny, logits):
    """Ended answers leave the batch; the others must not notice."""
    engine = tiny("llama")
    prompts = random_prompts(engine, (10,) * 60)
    free = traced(engine, prompts, Decoding(40, temperature=1.0), logits)
    places = [len(values) for values in (text.split() for text, _, _ in free[0].values())]
    assert places == [40] * 60
    engine._ends = set(range(0, 320, 16))  # one token of 16 ends: most answers are short, some run on
    engine.batch = 64
    whole = traced(engine, prompts, Decoding(40, temperature=1.0), logits)
    lengths = sorted(tokens for _, tokens, _ in whole[0].values())
    assert lengths[0] <= 3
    assert lengths[30] < 20
    assert lengths[-1] == 40
    assert_part(whole[1:], free[1:])
    for key, (text, tokens, finish) in whole[0].items():
        assert text.split() == free[0][key][0].split()[:tokens]
        assert finish == ("stop" if int(text.split()[-1]) % 16 == 0 else "length")


def test_batches_that_are_known_are_left_out_and_change_nothing(tiny):
    engine = tiny("llama", batch=16)
    prompts = random_prompts(engine, (5,) * 20 + (30,) * 3)
    whole = answers(engine, prompts, Decoding(4))
    done = {(i, 0) for i in range(17)}
    rest = [answer for batch in engine.generate(prompts, Decoding(4), done) for answer in batch]
    assert sorted(answer.index for answer in rest) == list(range(16, 23))
    assert all(answer.text == whole[prompts[answer.index].key, 0][0] for answer in rest)


def test_the_engine_says_whether_the_machine_is_exact(tiny):
    described = tiny("llama").describe()
    assert described["exact"] is True
    assert described["attention"] == "seedfold_sdpa"
    assert described["dtype"] == "float32"


def test_describing_the_engine_keeps_the_model_it_is(tiny, recipe_on):
    engine = tiny("llama")
    engine.become(recipe_on(engine, (1, 0.1)))
    changed = engine.weights.checksum()
    engine.describe()
    assert engine.weights.checksum() == changed != engine.fingerprint


def test_answers_that_are_still_wanted_leave_the_callers_mode_alone(tiny):
    engine = tiny("llama")
    pending = engine.generate([Prompt((1, 2, 3), "x"), Prompt(tuple(range(100)), "y")], Decoding(2))
    next(pending)
    assert not torch.is_inference_mode_enabled()
    assert len(list(pending)) == 1


# Greedy answers


def reference(engine, prompt, tokens):
    """The tokens that transformers' own generation gives, with its own attention and cache."""
    installed = engine.model.config._attn_implementation
    engine.model.set_attn_implementation("sdpa")
    try:
        ids = torch.tensor([prompt.tokens])
        made = engine.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    finally:
        engine.model.set_attn_implementation(installed)
    return made[0, len(prompt.tokens) :].tolist()


@pytest.mark.parametrize("shared", [0, 35], ids=["alone", "prefix"])
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_those_of_transformers(tiny, kind, shared):
    engine = tiny(kind)
    prompts = random_prompts(engine, (1, 5, 12, 16, 29), shared)
    found = answers(engine, prompts, Decoding(20))
    for prompt in prompts:
        assert [int(word) for word in found[prompt.key, 0][0].split()] == reference(engine, prompt, 20)


def test_greedy_answers_of_smollm2_are_those_of_transformers():
    engine = open_engine(config.Model(dtype="float32"), config.Engine())
    prompts = questions(engine, 3)
    found = answers(engine, prompts, Decoding(16))
    for prompt in prompts:
        tokens = reference(engine, prompt, 16)
        text, count, finish = found[prompt.key, 0]
        assert text == engine.tokenizer.decode(tokens, skip_special_tokens=True)
        assert count == len(tokens)
        assert finish == ("stop" if tokens[-1] == engine.tokenizer.eos_token_id else "length")


# Sampled answers


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_sampled_tokens_have_the_probabilities_of_the_softmax(tiny, top_p):
    engine = tiny("llama", vocab_size=24)
    prompt, draws, temperature = random_prompts(engine, (6,))[0], 4000, 1.5
    engine.batch = draws
    decoding = Decoding(1, temperature=temperature, top_p=top_p, samples=tuple(range(draws)))
    found = answers(engine, [prompt], decoding)
    counts = torch.zeros(24)
    for text, _, _ in found.values():
        counts[int(text)] += 1
    with torch.inference_mode():
        chances = (engine.model(torch.tensor([prompt.tokens])).logits[0, -1] / temperature).softmax(-1)
    ordered, tokens = chances.sort(descending=True)
    kept = tokens[: int((ordered.cumsum(0) < top_p - 1e-6).sum()) + 1]  # the fewest whose sum reaches top_p
    expected = torch.zeros(24)
    expected[kept] = chances[kept] / chances[kept].sum() * draws
    assert counts[expected == 0].sum() == 0
    likely = expected >= 5
    assert likely.sum() >= 5
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    assert statistic < likely.sum() + 4 * (2 * likely.sum()) ** 0.5


def test_a_tiny_nucleus_is_greedy(tiny):
    engine = tiny("llama")
    prompts = random_prompts(engine, (4, 9))
    nucleus = answers(engine, prompts, Decoding(10, temperature=1.0, top_p=1e-9))
    assert nucleus == answers(engine, prompts, Decoding(10))


def test_samples_differ_between_numbers_and_between_examples(tiny):
    engine = tiny("llama")
    tokens = random_prompts(engine, (6,))[0].tokens
    decoding = Decoding(12, temperature=1.0, samples=(0, 1, 2))
    found = answers(engine, [Prompt(tokens, "a"), Prompt(tokens, "b")], decoding)
    assert len(set(found.values())) == 6


# Stops. The picker is replaced by a script, so that the answer's tokens are known.


@pytest.fixture
def say(tiny, smol, monkeypatch):
    """say(tokens, stop=(), max_tokens=...): the answer when the model says these tokens of SmolLM2's."""
    model = tiny("llama", vocab_size=len(smol.tokenizer)).model
    engine = TransformersEngine(model, smol.tokenizer, "llama")

    def answer(tokens, stop=(), max_tokens=None) -> Answer:
        script = lambda decoding, rows: lambda logits, active, step: torch.full((len(logits),), tokens[step])  # noqa: E731
        monkeypatch.setattr(module, "_picker", script)
        decoding = Decoding(max_tokens or len(tokens), stop=stop)
        return next(engine.generate([Prompt((5, 6, 7), "x")], decoding))[0]

    return answer


TEXT = "Well, the answer is 42.\n\nQuestion: naïve 🦆🦩🦜 STOP here."


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (("\n\n",), "Well, the answer is 42."),
        (("Question:",), "Well, the answer is 42.\n\n"),
        ((".\n\nQues",), "Well, the answer is 42"),
        (("swer is 4",), "Well, the an"),
        (("We",), ""),
        (("STOP", "42"), "Well, the answer is "),
        (("never", "ï"), "Well, the answer is 42.\n\nQuestion: na"),
        (("🦩",), "Well, the answer is 42.\n\nQuestion: naïve 🦆"),
        (("🦆🦩🦜",), "Well, the answer is 42.\n\nQuestion: naïve "),
        ((".",), "Well, the answer is 42"),
        (("the answer is 42", "answer"), "Well, the "),
    ],
    ids=str,
)
def test_an_answer_ends_at_the_first_stop_string_and_is_cut_before_it(smol, say, stop, said):
    tokens = smol.tokenizer(TEXT)["input_ids"]
    answer = say(tokens, stop)
    assert answer.text == said
    assert answer.finish == "stop"
    spoken = [smol.tokenizer.decode(tokens[:n]) for n in range(len(tokens) + 1)]
    assert answer.tokens == next(n for n, text in enumerate(spoken) if any(s in text for s in stop))


def test_a_long_stop_string_of_many_byte_tokens_is_found(smol, say):
    stop = "🀄🂡" * 8  # each character is several tokens
    tokens = smol.tokenizer("Yes. " + stop + " more")["input_ids"]
    answer = say(tokens, (stop,))
    assert (answer.text, answer.finish) == ("Yes. ", "stop")
    assert answer.tokens < len(tokens)


def test_the_end_token_ends_an_answer_and_is_not_in_its_text(smol, say):
    tokens = [*smol.tokenizer("Yes.")["input_ids"], smol.tokenizer.eos_token_id, 100, 101]
    answer = say(tokens)
    assert (answer.text, answer.finish, answer.tokens) == ("Yes.", "stop", len(tokens) - 2)


def test_an_answer_without_a_stop_is_cut_at_the_limit(smol, say):
    tokens = smol.tokenizer(TEXT)["input_ids"]
    answer = say(tokens, ("never",), max_tokens=5)
    assert (answer.text, answer.finish, answer.tokens) == (smol.tokenizer.decode(tokens[:5]), "length", 5)


def test_a_stop_in_the_last_token_counts_as_a_stop(smol, say):
    tokens = smol.tokenizer("one two")["input_ids"]
    assert say(tokens, ("two",)).finish == "stop"


# Log-probabilities


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_a_plain_forward_pass(tiny, kind):
    engine = tiny(kind)
    prompts = random_prompts(engine, (1, 5, 16, 40), shared=20)
    tails = [(), (3,), tuple(range(17)), tuple(range(40))]
    for prompt, tail, found in zip(prompts, tails, engine.logprobs(prompts, tails), strict=True):
        with torch.inference_mode():
            plain = engine.model(torch.tensor([[*prompt.tokens, *tail]])).logits[0].log_softmax(-1)
        start = len(prompt.tokens) - 1
        expected = [plain[start + i, token].item() for i, token in enumerate(tail)]
        assert found == pytest.approx(expected, abs=2e-4)


def test_log_probabilities_of_nothing_are_an_empty_list(tiny):
    engine = tiny("llama")
    assert engine.logprobs([], []) == []
    assert engine.logprobs(random_prompts(engine, (3,)), [()]) == [[]]


def test_a_continuation_for_every_prompt_is_asked_for(tiny):
    engine = tiny("llama")
    with pytest.raises(UserError, match=r"1 continuations.*2 prompts"):
        engine.logprobs(random_prompts(engine, (3, 4)), [(1,)])


# The shared prefix


@pytest.fixture
def passed():
    """passed(engine): a list that gets the number of positions of every forward pass, padding included."""

    def watch(engine):
        counts = []
        hook = lambda _, args, kwargs: counts.append(kwargs["input_ids"].numel())  # noqa: E731
        engine.model.base_model.register_forward_pre_hook(hook, with_kwargs=True)
        return counts

    return watch


def test_the_shared_prefix_is_computed_once_per_recipe(tiny, recipe_on, passed):
    engine = tiny("llama")
    prompts = random_prompts(engine, (5, 9), shared=64)
    counts = passed(engine)

    def passes(recipe):
        engine.become(recipe)
        counts.clear()
        answers(engine, prompts, Decoding(1))
        return list(counts)

    rest = [16 * 16, 16]  # 16 rows of 16 positions, then one token of each
    recipe = recipe_on(engine, (1, 0.01))
    assert passes(None) == [64, *rest]
    assert passes(None) == rest
    assert passes(recipe) == [64, *rest]
    assert passes(recipe) == rest
    assert passes(None) == [64, *rest]


def test_a_longer_prefix_at_hand_serves_a_shorter_one(tiny, passed):
    engine, fresh = tiny("llama"), tiny("llama")
    long = random_prompts(engine, (5, 9), shared=64)
    short = [long[0], Prompt((*long[0].tokens[:40], 7, 8, 9), "other")]
    answers(engine, long, Decoding(1))
    counts = passed(engine)
    again = answers(engine, short, Decoding(6))
    assert counts[0] == 16 * 16  # no pass for the 32 shared positions: they are in the 64 at hand
    assert 32 not in counts
    assert again == answers(fresh, short, Decoding(6))


def test_samples_share_the_computation_of_their_prompt(tiny, passed):
    engine = tiny("llama")
    counts = passed(engine)
    answers(engine, random_prompts(engine, (20,)), Decoding(1, temperature=1.0, samples=tuple(range(32))))
    assert counts == [16, 16 * 16, 32]  # its start, 16 rows of the rest, and the last token of every sample


# What is refused


def test_a_prompt_that_does_not_fit_is_refused_with_its_length(tiny):
    engine = tiny("llama", max_position_embeddings=64)
    prompts = random_prompts(engine, (60,))
    assert answers(engine, prompts, Decoding(4))
    with pytest.raises(UserError, match=r"60 tokens.*5 exceed the 64 positions"):
        list(engine.generate(prompts, Decoding(5)))


def test_scoring_a_text_that_does_not_fit_is_refused(tiny):
    engine = tiny("gpt2", max_position_embeddings=64)
    with pytest.raises(UserError, match="64 positions"):
        engine.logprobs(random_prompts(engine, (60,)), [(1, 2, 3, 4, 5)])


def test_a_tokenizer_without_chat_template_is_refused(tiny):
    with pytest.raises(UserError, match=r"llama.*chat template"):
        tiny("llama").encode([{"role": "user", "content": "hello"}])


def test_a_chat_is_encoded_by_the_tokenizers_own_template(smol):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    tokens = smol.encode(messages)
    assert smol.tokenizer.decode(tokens) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("name", ["t5", "bamba", "lfm2", "mamba"])
def test_models_that_are_not_decoders_of_attention_layers_are_refused(name):
    import transformers as hf

    configs = {
        "t5": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ),
        "bamba": lambda: SimpleModel(hf.BambaConfig(num_hidden_layers=2, attn_layer_indices=[1])),
        "lfm2": lambda: SimpleModel(hf.Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"])),
        "mamba": lambda: SimpleModel(hf.MambaConfig(num_hidden_layers=2, hidden_size=16)),
    }
    with pytest.raises(UserError, match=f"{name}.*attention"):
        TransformersEngine(configs[name](), SimpleNamespace(eos_token_id=None), name)


class SimpleModel(torch.nn.Linear):
    """A module with the config of a model that would be slow to build."""

    dtype = torch.float32

    def __init__(self, its_config):
        super().__init__(2, 2)
        self.config = its_config


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA GPU")
    with pytest.raises(UserError, match=r'"model.device" is "cuda:3"'):
        open_engine(config.Model(device="cuda:3"), config.Engine())


def test_a_recipe_without_terms_is_the_base_but_of_its_own_model(tiny, recipe_on):
    engine = tiny("llama")
    engine.become(recipe_on(engine, (1, 0.1)))
    engine.become(recipe_on(engine))
    assert engine.weights.checksum() == engine.fingerprint
    with pytest.raises(UserError, match="base"):
        engine.become(recipe_on(SimpleNamespace(fingerprint="0" * 32)))


def test_a_refused_recipe_stays_refused(tiny, recipe_on):
    engine = tiny("llama")
    prompts = random_prompts(engine, (5,))
    before = answers(engine, prompts, Decoding(5))
    for recipe in (recipe_on(SimpleNamespace(fingerprint="0" * 32), (1, 0.1)), recipe_on(engine, ("cauchy", 1, 0.1))):
        for _ in range(2):
            with pytest.raises(UserError):
                engine.become(recipe)
        engine.become(None)
        assert answers(engine, prompts, Decoding(5)) == before


def test_no_prompts_give_no_answers(tiny):
    assert list(tiny("llama").generate([], Decoding(3))) == []
