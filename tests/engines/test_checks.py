from dataclasses import replace

import pytest
import torch

from seedfold.engines.checks import check_length, is_exact
from seedfold.errors import UserError


def test_a_text_longer_than_the_models_positions_is_refused(tiny):
    engine = tiny("llama")
    check_length(engine, 2000, 48)
    with pytest.raises(UserError, match="a prompt of 2000 tokens and an answer of 49 exceed the 2048 positions"):
        check_length(engine, 2000, 49)


def test_an_engine_that_minds_its_company_is_found_out(tiny, recipe_on, monkeypatch):
    engine = tiny("llama")
    recipe = recipe_on(engine, (1, 0.1))
    assert is_exact(engine, recipe, 300)
    assert engine.recipe == recipe
    logits = engine._logits

    def swayed(ids, *rest):
        made = logits(ids, *rest)
        return made + torch.linspace(0, 1e-3, made.shape[-1]) * float(ids.float().mean())

    monkeypatch.setattr(engine, "_logits", swayed)
    assert not is_exact(engine, recipe, 300)


def test_what_goes_wrong_only_among_many_is_found_out_by_a_crowd(tiny, recipe_on, monkeypatch):
    engine = tiny("llama")
    recipe = recipe_on(engine, (1, 0.1))
    assert is_exact(engine, recipe, 300, crowd=24)
    generate = engine.generate

    def crowded(prompts, decoding, done=()):
        for batch in generate(prompts, decoding, done):
            if len(prompts) >= 24 and decoding.temperature == 0:
                batch = [replace(a, text=a.text + "!") if a.index == 0 else a for a in batch]
            yield batch

    monkeypatch.setattr(engine, "generate", crowded)
    assert is_exact(engine, recipe, 300)
    assert not is_exact(engine, recipe, 300, crowd=24)
