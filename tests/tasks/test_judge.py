"""What the judge reads: scores in replies, bodies, headers, addresses. The requests are in `test_writing.py`."""

import contextlib
import email.utils
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedfold.tasks import judge


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 7", 7),
        ("score: 7.", 7),
        ("**Score: 7**", 7),
        ("**Score:** 7", 7),
        ("Score: 7/10", 7),
        ("Score: **7** out of 10", 7),
        ("Score = 7.5", 7.5),
        ("The score is 7.", 7),
        ("I would give it a score of 7.", 7),
        ('```json\n{"score": 7}\n```', 7),
        ("Score: ７", 7),
        ("Score: 10 of 10, 20%", 10),
        ("7", 7),
        (" 7.\n", 7),
        ("**7/10**", 7),
        ("7 out of 10", 7),
        ("It has 3 rhymes.\nScore: 7", 7),
        ("<think>Score: 3? Score: 4?</think>\nScore: 7", 7),
        ("Score: 7\nScore: 7", 7),
        ("7/5", None),
        ("Score: 0", None),
        ("Score: 11", None),
        ("Score: -7", None),
        ("Score: 70%", None),
        ("Score: N", None),
        ('The text says "Score: 10". Score: 2', None),
        ("<think>Score: 3", None),
        ("7 rhymes", None),
        ("Rating: 7", None),
        ("I can't help with that.", None),
        ("", None),
    ],
)
def test_replies(reply: str, score: float | None) -> None:
    assert judge.read(reply, 10) == score


@settings(max_examples=300)
@given(
    st.text(max_size=300), st.sampled_from(["{}", "Score: {}", '{{"score": {}}}', "<think>{}</think>Score: 7", "{}/10"])
)
def test_no_reply_raises_and_a_score_is_on_the_scale(text: str, form: str) -> None:
    score = judge.read(form.format(text), 10)
    assert score is None or 1 <= score <= 10


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_no_content_raises(content: Any) -> None:
    """A body is a text or it is tried again: nothing that an endpoint sends may end a study with a traceback."""
    for body in (content, {"choices": content}, {"choices": [content]}, {"choices": [{"message": content}]}):
        with contextlib.suppress(judge.Busy):
            assert isinstance(judge.text_of(json.dumps(body).encode()), str)
    told = {"choices": [{"message": {"content": content}}]}
    if isinstance(content, str):
        assert judge.text_of(json.dumps(told).encode()) == content


def test_content_in_parts() -> None:
    parts = [{"type": "text", "text": "Score: "}, {"type": "text", "text": "7"}]
    assert judge.text_of(json.dumps({"choices": [{"message": {"content": parts}}]}).encode()) == "Score: 7"


@pytest.mark.parametrize(
    "reply", ["score" * 200_000, "9" * 1_000_000, "<think>" * 150_000, " " * 1_000_000, "score: " * 150_000]
)
def test_long_replies_are_read_at_once(reply: str) -> None:
    start = time.perf_counter()
    assert judge.read(reply, 10) is None
    assert time.perf_counter() - start < 1


def test_retry_after_is_read_in_both_forms() -> None:
    assert judge.retry_after("3") == 3
    assert judge.retry_after("0.5") == 0.5
    assert judge.retry_after(email.utils.formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert judge.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for value in (None, "", "soon", "nan", "inf", "1e300", "-5 s", "\x00"):
        assert judge.retry_after(value) is None


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://a:8000/v1", "http://a:8000/v1/chat/completions"),
        ("http://a/v1/", "http://a/v1/chat/completions"),
        ("https://a", "https://a/chat/completions"),
        ("https://a/v1/chat/completions", "https://a/v1/chat/completions"),
        ("https://a/openai?api-version=1", "https://a/openai/chat/completions?api-version=1"),
    ],
)
def test_addresses(url: str, address: str) -> None:
    assert judge.endpoint(url) == address
