"""The page of a running study, in a browser."""

from pathlib import Path

from browser import browse, needs_chromium

from seedfold.report import live
from seedfold.watch import Standing, View

TOP = Standing(7, 0.004, 0.5, (0.4, 0.6), 0.1, (-0.05, 0.25), 0.45, 64)
DRAWN = [{"seed": n, "scale": 0.004, "search": 0.3 + n / 100, "examples": 64} for n in range(20)]
RUNNING = View(
    name="<b>sums</b>",
    phase="search",
    done=1344,
    planned=6000,
    tokens=20_000,
    rate=12.5,
    process=11,
    finished=False,
    base=0.4,
    base_interval=(0.3, 0.5),
    scored=20,
    candidates=60,
    examples=64,
    top=[TOP],
    drawn=DRAWN,
    best=[[64.0 * n, 0.3 + n / 100] for n in range(20)],
    engines=["0: 91.0 %"],
)
LOADING = View("sums", "loading", 0, 6000, 0, None, None, False)


@needs_chromium
def test_a_browser_renders_the_page_without_a_complaint_and_would_load_it_again(tmp_path: Path) -> None:
    for view, figures in ((RUNNING, 2), (LOADING, 0)):
        text = live.page(view, 5.0)
        (tmp_path / "live.html").write_text(text, encoding="utf-8")
        done = browse(tmp_path / "live.html", "--dump-dom")
        assert "CONSOLE" not in done.stderr
        assert done.stdout.count("<svg") == figures
        assert 'content="5"' in text
    assert "<b>" not in live.page(RUNNING, 5.0)


def test_what_is_not_known_is_not_made_up() -> None:
    assert live.status(LOADING) == "loading: 0 of 6,000 answers (0%), rate not known yet"
    assert "base on search" not in live.dashboard(LOADING)
    told = live.dashboard(RUNNING)
    assert "1,344 of at most 6,000 answers, 20,000 tokens, 12.5 answers/s, 6 min 12 s left at most" in told
    assert "engines busy 0: 91.0 %" in told
