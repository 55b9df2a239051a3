import json
import os
import re
import tomllib
import xml.etree.ElementTree as ET
from base64 import b64encode
from hashlib import sha256
from html import escape

import pytest
from browser import browse, needs_chromium
from sample import record

from seedfold.report import page

HOSTILE = """<script>alert("x")</script>'&\x1b</style></title>"""

# Measures what a reader would see: figures' text that is too small, cut off or over other text; a page that scrolls
# sideways. The result is left in the title of the page around it.
MEASURE = """<script>
const faults = [];
if (document.documentElement.scrollWidth > innerWidth) faults.push('page wider than window');
for (const svg of document.querySelectorAll('svg')) {
  const frame = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll('text')];
  const size = 13 * frame.width / svg.viewBox.baseVal.width;
  if (size < 12) faults.push('text of ' + size);
  const boxes = texts.map(text => text.getBoundingClientRect());
  boxes.forEach((a, i) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1) faults.push('cut off: ' + texts[i].textContent);
    boxes.slice(i + 1).forEach((b, j) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 4) faults.push(texts[i].textContent + ' over ' + texts[i + 1 + j].textContent);
    });
  });
}
parent.document.title = 'measured at ' + innerWidth + ': ' + (faults.join('; ') || 'no fault');
</script>"""


def test_the_page_holds_the_verdict_the_table_and_all_figures(tmp_path):
    page.write(record(), tmp_path / "deep" / "report.html")
    text = (tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    assert text.count("<svg") == text.count("</svg>") == len(page.FIGURES) + 2 == 6
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(svg)
    assert text.index('class="verdict"') < text.index("<table") < text.index("<svg")
    assert "self-consistency of 8" in text
    assert "[−1.5, +6.5]" in text
    assert "recipes/rank-08.json" in text
    assert text.count("<tr") == 2 + 4 + page.TOP


def test_the_page_asks_nothing_of_the_network_and_runs_the_one_script_that_it_names():
    text = page.html(record())
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert re.findall(r"""(?:src|href|action|data|url)\s*[=(]\s*["']?([^"'> ]*)""", markup) == ["data:,"]
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    digests = [f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in (style, script)]
    assert policy == (
        f"default-src 'none'; style-src {digests[0]}; script-src {digests[1]}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    assert not re.search(r"fetch|XMLHttp|WebSocket|import\(|innerHTML|eval\(|https?:(?!//www.w3.org)", script)


def test_whatever_comes_from_the_record_is_escaped():
    made = record()
    made["name"] = made["created"] = made["model"]["name"] = made["model"]["fingerprint"] = HOSTILE
    made["config"]["name"] = made["config"]["search"]["family"] = made["machine"]["device"] = HOSTILE
    made["config"]["task"]["options"] = made["versions"] = {HOSTILE: HOSTILE}
    made["splits"] = {HOSTILE: 3}
    for line in made["results"]:
        line["method"] = HOSTILE
        line["recipes"] = [HOSTILE]
    for one in made["candidates"]:
        one["family"] = one["recipe"] = one["seed"] = HOSTILE
    found = {
        "names": ["base", HOSTILE],
        "chosen": 1,
        "binary": True,
        "total": 1,
        "examples": [{"question": HOSTILE, "right": HOSTILE, "answers": [[HOSTILE, HOSTILE, 0.0, 0.0, False]] * 2}],
    }
    busy = {"engines": {"0": HOSTILE}, "rows": [("0", 0.0, 1.0, 0.5, 1.0)]}
    text = page.html(made, found, busy)
    assert re.findall("<script[^>]*>", text) == [
        '<script type="application/json" id="answers">',
        '<script type="application/json" id="candidates">',
        "<script>",
    ]
    assert text.count("</script>") == 3
    assert text.count("</style>") == 1
    assert text.count("</title>") == text.count("<title>")
    assert "\x1b" not in text
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(svg)


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": 1, "examples": 2},
        {"selected": False, "spread": 0.0},
        {"votes": [1]},
        {"racing": True},
        {"gain": -0.09},
        {"candidates": 5000, "examples": 20},
    ],
)
def test_unusual_records_make_a_page(options):
    text = page.html(record(**options))
    assert text.count("<svg") == 6
    assert not re.search(r"\bNone\b|\bnan\b", text)
    assert len(text) < 1_500_000


def test_missing_numbers_make_a_page():
    made = record()
    made |= {"comparison": {}, "seconds": None, "tokens": None, "chosen_k": None}
    made["search"] |= dict.fromkeys(("lead", "reliability", "chance_mean", "chance_high", "prior_mean"))
    for line in made["results"]:
        line |= dict.fromkeys(
            ("interval", "ci95", "p", "fixed", "broken", "format_gain", "substance_gain", "truncated")
        )
    for one in made["candidates"]:
        one |= dict.fromkeys(("se", "select", "recipe"))
    assert not re.search(r"\bNone\b|\bnan\b", page.html(made))


def test_how_busy_engines_were_is_drawn_where_the_folder_tells(tmp_path):
    told = {"engines": {"0": "cuda:0", "1": "cuda:1"}, "rows": [[0, 0.0, 10.0, 9.0, 4], [1, 0.0, 10.0, 7.0, 3]]}
    for text, drawn in (
        (json.dumps(told), True),
        ("{}", False),
        ("[]", False),
        ('{"engines": 1, "rows": [[]]}', False),
    ):
        (tmp_path / "engines.json").write_text(text)
        page.of_folder(record(), tmp_path)
        written = (tmp_path / "report.html").read_text()
        assert ("How busy the engines were" in written) == drawn
        assert ("1: cuda:1" in written) == drawn
    (tmp_path / "engines.json").unlink()
    page.of_folder(record(), tmp_path)
    assert "How busy" not in (tmp_path / "report.html").read_text()


def test_racing_says_what_it_saved():
    assert "Racing saved 25.0&nbsp;% of the answers on search: 6,144 in place of 8,192" in page.html(
        record(racing=True)
    )
    assert "Racing" not in page.html(record())


def test_the_config_is_shown_as_toml():
    config = record()["config"]
    config["name"] = 'a "quoted"\nname'
    assert tomllib.loads(page.toml(config)) == config


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    page.write(record(), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        page.write(record(gain=0.2), path)
    assert path.read_bytes() == before


@needs_chromium
def test_a_browser_renders_the_page_without_a_complaint(tmp_path):
    page.write(record(), tmp_path / "report.html")
    shot = tmp_path / "shot.png"
    done = browse(tmp_path / "report.html", f"--screenshot={shot}", "--window-size=1000,1400")
    assert "CONSOLE" not in done.stderr
    assert shot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert shot.stat().st_size > 50_000  # an empty page of this size takes a tenth of it


@needs_chromium
def test_a_browser_does_complain_when_a_page_asks_for_more(tmp_path):
    bad = page.html(record(candidates=1)).replace("</main>", '<img src="https://example.invalid/x.png"></main>')
    (tmp_path / "report.html").write_text(bad, encoding="utf-8")
    assert "CONSOLE" in browse(tmp_path / "report.html", "--dump-dom").stderr


@needs_chromium
@pytest.mark.parametrize("width", [420, 1000])
@pytest.mark.parametrize(
    "options",
    [{}, {"candidates": 5000, "examples": 20}, {"candidates": 1, "examples": 2}, {"spread": 0.0, "gain": -0.09}],
    ids=["usual", "many", "one", "equal"],
)
def test_text_in_figures_is_legible_and_nothing_overlaps(tmp_path, options, width):
    text = page.html(record(**options))
    text = re.sub("<meta http-equiv=[^>]*>", "", text).replace("</body>", MEASURE + "</body>")
    # A frame, since the window itself cannot be made as narrow as a phone.
    frame = f'<iframe srcdoc="{escape(text)}" style="width: {width}px; height: 1400px; border: 0"></iframe>'
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    done = browse(tmp_path / "frame.html", "--dump-dom", "--window-size=1200,1500")
    [title] = re.findall("<title>(measured .*?)</title>", done.stdout)
    assert title == f"measured at {width}: no fault"
