import xml.etree.ElementTree as ET

import pytest
from sample import record

from seedfold.report import figures

DRAW = [figures.gains, figures.lead, figures.votes, figures.transfer, figures.scales, figures.progress]
RECORDS = {
    "usual": {},
    "one candidate": {"candidates": 1, "examples": 2},
    "many candidates": {"candidates": 5000, "examples": 20},
    "no select scores": {"selected": False},
    "equal scores": {"spread": 0.0},
    "a vote of one": {"votes": [1]},
    "racing": {"racing": True},
    "losses": {"gain": -0.09},
    "many scales": {"sigmas": [1e-4 * 2**i for i in range(12)]},
}


def elements(svg, tag, style=None):
    found = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}" + tag)
    return [element for element in found if style is None or element.get("class") == style]


def texts(svg):
    return [element.text for element in elements(svg, "text")]


@pytest.mark.parametrize("options", RECORDS.values(), ids=RECORDS)
@pytest.mark.parametrize("draw", DRAW, ids=lambda draw: draw.__name__)
def test_every_figure_is_valid_labelled_and_within_its_frame(draw, options):
    svg = draw(record(**options))
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert "nan" not in svg
    assert "inf" not in svg
    _, _, width, height = map(float, root.get("viewBox").split())
    for element in root.iter():
        for name in ("x", "x1", "x2", "cx", "y", "y1", "y2", "cy"):
            most = width if "x" in name else height
            assert 0 <= float(element.get(name, 0)) <= most, ET.tostring(element)


def test_transfer_draws_the_base_and_every_candidate_scored_on_select_where_it_belongs():
    made = record()
    made["candidates"] = made["candidates"][:3]
    for one, search, select in zip(made["candidates"], (0.3, 0.4, 0.4), (0.5, 0.2, 0.2), strict=True):
        one |= {"search": search, "select": select}
    made["candidates"].append({**made["candidates"][0], "select": None})
    dots = elements(figures.transfer(made), "circle", "dot")
    assert len(dots) == 2  # two candidates share a place
    left, right = sorted(dots, key=lambda dot: float(dot.get("cx")))
    assert float(left.get("cy")) < float(right.get("cy"))
    assert float(left.get("r")) < float(right.get("r"))
    assert "2 candidates: search 40.0 %, select 20.0 %" in [dot[0].text for dot in dots]


@pytest.mark.parametrize(("trust", "rises"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_the_shrinkage_line_has_the_slope_of_the_reliability(trust, rises):
    made = record()
    made["search"]["reliability"] = trust
    svg = figures.transfer(made)
    slopes = []
    for style in ("dashed", "line-red"):
        [line] = elements(svg, "path", style)
        (x1, y1), (x2, y2) = (map(float, place.split()) for place in line.get("d")[1:].split("L"))
        slopes.append((y1 - y2) / (x2 - x1))
    assert slopes[1] / slopes[0] == pytest.approx(rises, abs=0.02)


def test_transfer_is_of_leads_over_the_base_so_that_a_harder_split_moves_nothing():
    made = record()
    svg = figures.transfer(made)
    for one in made["candidates"]:
        if one["select"] is not None:
            one["select"] -= 0.1
    made["base"]["select"] -= 0.1
    places = [
        [(dot.get("cx"), dot.get("cy")) for dot in elements(one, "circle")] for one in (svg, figures.transfer(made))
    ]
    assert places[0] == places[1]


def test_votes_mark_the_chosen_size_and_show_both_intervals_at_every_size():
    made = record(votes=[1, 2, 4, 8])
    made["chosen_k"] = 4
    svg = figures.votes(made)
    assert "chosen: K = 4" in texts(svg)
    for colour in ("blue", "red"):
        assert len(elements(svg, "circle", f"dot-{colour}")) == len(elements(svg, "line", f"line-{colour}")) == 4
    for line in made["votes"]:
        line["vote_ci95"] = None
    assert not elements(figures.votes(made), "line", "line-blue")


def test_scales_give_a_dot_to_every_candidate_and_a_mean_to_every_scale():
    svg = figures.scales(record(candidates=40))
    assert len(elements(svg, "circle", "dot")) == 40
    assert len(elements(svg, "line", "line-red")) == 3
    assert svg == figures.scales(record(candidates=40))


def test_thousands_of_marks_stay_light():
    made = record(candidates=5000, examples=20)
    svg = figures.scales(made)
    assert len(svg) < 100_000
    assert not elements(svg, "title")
    [dots] = elements(svg, "path", "dots")
    assert dots.get("d").count("M") == 5000


def test_lead_puts_the_observed_beside_chance_and_test():
    made = record()
    made["search"] |= {"lead": 0.05, "chance_mean": 0.06, "chance_high": 0.09}
    svg = figures.lead(made)
    assert "observed on search: +5.0" in texts(svg)
    assert "by chance alone: +6.0, 95 % below +9.0" in texts(svg)
    assert "on test: +2.5, 95 % interval −1.5 to +6.5" in texts(svg)
    observed, chance = (
        float(line.get("x2")) - float(line.get("x1"))
        for line in (*elements(svg, "line", "bar-blue")[:1], *elements(svg, "line", "bar-quiet"))
    )
    assert observed / chance == pytest.approx(5 / 6, abs=0.01)


def test_gains_put_every_method_where_its_difference_is():
    made = record()
    svg = figures.gains(made)
    dots = [float(e.get("cx")) for style in ("dot-blue", "dot-red") for e in elements(svg, "circle", style)]
    lines = [line for line in made["results"] if line["kind"] != "base"]
    assert len(dots) == len(lines)
    zero = float(elements(svg, "line", "dashed")[0].get("x1"))
    blue = [line["difference"] for line in lines if line["kind"] != "self-consistency"]
    scale = [(dot - zero) / value for dot, value in zip(dots, blue, strict=False)]
    assert scale == pytest.approx([scale[0]] * len(scale), rel=0.02)
    assert scale[0] > 0


def test_busy_gives_each_engine_a_strip_as_dark_as_it_worked():
    rows = [("0", 0.0, 50.0, 50.0, 9.0), ("0", 50.0, 100.0, 0.0, 0.0), ("1", 0.0, 100.0, 25.0, 3.0)]
    svg = figures.busy({"engines": {"0": "cuda:0", "1": "cuda:1"}, "rows": rows})
    assert [text for text in texts(svg) if "%" in text or "cuda" in text or "all" in text] == [
        "all 2 engines",
        "37.5 %",
        "0: cuda:0",
        "50.0 %",
        "1: cuda:1",
        "25.0 %",
    ]
    shades = [float(rect.get("fill-opacity")) for rect in elements(svg, "rect", "busy")]
    assert len(shades) == 3 * figures.STRETCHES
    own = shades[figures.STRETCHES : 2 * figures.STRETCHES]
    assert own[0] == 1.0
    assert own[-1] == min(shades) == 0.06


def test_of_many_engines_the_idlest_are_shown():
    rows = [(str(n), 0.0, 10.0, float(n % 10), 1.0) for n in range(40)]
    svg = figures.busy({"engines": {}, "rows": rows})
    assert texts(svg)[0] == "all 40 engines"
    shown = [int(text) for text in texts(svg)[2 : 2 * figures.STRIPS : 2]]
    assert len(shown) == figures.STRIPS - 1
    assert {n % 10 for n in shown} == {0, 1, 2, 3}
    assert len(elements(svg, "rect", "busy")) == figures.STRIPS * figures.STRETCHES
    assert texts(figures.busy({"engines": {}, "rows": []})) == ["Nothing was recorded of the engines."]


def test_dots_name_their_candidates_for_the_script():
    made = record(candidates=40)
    for svg in (figures.scales(made), figures.transfer(made)):
        named = [int(place) for dot in elements(svg, "circle", "dot") for place in dot.get("data-c").split()]
        assert len(named) == len(set(named))
    [dots] = elements(figures.scales(record(candidates=5000, examples=20)), "path", "dots")
    assert dots.get("data-all") == ""


def test_a_record_without_the_numbers_says_so():
    made = record(selected=False)
    made |= {"votes": [], "progress": []}
    made["search"]["chance_mean"] = None
    assert texts(figures.transfer(made)) == ["No candidate was scored on select."]
    assert texts(figures.votes(made)) == ["No vote was counted on select."]
    assert texts(figures.progress(made)) == ["No progress was recorded."]
    assert texts(figures.lead(made)) == ["The winner's lead was not compared with chance."]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.31, 0.49, [0.35, 0.4, 0.45]),
        (-0.02, 0.11, [-0.02, 0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (0, 1_000_000, [0, 200_000, 400_000, 600_000, 800_000, 1_000_000]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round_and_inside(low, high, wanted):
    assert figures.ticks(low, high) == pytest.approx(wanted)


def test_labels_move_apart_keep_their_order_and_stay_inside():
    assert figures.spread([100, 50], 0, 200) == [100, 50]
    assert figures.spread([100, 101, 99], 0, 200) == [114, 129, 99]
    assert figures.spread([199, 200], 0, 200) == [185, 200]
