import copy

import pytest
from sample import record

from seedfold.report.lines import WIDTH, p_text, percent, points, result_lines, verdict


def interval(line, low, high):
    line["ci95"] = [low, high]
    line["difference"] = (low + high) / 2
    line["p"] = 0.01 if low > 0 or high < 0 else 0.5


def found(**sides):
    """A record whose differences to the base, and of vote to self-consistency, lie at, above or below zero."""
    made = record(gain=0.0, edge=0.0)
    for name, side in sides.items():
        line = made["comparison"]["vote against self-consistency"]
        if name != "edge":
            line = next(line for line in made["results"] if line["kind"] == name.replace("_", "-"))
        interval(line, *{"+": (0.01, 0.05), "-": (-0.05, -0.01)}[side])
    return made


def test_the_lines_of_a_known_record():
    assert result_lines(record()) == EXPECTED


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"candidates": 1},
        {"candidates": 5000, "examples": 20, "racing": True},
        {"examples": 2},
        {"votes": [1]},
        {"spread": 0.0, "selected": False},
        {"gain": -0.09},
    ],
)
def test_every_line_fits_the_terminal(options):
    assert max(map(len, result_lines(record(**options)).splitlines())) <= WIDTH


def test_the_widest_numbers_and_a_hostile_name_still_fit_and_stay_on_their_line():
    made = record(votes=[64])
    for line in made["results"][1:]:
        line |= {"n": 100_000, "accuracy": 1.0, "interval": [0.999, 1.0], "lenient": 1.0, "difference": -0.5}
        line |= {
            "ci95": [-0.502, -0.498],
            "p": 0.0,
            "passes": 5000,
            "truncated": 5000 * 100_000,
            "answers": None,
            "evaluations": 10_000_000,
        }
    made["results"][1]["method"] = "a\x1b[31m very\nlong name " * 9
    text = result_lines(made)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text
    assert "self-consistency of 64 100.0 [99.9, 100.0]" in text
    assert "..." in text.splitlines()[3]


def test_missing_numbers_leave_gaps_and_no_sentence_without_its_numbers():
    made = record()
    made["comparison"] = {}
    made["search"] |= {"reliability": None, "chance_high": None}
    for line in made["results"]:
        line |= {"ci95": None, "p": None, "interval": None, "format_gain": None, "truncated": None}
    text = result_lines(made)
    assert "None" not in text
    for start in ("Winner's lead", "Reliability", "Vote against", "Substance and format"):
        assert start not in text


def test_the_observed_lead_is_judged_by_what_chance_gives():
    made = record()
    made["search"] |= {"lead": 0.10, "chance_mean": 0.06, "chance_high": 0.09}
    assert "leads the base by 10.0 points" in (text := result_lines(made).replace("\n", " "))
    assert "more than chance explains, though part of the lead is still luck" in text
    made["search"]["lead"] = -0.02
    assert "trails the base by 2.0 points" in (text := result_lines(made).replace("\n", " "))
    assert "no more than chance explains" in text


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (-0.01, 0.05, "no detectable difference"),
        (0.0, 0.05, "no detectable difference"),
        (0.01, 0.05, "the vote is better"),
        (-0.05, -0.01, "self-consistency is better"),
    ],
)
def test_vote_against_self_consistency_is_judged_by_its_interval(low, high, says):
    made = record()
    interval(made["comparison"]["vote against self-consistency"], low, high)
    assert f": {says}." in result_lines(made).replace("\n", " ")


def test_a_difference_counts_only_where_interval_and_test_agree():
    made = record()
    interval(made["comparison"]["vote against self-consistency"], 0.001, 0.067)
    made["comparison"]["vote against self-consistency"]["p"] = 0.077
    assert ": no detectable difference." in result_lines(made).replace("\n", " ")
    made["config"]["stats"]["level"] = 0.9
    assert ": the vote is better." in result_lines(made).replace("\n", " ")


def test_intervals_carry_the_level_of_the_config():
    made = record()
    made["config"]["stats"]["level"] = 0.9
    assert "95 %" not in (text := result_lines(made))
    assert "strict [90 %]" in text


def test_the_verdict_keeps_the_base_when_nothing_is_detectable():
    text = verdict(found())
    assert text.startswith("Nothing detectably better than the base was found, so keep the base.")
    assert "a gain below about 4.0 points cannot be told from luck" in text
    assert "Detectably worse: vote of 8." in verdict(found(vote="-"))
    assert "deploy" not in text + verdict(found(vote="-"))


def test_the_verdict_deploys_a_vote_only_if_it_beats_sampling_the_base():
    assert "deploy the vote of 8" in verdict(found(vote="+", edge="+"))
    alone = verdict(found(vote="+"))
    assert "deploy" not in alone
    assert "not enough to show that perturbing helps" in alone
    assert "self-consistency of 8 is the simpler choice" in verdict(found(vote="+", self_consistency="+"))
    assert "The vote of 8 is detectably worse" in verdict(found(self_consistency="+", edge="-"))


def test_the_verdict_deploys_a_single_model_if_it_gains():
    assert "At one forward pass per answer, deploy the best single" in verdict(found(single="+"))
    assert "At one forward pass per answer nothing is detectably better" in verdict(found(vote="+"))


def test_the_record_is_left_as_it_was():
    made = record()
    before = copy.deepcopy(made)
    result_lines(made)
    assert made == before


def test_numbers_as_text():
    assert [percent(x) for x in (0, 0.41449, 1, None)] == ["0.0 %", "41.4 %", "100.0 %", "-"]
    assert [points(x) for x in (0.0271, -0.0271, 0.0, 1e-17, 0.0004, -0.0004, None)] == [
        *("+2.7", "-2.7", "0.0", "0.0", "+0.0", "-0.0", "-")
    ]
    assert [p_text(x) for x in (0.0314, 0.0009, 0.001, 1.0, None)] == ["p=0.031", "p<0.001", "p=0.001", "p=1.000", "-"]


def with_fold(made, method, gate_gain, low, high):
    """A committed fold with this gain on gate and this interval on test."""
    line = made["results"][1] | {"method": f"{method} fold", "kind": "fold", "recipes": [f"recipes/fold-{method}.json"]}
    interval(line, low, high)
    made["results"].append(line)
    gate = {
        "committed": True,
        "gain": gate_gain,
        "lower": 0.01,
        "p": 0.004,
        "level": 0.05,
        "fixed": 9,
        "broken": 1,
        "n": 99,
    }
    attempt = {"settings": {"step": 1.0}, "forecast": 0.08, "select_gain": 0.06, "entrants": 4, "gate": gate}
    fold = {"method": method, "committed": True, "terms": 64, "evaluations": 1200, "rounds": []}
    made.setdefault("folds", []).append(fold | {"attempts": [attempt | {"committed": True}]})


def test_a_fold_that_passed_its_gate_is_deployed_and_test_does_not_choose_among_several():
    made = found(single="+")
    with_fold(made, "linear", 0.05, 0.01, 0.05)
    with_fold(made, "corp", 0.03, 0.06, 0.10)
    assert "deploy the linear fold: +3.0 points" in verdict(made)
    text = " ".join(result_lines(made).split())
    assert (
        "Fold, linear: 1 of 1 proposed updates committed, 1,200 answers beyond the search. The first committed: "
        in text
    )
    assert (
        "forecast +8.0 points, +6.0 on select, where 4 raced, +5.0 on gate (p=0.004, one-sided, at level 0.050)."
        in text
    )


def test_a_fold_that_is_no_better_on_test_leaves_the_best_single_to_deploy():
    made = found(single="+")
    with_fold(made, "linear", 0.05, -0.01, 0.05)
    assert "deploy the best single perturbation" in verdict(made)


def test_a_fold_that_committed_nothing_says_why():
    made = found(single="+")
    with_fold(made, "corp", 0.0, 0.0, 0.0)
    attempt = made["folds"][0]["attempts"][0]
    attempt |= {"gate": None, "committed": False, "select_gain": -0.01}
    text = " ".join(result_lines(made).split())
    assert "Fold, corp: 0 of 1 proposed updates committed" in text
    assert "-1.0 on select, where 4 raced, so it did not come to the gate." in text
    assert "deploy the best single perturbation" in verdict(made)


EXPECTED = """\
                      accuracy %                difference                         cut answers
method                strict [95 %]     lenient [95 %]                  p passes off % to find
base                  40.0 [34.0, 46.0]    43.0                                1   1.2       0
best single           42.5 [36.5, 48.5]    45.5 +2.5 [-1.5, +6.5] p=0.221      1   1.2   8,320
vote of 8             45.0 [39.0, 51.0]    48.0 +5.0 [+1.0, +9.0] p=0.014      8   1.2  10,496
self-consistency of 8 42.0 [36.0, 48.0]    45.0 +2.0 [-2.0, +6.0] p=0.327      8   1.2       0

Accuracy: mean reward on 256 test examples, strict reading, with its 95 % interval; then the lenient
reading. Difference to the base: paired, in points, with its 95 % interval and p. Passes: forward
passes per answer at use. Cut off: answers that met the token limit. Answers to find: what the
choice cost before the test.
Winner's lead: on search, the best of 64 candidates leads the base by 4.5 points; were all equally
good, chance alone would give +6.1 on average and up to +9.4 in 95 % of cases: no more than chance
explains.
Reliability of search scores: 0.34, the share of their variance that is signal; the top candidate
scored 44.5 % and can be expected to score 40.9 %.
Vote against self-consistency at 8 forward passes per answer: +3.0 points (95 % interval -1.0 to
+7.0, p=0.142): no detectable difference.
Substance and format, in points: best single +2.5 = +1.9 substance +0.6 format; vote of 8 +5.0 =
+3.7 substance +1.2 format; self-consistency of 8 +2.0 = +1.5 substance +0.5 format. Substance:
newly right under the lenient reading; format: right before and now well formed; both net of losses."""
