"""Held-out text: the exact bytes, every token scored once, and bits per byte that an independent computation finds too."""

import hashlib
import json
import math
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import VOCABULARY, IdTokenizer, tiny_model

from seedfold import config
from seedfold.engines.stacked import StackedEngine
from seedfold.errors import UserError
from seedfold.recipe import Recipe
from seedfold.text import bits, documents, tokens
from seedfold.text.settings import Text

TEXTS = ["One day – a naïve 日本 fox.", "", "  \n", "Two\n\nparagraphs, and a 🦊 at the end 🦊"]
SAMPLE = "ff79e31c5c664b3809720d30560606cc"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """SmolLM2's: byte-level, with a beginning-of-text token."""
    return tokens.load_tokenizer(config.Model())


def jsonl(folder: Path, texts: list[str] = TEXTS, column: str = "text") -> str:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": 1, column: text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


# Documents


def test_the_sample_is_what_it_was_and_has_its_licence() -> None:
    found = documents.load(Text())
    assert (found.digest, found.bytes, len(found.texts)) == (SAMPLE, 32829, 23)
    assert "public domain" in files("seedfold.text").joinpath("sample.LICENSE.txt").read_text(encoding="utf-8")


def test_files_of_all_kinds_hold_the_same_documents(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    lines = documents.load(Text(jsonl(tmp_path)))
    assert lines.texts == (TEXTS[0], TEXTS[3])
    parquet.write_table(pyarrow.table({"other": [1] * 4, "text": TEXTS}), tmp_path / "texts.parquet")
    assert documents.load(Text(str(tmp_path / "texts.parquet"))).digest == lines.digest
    (tmp_path / "one.txt").write_text(TEXTS[0], encoding="utf-8")
    assert documents.load(Text(str(tmp_path / "one.txt"))).texts == (TEXTS[0],)
    assert documents.load(Text(jsonl(tmp_path, column="body"), column="body")).digest == lines.digest


def test_datasets_are_streamed_no_further_than_asked(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="the extra seedfold[tasks] is not installed")
    folder = tmp_path / "data"
    folder.mkdir()
    jsonl(folder, [f"Document {number}." for number in range(5)])
    found = documents.load(Text(str(folder), documents=3))
    assert found.texts == ("Document 0.", "Document 1.", "Document 2.")
    with pytest.raises(UserError, match=r"speedrun\.text\.documents"):
        documents.load(Text(str(folder)))
    with pytest.raises(UserError, match=r"split \"validation\", which cannot be read"):
        documents.load(Text(str(folder), split="validation", documents=1))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r'HuggingFaceFW/fineweb-edu.*pip install "seedfold\[tasks\]"'):
        documents.load(Text("HuggingFaceFW/fineweb-edu:sample-10BT", documents=1))


def test_the_digest_is_of_the_exact_bytes_and_of_where_documents_end() -> None:
    assert documents.Documents("", ("ab", "c")).digest != documents.Documents("", ("a", "bc")).digest
    by_hand = hashlib.blake2b(b"\x03\0\0\0\0\0\0\0\xe6\x97\xa5\x01\0\0\0\0\0\0\0a", digest_size=16).hexdigest()
    assert documents.Documents("", ("日", "a")).digest == by_hand


def test_another_text_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"digest\" is {SAMPLE}, but the text of .* hashes to "):
        documents.load(Text(jsonl(tmp_path), digest=SAMPLE))
    assert documents.load(Text(digest=SAMPLE)).digest == SAMPLE


@pytest.mark.parametrize("limit", range(1, 90))
def test_the_last_document_is_cut_at_a_whole_character(tmp_path: Path, limit: int) -> None:
    whole = documents.load(Text(jsonl(tmp_path))).texts
    found = documents.load(Text(jsonl(tmp_path), bytes=limit))
    assert 0 <= min(limit, sum(len(text.encode()) for text in whole)) - found.bytes < 4
    for cut, text in zip(found.texts, whole, strict=False):
        assert text.startswith(cut)
    assert all(cut == text for cut, text in zip(found.texts[:-1], whole, strict=False))


def test_text_is_composed_so_that_all_tokenizers_see_the_same(tmp_path: Path) -> None:
    assert documents.load(Text(jsonl(tmp_path, ["e\u0301"]))).texts == ("é",)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("no.jsonl", None, "no.jsonl.*cannot be read"),
        ("a.csv", b"a,b", 'ending ".csv" is not read'),
        ("a.txt", b"\xff", "not UTF-8"),
        ("a.txt", b" \n", "has no text"),
        ("a.jsonl", b'{"text": "a"}\nnull\n', "line 2 is no JSON object"),
        ("a.jsonl", b'{"body": "a"}\n', r"row 1 .* has no text there \(columns body\)"),
        ("a.jsonl", b'{"text": "\\ud83e"}\n', "half a character"),
        ("a.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path, name: str, data: bytes | None, words: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=words):
        documents.load(Text(str(tmp_path / name)))


# Tokens and windows


def by_decoder(tokenizer: Any, ids: list[int]) -> list[int]:
    """Bytes of each token by the tokenizer's own decoder: what a prefix gains is unknown where it ends within a character,
    so only the sums up to whole characters are compared."""
    return [len(tokenizer.decode(ids[:end]).encode()) for end in range(1, len(ids) + 1)]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn", "Co"]), min_size=1, max_size=40))
def test_tokens_spell_any_text_byte_for_byte(tokenizer: Any, text: str) -> None:
    spelled = tokens.spell(tokenizer, text, 0)
    assert sum(size for _, size in spelled) == len(text.encode())
    assert tokenizer.decode([token for token, _ in spelled], clean_up_tokenization_spaces=False) == text


def test_a_character_may_be_several_tokens_and_each_has_its_bytes(tokenizer: Any) -> None:
    spelled = tokens.spell(tokenizer, "a 🦊 b", 0)
    assert [size for _, size in spelled] == [1, 3, 1, 1, 2]  # "a", " " and two bytes of four, one, one, " b"
    ids = [token for token, _ in spelled]
    assert by_decoder(tokenizer, ids)[-1] == 8
    assert by_decoder(tokenizer, ids)[0] == 1


def test_names_of_special_tokens_in_a_text_are_text(tokenizer: Any) -> None:
    spelled = tokens.spell(tokenizer, "<|endoftext|>", 0)
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") not in [token for token, _ in spelled]
    assert sum(size for _, size in spelled) == 13


def own_tokenizer(normalizer: Any) -> Any:
    """SentencePiece's manner: blanks for spaces, single bytes for what the vocabulary lacks."""
    import tokenizers
    from tokenizers import decoders, models
    from transformers import PreTrainedTokenizerFast

    names = ["<s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a"]
    vocabulary = {name: number for number, name in enumerate(names)}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, [("▁", "a")], byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizer
    made.decoder = decoders.ByteFallback()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")


def test_sentence_pieces_too_spell_the_text() -> None:
    from tokenizers import normalizers

    blanks = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spelled = tokens.spell(own_tokenizer(blanks), "a b日", 0)
    assert [size for _, size in spelled] == [1, 1, 1, 1, 1, 1]  # "▁a" is "a" here: the tokenizer put the blank there
    spelled = tokens.spell(own_tokenizer(normalizers.Replace(" ", "▁")), " ab", 0)
    assert [size for _, size in spelled] == [2, 1]


def test_a_tokenizer_that_changes_the_text_is_refused(tokenizer: Any) -> None:
    from tokenizers import normalizers

    with pytest.raises(UserError, match="document 1 byte for byte"):
        tokens.spell(tokenizer, "a\x16b", 0)  # a control character that it has no token for, and drops

    with pytest.raises(UserError, match="does not give back document 3 byte for byte"):
        tokens.spell(own_tokenizer(normalizers.Lowercase()), "aB", 2)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(2, 20), st.data(), st.booleans())
def test_every_token_is_scored_once_with_its_context(
    count: int, window: int, data: st.DataObject, begins: bool
) -> None:
    overlap = data.draw(st.integers(0, window - 2))
    ids = list(range(100, 100 + count))
    sizes = [1 + number % 4 for number in range(count)]
    start = 1 if begins else None
    found = tokens.cut(5, ids, sizes, Text(window=window, overlap=overlap), start)
    scored = [token for each in found for token in each.scored]
    assert scored == ids[0 if begins else 1 :]
    assert sum(each.bytes for each in found) == sum(sizes[0 if begins else 1 :])
    for each in found:
        assert each.document == 5
        assert each.scored
        assert len(each.context) + len(each.scored) <= window
        assert not begins or each.context[0] == 1
        given_tokens = each.context[1:] if begins else each.context
        place = ids.index(each.scored[0])
        assert list(given_tokens) == ids[place - len(given_tokens) : place]  # what comes right before
        assert len(given_tokens) >= min(overlap, place)


def test_bytes_of_a_first_token_without_context_do_not_count(tokenizer: Any) -> None:
    found = documents.Documents("", ("日本 and more", "x"))
    begun = tokens.windows(found, Text(), tokenizer)
    assert (begun.bytes, begun.start, begun.documents) == (found.bytes, tokenizer.bos_token_id, 2)
    plain = tokens.load_tokenizer(config.Model())
    plain.bos_token = None
    without = tokens.windows(found, Text(), plain)
    first = tokens.spell(plain, "日本 and more", 0)[0]
    assert without.bytes == found.bytes - 1 - first[1]  # "x" is all context
    assert without.documents == 1
    assert without.windows[0].context == (first[0],)
    with pytest.raises(UserError, match="no document has two tokens"):
        tokens.windows(documents.Documents("", ("x",)), Text(), plain)


def test_an_overlap_must_leave_room() -> None:
    with pytest.raises(UserError, match=r"overlap.* is 7, .*at most 6"):
        Text(window=8, overlap=7)


# Bits per byte


def by_hand(model: Any, windows: tokens.Windows) -> np.ndarray:
    """Log-probabilities of the scored tokens by one plain forward pass per window."""
    found = []
    for window in windows.windows:
        ids = torch.tensor([[*window.context, *window.scored]])
        with torch.inference_mode():
            scores = model(ids).logits[0].double().log_softmax(-1)
        at = range(len(window.context), ids.shape[1])
        found += [float(scores[place - 1, ids[0, place]]) for place in at]
    return np.array(found)


def random_windows(start: int | None = 3, counts: tuple[int, ...] = (70, 9, 33)) -> tokens.Windows:
    draw = np.random.Generator(np.random.PCG64(1))
    made = []
    for number, count in enumerate(counts):
        ids = draw.integers(0, VOCABULARY, count).tolist()
        made += tokens.cut(number, ids, [1 + token % 4 for token in ids], Text(window=24, overlap=8), start)
    return tokens.Windows(tuple(made), start)


@pytest.mark.parametrize("start", [3, None])
def test_an_engine_gives_what_a_plain_forward_pass_gives(
    tiny: Callable[..., Any], recipe_on: Callable[..., Recipe], start: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, windows = tiny("llama"), random_windows(start)
    monkeypatch.setattr(bits, "AT_ONCE", 4)
    base = bits.logprobs(engine, recipe_on(engine), windows)
    assert base == pytest.approx(by_hand(tiny_model("llama"), windows), abs=1e-4)
    moved = bits.logprobs(engine, recipe_on(engine, (7, 0.05)), windows)
    assert base != pytest.approx(moved, abs=1e-2)
    assert bits.logprobs(engine, recipe_on(engine), windows).tolist() == base.tolist()
    # The value, from its definition.
    total = -by_hand(tiny_model("llama"), windows).sum() / math.log(2) / windows.bytes
    assert bits.bits(base, windows).value == pytest.approx(total, rel=1e-5)


def test_the_stacked_engine_agrees(tiny: Callable[..., Any], recipe_on: Callable[..., Recipe]) -> None:
    reference, windows = tiny("llama"), random_windows()
    stacked = StackedEngine(tiny_model("llama"), IdTokenizer(), "llama", copies=2, slots=4, device="cpu")
    for terms in ((), ((7, 0.05),)):
        recipe = recipe_on(reference, *terms)
        assert bits.logprobs(stacked, recipe, windows) == pytest.approx(
            bits.logprobs(reference, recipe, windows), abs=1e-4
        )


def test_a_vote_is_the_mean_of_probabilities() -> None:
    members = [np.log([0.5, 0.2, 1e-300]), np.log([0.1, 0.6, 1e-300])]
    assert np.exp(bits.mixture(members)) == pytest.approx([0.3, 0.4, 1e-300])
    assert bits.mixture(members[:1]).tolist() == members[0].tolist()


def test_bits_do_not_depend_on_how_the_bytes_were_cut_into_tokens() -> None:
    """A model that gives every byte one bit needs one bit per byte, whatever its tokens are."""
    for counts in ((70, 9, 33), (20, 20)):
        windows = random_windows(counts=counts)
        sizes = [1 + token % 4 for window in windows.windows for token in window.scored]
        assert bits.bits(-math.log(2) * np.array(sizes), windows).value == pytest.approx(1.0)


def test_the_difference_is_paired_over_documents() -> None:
    windows = random_windows(counts=(40, 60, 20, 90, 35, 10))
    draw = np.random.Generator(np.random.PCG64(2))
    base = -draw.exponential(3, windows.tokens)
    other = base + 0.1 + draw.normal(0, 0.2, windows.tokens)
    found = bits.bits(other, windows, base)
    assert found.difference == pytest.approx(found.value - bits.bits(base, windows).value)  # type: ignore[operator]
    assert found.interval is not None
    low, high = found.interval
    assert low < found.difference < high < 0  # type: ignore[operator]
    # The plain bootstrap of the ratio is as wide, but for the correction for so few documents.
    needed, sizes = bits.by_document(other, windows)
    more = needed - bits.by_document(base, windows)[0]
    picks = draw.integers(0, 6, (4000, 6))
    plain = np.quantile(more[picks].sum(1) / sizes[picks].sum(1), [0.025, 0.975])
    assert 1.1 < (high - low) / (plain[1] - plain[0]) < 1.8


def test_what_has_no_interval_has_none() -> None:
    windows = random_windows(counts=(40, 60))
    base = -np.ones(windows.tokens)
    assert bits.bits(base, windows, base) == bits.Bits(bits.bits(base, windows).value, 0.0, None)
    one = random_windows(counts=(40,))
    assert bits.bits(-np.ones(one.tokens), one, -2 * np.ones(one.tokens)).interval is None
    broken = base.copy()
    broken[0] = -math.inf
    assert bits.bits(broken, windows, base) == bits.Bits(None)
