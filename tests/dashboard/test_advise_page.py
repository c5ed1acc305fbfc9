"""Advise: what is asked by a link or by hand, what is answered, and what is kept of it."""

import shlex

import psutil
import pytest
from factories import a_config, a_run, a_step, fill
from pages import charts, click_in, field, headline, help_of, press, tiles, words
from processes import PATIENCE
from states import collapsed, fill_evidence, healthy

from advisor.answer import ask, consider, gather
from advisor.wording import MISSING, chance, rate
from storage.commandline import parse
from storage.records import RunStatus
from trainer.__main__ import _parser
from trainer.config_options import config_from_options

LINK = {
    "max_staleness": "7",
    "steps": "600",
    "learning_rate": "1e-3",
    "clip_epsilon": "0.3",
    "prompts": "24",
    "group_size": "4",
    "hidden_size": "32",
    "layers": "1",
}
CHOICES = {"risk": ("10%", 0.1), "schedule": ("constant", "constant"), "optimizer": ("sgd", "sgd")}


def suggested_config(page):
    """What the command that the page shows would run."""
    return config_from_options(parse(_parser(), shlex.split(page.code[-1].value)[3:]))


# -- asking -----------------------------------------------------------------------------------


def test_the_answer_is_there_at_once_and_is_not_kept_by_itself(archive, visit):
    page = visit("advise")
    assert not page.exception
    assert "Uncalibrated" in page.warning[0].value
    assert float(headline(page)[0]) > 0
    assert not archive.recommendations()


def test_advice_from_runs_is_the_advisors_own(archive, visit):
    fill_evidence(archive)
    page = visit("advise")
    assert not page.warning
    evidence = gather(archive)
    question = ask(settings={"max_staleness": 3, "steps": 300}, evidence=evidence, risk=0.05)
    advice = consider(question, evidence)
    assert advice.calibrated
    assert advice.max_learning_rate < 4e-3  # the rate that collapsed
    number, below = headline(page)
    assert number == rate(advice.max_learning_rate)
    assert f"half of the runs fail at {rate(advice.low)} … {rate(advice.high)}" in below
    assert tiles(page)["Edge: half fail"] == rate(advice.edge)
    assert {"How likely a run is unsafe", "Where runs fail"} <= set(charts(page))
    assert not archive.recommendations()


def test_a_link_asks_what_the_same_words_entered_by_hand_ask(archive, visit):
    fill_evidence(archive)
    by_link = visit("advise", **LINK, **{name: shown for name, (shown, _) in CHOICES.items()})
    by_hand = visit("advise")
    for name, text in LINK.items():
        by_hand.text_input(key=name).set_value(text)
    for name, (_, value) in CHOICES.items():
        by_hand.selectbox(key=name).select(value)
    by_hand.run()
    assert headline(by_link) == headline(by_hand)
    assert words(by_link) == words(by_hand)
    assert charts(by_link) == charts(by_hand)
    given = suggested_config(by_link)
    assert (given.prompts, given.max_staleness, given.schedule) == (24, 7, "constant")
    shown = float(tiles(by_link)["Suggested"].replace("–", headline(by_link)[0]))
    assert given.learning_rate == pytest.approx(shown, rel=0.05)  # three digits, two are shown


def test_what_a_link_asks_changes_the_answer(archive, visit):
    fill_evidence(archive)
    careful, bold = visit("advise", risk="2%"), visit("advise", risk="30%")
    assert float(headline(careful)[0]) < float(headline(bold)[0])
    assert float(headline(visit("advise", max_staleness="31"))[0]) < float(headline(bold)[0])


@pytest.mark.parametrize("link", ["{name} · {id}", "{id}"])
def test_the_setting_of_a_run_fills_what_is_left_empty(archive, visit, link):
    config = a_config(max_staleness=15, steps=450, prompts=24, schedule="constant")
    run = healthy("like this", config)
    fill(archive, run, steps=21)
    page = visit("advise", like=link.format(name=run.name, id=run.id), steps="500")
    assert page.selectbox(key="like").value == run.id
    assert field(page, "max staleness").placeholder == "15"
    assert field(page, "prompts").placeholder == "24"
    given = suggested_config(page)
    assert (given.max_staleness, given.steps, given.prompts) == (15, 500, 24)
    assert given.schedule == "constant"


def test_evidence_can_be_told_to_be_published_settings_only(archive, visit):
    fill_evidence(archive)
    page = visit("advise", evidence="Published settings only")
    assert "Uncalibrated" in page.warning[0].value
    assert not any("too bold" in each for each in words(page))


def test_the_runs_of_a_group_alone_are_the_evidence_where_they_are_chosen(archive, visit):
    both = fill_evidence(archive)
    for run, group in zip(both, ("mine", "theirs"), strict=True):
        archive.update_run(run.id, group=group)
    settings = {"max_staleness": 3, "steps": 300}
    answers = set()
    for group in ("mine", "theirs"):
        evidence = gather(archive, group=group)
        assert len(evidence) == 1
        alone = consider(ask(settings=settings, evidence=evidence, risk=0.05), evidence)
        page = visit("advise", evidence=f"Runs of {group}")
        assert not page.exception
        answers.add(headline(page)[0])
        known = alone.max_learning_rate is not None
        assert headline(page)[0] == (rate(alone.max_learning_rate) if known else MISSING)
    assert len(answers) == 2


def test_a_rate_to_judge_gets_its_risk(archive, visit):
    fill_evidence(archive)
    assert "Risk at your rate" not in tiles(visit("advise"))
    page = visit("advise", learning_rate="4e-3")
    evidence = gather(archive)
    settings = {"max_staleness": 3, "steps": 300, "learning_rate": 4e-3}
    risk = consider(ask(settings=settings, evidence=evidence, risk=0.05), evidence)
    assert risk.unsafe_probability > 0.5
    assert tiles(page)["Risk at your rate"] == chance(risk.unsafe_probability)


def test_a_click_in_the_map_asks_about_that_place(archive, visit):
    fill_evidence(archive)
    page = visit("advise", unit="verl: max_off_policy_threshold", max_staleness="1")
    click_in(page, "advise-map", x=8.3, y=3.14e-4)  # the axis shows S + 1
    assert not page.exception
    assert page.text_input(key="max_staleness").value == "7"
    assert page.text_input(key="learning_rate").value == "3.1e-4"
    assert page.selectbox(key="unit").value == "learner steps"
    cross = charts(page)["Where runs fail"]["data"][-1]
    assert (cross["x"], cross["y"], cross["name"]) == ([8], [3.1e-4], "your rate")
    assert page.query_params["max_staleness"] == "7"


def test_a_click_left_of_everything_asks_about_fresh_rollouts(visit):
    page = click_in(visit("advise"), "advise-map", x=0.9, y=1e-5)
    assert page.text_input(key="max_staleness").value == "0"


# -- what would change it, and what staleness buys -----------------------------------------------


@pytest.mark.parametrize(
    ("label", "change"),
    [
        ("Half the staleness", {"max_staleness": 3}),
        ("Half the horizon", {"steps": 150}),
    ],
)
def test_what_would_change_it_is_the_answer_to_the_changed_question(archive, visit, label, change):
    fill_evidence(archive)
    page = visit("advise", max_staleness="6")
    evidence = gather(archive)
    settings = {"max_staleness": 6, "steps": 300} | change
    other = consider(ask(settings=settings, evidence=evidence, risk=0.05), evidence)
    assert tiles(page)[label] == rate(other.max_learning_rate)
    asked_there = visit("advise", **{"max_staleness": "6"} | {k: str(v) for k, v in change.items()})
    assert headline(asked_there)[0] == tiles(page)[label]


def test_a_change_of_which_the_evidence_says_nothing_is_left_out(archive, visit):
    fill_evidence(archive)
    assert "Twice the clip range" not in tiles(visit("advise"))  # no run had that range


def test_overlapping_equal_times_double_the_steps_per_hour(archive, visit):
    fill_evidence(archive)
    page = visit("advise", generate_seconds="1", learn_seconds="1")
    (bars,) = charts(page)["Learning per hour by staleness"]["data"]
    speed = dict(zip(bars["x"], (each.split(": ")[1] for each in bars["hovertext"]), strict=True))
    assert speed.pop("0").startswith("1,800 steps/h")  # generating and learning take turns
    assert speed
    assert all(each.startswith("3,600 steps/h") for each in speed.values())
    assert max(bars["y"]) == 1.0


def test_the_slower_of_both_sets_the_pace_and_a_measured_time_is_the_default(archive, visit):
    fill_evidence(archive)
    (run,) = (run for run in archive.runs() if run.name == "too bold")
    archive.append_step(a_step(run.id, 40, seconds_generate=3.0, seconds_learn=1.5))
    timed, other = visit("advise"), visit("advise", learn_seconds="6")
    assert [each.placeholder for each in timed.number_input] == ["3, measured", "1.5, measured"]
    (bars,) = charts(timed)["Learning per hour by staleness"]["data"]
    assert [each.split()[3] for each in bars["hovertext"][:2]] == ["800", "1,200"]
    (bars,) = charts(other)["Learning per hour by staleness"]["data"]
    assert [each.split()[3] for each in bars["hovertext"][:2]] == ["400", "600"]


def test_without_times_the_page_asks_for_them(visit):
    page = visit("advise")
    assert "Enter how long generating and learning take" in page.info[0].value
    assert "Learning per hour by staleness" not in charts(page)


# -- keeping and running -------------------------------------------------------------------------


def test_keeping_an_answer_stores_it_once_with_its_question(archive, visit):
    fill_evidence(archive)
    page = press(visit("advise", risk="10%", max_staleness="7"), "Keep this answer")
    page.run()  # drawn again, and not kept again
    (kept,) = archive.recommendations()
    assert kept.question["setting"]["max_staleness"] == 7
    assert kept.question["risk"] == 0.1
    assert rate(kept.answer["max_learning_rate"]) == headline(page)[0]
    assert "Earlier advice (1)" in [each.label for each in page.expander]


def test_running_an_answer_keeps_it_and_links_the_run(archive, visit):
    fill_evidence(archive)
    page = press(visit("advise", max_staleness="1", steps="5"), "Run it")
    (kept,) = archive.recommendations()
    (run,) = (run for run in archive.runs() if run.recommendation_id is not None)
    process = psutil.Process(run.pid)
    process.kill()
    process.wait(PATIENCE)
    assert not page.exception
    assert run.recommendation_id == kept.id
    assert run.id in page.success[0].value
    assert (run.config["max_staleness"], run.config["steps"]) == (1, 5)
    assert run.config["learning_rate"] == float(
        tiles(page)["Suggested"].replace("–", headline(page)[0])
    )


def test_earlier_advice_shows_how_the_runs_that_followed_it_went(archive, visit):
    fill_evidence(archive)
    press(visit("advise"), "Keep this answer")
    assert any("Not run from here." in each for each in words(visit("advise")))
    (kept,) = archive.recommendations()
    archive.create_run(collapsed(recommendation_id=kept.id))
    healed = healthy("second *try*", recommendation_id=kept.id, outcome="damaged")
    archive.create_run(healed)
    archive.create_run(a_run(name="of another"))
    (line,) = [each for each in words(visit("advise")) if "Run since" in each]
    assert "S = 3, T = 300, risk 5%" in line
    assert f"at most {rate(kept.answer['max_learning_rate'])}" in line
    assert "✖ collapsed] too bold, collapsed" in line
    assert "✔ finished] second \\*try\\*, damaged" in line
    assert "of another" not in line


def test_when_no_rate_can_be_advised_a_dash_and_the_reason_stand_there(archive, visit):
    fill(archive, collapsed(), steps=40, drift=0.5)
    page = visit("advise")
    number, below = headline(page)
    assert number == "–"
    assert below
    assert tiles(page)["Suggested"] == "–"
    assert help_of(page, "Suggested")
    assert not page.code  # nothing to run
    assert not archive.recommendations()
    assert archive.runs()[0].status == RunStatus.COLLAPSED
