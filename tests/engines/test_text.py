import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedfold.engines.text import Text, encode_chat
from seedfold.errors import UserError


class Letters:
    """Tokens are letters; 26 ends an answer and is no text."""

    chat_template = None

    def decode(self, tokens, **_):
        return "".join(chr(97 + token) for token in tokens if token < 26)


def made(stop, parts, ends=frozenset({26})):
    text = Text(Letters(), stop, set(ends))
    for part in parts:
        if text.extend(part):
            break
    return text.tokens, text.ended, text.read()


@given(
    st.lists(st.integers(0, 3) | st.just(26), max_size=40),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=2).map(tuple),
    st.integers(1, 9),
)
def test_tokens_taken_together_are_taken_one_by_one(tokens, stop, size):
    together = made(stop, [tokens[i : i + size] for i in range(0, len(tokens), size)])
    assert together == made(stop, [[token] for token in tokens])


def test_an_answer_ends_at_its_end_token_or_its_first_stop_string():
    assert made((), [[0, 1], [26, 2]]) == ([0, 1, 26], True, "ab")
    assert made(("bc",), [[0, 1], [2, 3, 1, 2]]) == ([0, 1, 2], True, "a")
    assert made(("bc",), [[0, 1], [1, 2, 26]]) == ([0, 1, 1, 2], True, "ab")
    assert made(("x",), [[0, 1], [1, 2]]) == ([0, 1, 1, 2], False, "abbc")


def test_a_tokenizer_without_a_chat_template_is_refused():
    with pytest.raises(UserError, match='model "m" has no chat template'):
        encode_chat(Letters(), [], "m")
