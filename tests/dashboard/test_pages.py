import math
import os
import re
import shlex
import socket
from dataclasses import replace

import psutil
import pytest
from factories import NOON, a_config, a_run, a_step, fill
from pages import charts, help_of, tiles, words

from storage.commandline import parse
from storage.records import Event, RunStatus
from trainer.__main__ import _parser
from trainer.config import config_from_options

PAGES = ("watch", "advise", "compare", "runs")


def live(**changes):
    """A run whose process is this one."""
    alive = {
        "status": RunStatus.RUNNING,
        "started_at": NOON,
        "heartbeat_at": NOON,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "pid_started": psutil.Process().create_time(),
    }
    return a_run(name="alive", **(alive | changes))


def ended(name, status, config=None, **changes):
    return a_run(config, name=name, status=status, outcome=str(status), **changes)


def healthy(name="survivor", config=None, **changes):
    values = {"outcome": "healthy", "reward_first": 0.78, "reward_last": 0.88, "reward_final": 0.9}
    return a_run(config, name=name, status=RunStatus.FINISHED, **(values | changes))


def collapsed(**changes):
    reason = "the smoothed reward fell below half of its peak"
    config = a_config(learning_rate=4e-3)
    return ended(
        "too bold",
        RunStatus.COLLAPSED,
        config,
        collapse_step=12,
        outcome_reason=reason,
        **changes,
    )


def fresh():
    """A run at S = 0, with the reasons that the trainer gives."""
    from trainer.meter import unmeasured

    config = a_config(max_staleness=0)
    return healthy("fresh", config, unmeasured=unmeasured(config))


def foreign():
    """A run of which nobody said how long it was to be, nor with which rate."""
    return replace(a_run(name="from elsewhere", status=RunStatus.FINISHED), config={})


def fill_diverged(store):
    run = ended("broken", RunStatus.DIVERGED, outcome_reason="a non-finite number at batch 30")
    fill(store, run, steps=30)
    nothing = {"reward_mean": math.nan, "grad_norm": math.inf, "approx_kl": math.nan}
    store.append_step(a_step(run.id, 30, sampled_at_step=28, learning_rate=2e-4, **nothing))
    return run


def fill_state(store, state):
    """Bring the archive into one of the states in which every page must be fit to be seen."""
    if state == "live":
        fill(store, live(), steps=40)
    elif state == "collapsed":
        fill(store, collapsed(), steps=40, drift=0.5)
    elif state == "diverged":
        fill_diverged(store)
    elif state == "fresh":
        fill(store, fresh(), steps=40)
    elif state == "unmeasured":
        run = healthy(reward_first=None, reward_last=None, reward_final=None)
        store.create_run(run)
        store.append_step(a_step(run.id, 0))
    elif state == "queued":
        store.create_run(a_run(name="waiting"))
    elif state == "foreign":
        store.create_run(foreign())
    elif state == "archived":
        fill(store, healthy(archived=True), steps=40)
        fill(store, collapsed(archived=True), steps=40, drift=0.5)


STATES = (
    "empty",
    "live",
    "collapsed",
    "diverged",
    "fresh",
    "unmeasured",
    "queued",
    "foreign",
    "archived",
)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("state", STATES)
def test_no_page_fails_or_shows_an_unknown_number_as_nan_or_none(archive, visit, state, page):
    fill_state(archive, state)
    shown = visit(page)
    assert not shown.exception
    assert not shown.error
    text = " | ".join(words(shown)).replace("computed nan at step", "")  # a fact, and no unknown
    assert not re.search(r"\b(nan|none|inf|nat)\b", text, re.IGNORECASE), text
    charts(shown)  # refuses NaN and Infinity, which no browser reads


# -- Watch ------------------------------------------------------------------------------------


def test_an_empty_archive_is_told_how_to_start_a_run(visit):
    page = visit("watch")
    assert [title.value for title in page.title] == ["No run yet"]
    assert "Runs" in " ".join(words(page))
    command = shlex.split(page.code[0].value)
    assert command[:3] == ["python", "-m", "trainer"]
    assert config_from_options(parse(_parser(), command[3:])) == a_config()


def test_when_all_runs_are_archived_watch_says_where_they_are(archive, visit):
    fill_state(archive, "archived")
    page = visit("watch")
    assert [title.value for title in page.title] == ["No run to watch"]
    assert "All 2 runs are archived" in " ".join(words(page))


def test_a_live_run_shows_how_far_it_is_and_its_recent_numbers(archive, visit):
    fill(archive, live(), steps=40)
    page = visit("watch")
    assert "running" in page.markdown[0].value
    assert "step **40** of 300" in page.markdown[0].value
    # Ages run 0…3, so over a cycle KL is highest at 3·1e-3, clipping at 3·(1 % + 0.5 %), and the
    # sequence ESS lowest at 1 − 3·0.03.
    assert tiles(page) == {
        "batch reward, mean": "0.800",
        "learning rate η": "2.0e-4",
        "sampling KL, highest": "0.003",
        "clipped, highest": "4.5%",
        "sequence ESS, lowest": "91%",
    }
    assert "Of the last 20 learner steps" in " ".join(words(page))


def test_a_live_run_moves_when_the_page_is_drawn_again(archive, visit):
    run = live()
    fill(archive, run, steps=40)
    page = visit("watch")
    archive.append_step(a_step(run.id, 40, learning_rate=2e-4, reward_mean=0.9, sampled_at_step=40))
    page.run()
    assert "step **41** of 300" in page.markdown[0].value
    assert charts(page)["Reward"]["data"][0]["x"][-1] == 40


def test_a_run_that_ends_while_it_is_watched_shows_its_end(archive, visit):
    run = live()
    fill(archive, run, steps=40)
    page = visit("watch")
    archive.update_run(run.id, status=RunStatus.FINISHED, outcome="healthy", outcome_reason="well")
    page.run()
    assert not page.exception
    assert "finished" in page.markdown[0].value
    assert "**healthy**" in page.markdown[0].value


def test_a_run_without_a_step_says_what_it_waits_for(archive, visit):
    run = live()
    archive.create_run(run)
    archive.append_event(Event(run_id=run.id, time=NOON, kind="warm_start", message="at 0.41"))
    page = visit("watch")
    assert "first learner step is still to come: at 0.41" in page.info[0].value
    assert not charts(page)


def test_a_collapsed_run_shows_where_and_says_nothing_of_what_remains(archive, visit):
    fill(archive, collapsed(), steps=40, drift=0.5)
    page = visit("watch")
    text = " ".join(words(page))
    assert "the smoothed reward fell below half of its peak" in page.markdown[0].value
    assert ":red-badge[✖ collapsed]" in text
    assert "horizon is used up" not in text
    assert "What remains" not in text
    marks = charts(page)["Reward"]["layout"]["shapes"]
    assert [(m["x0"], m["label"]["text"]) for m in marks] == [(12, "collapse")]


def test_a_diverged_run_names_what_was_not_finite_and_marks_the_step(archive, visit):
    fill_diverged(archive)
    page = visit("watch")
    assert ":red-badge[✖ diverged]" in " ".join(words(page))
    assert tiles(page)["batch reward, mean"] == "not finite"
    assert help_of(page, "batch reward, mean") == "computed nan at step 30"
    assert tiles(page)["sequence ESS, lowest"] == "91%"
    marks = charts(page)["Raw gradient norm"]["layout"]["shapes"]
    assert [(m["x0"], m["x1"], m["label"]["text"]) for m in marks] == [(30, 30, "not finite")]
    assert not charts(page)["Effective sample size"]["layout"]["shapes"]


def test_at_staleness_zero_clipping_is_impossible_and_never_zero(archive, visit):
    fill(archive, fresh(), steps=40)
    page = visit("watch")
    assert tiles(page)["clipped, highest"] == "–"
    assert "structurally impossible" in help_of(page, "clipped, highest")
    (words_in_chart,) = charts(page)["Active clipping"]["layout"]["annotations"]
    assert words_in_chart["text"].startswith("structurally impossible")
    limits = charts(page)["How much of each limit is used"]["layout"]["yaxis"]["ticktext"]
    assert limits[0] == "staleness<br><b>0</b>"  # a known zero: every rollout is fresh


def test_what_was_not_measured_is_a_dash_with_its_reason(archive, visit):
    fill_state(archive, "unmeasured")
    page = visit("watch")
    assert set(tiles(page).values()) == {"–"}
    assert help_of(page, "sampling KL, highest") == "not measured"


def test_a_run_without_a_plan_shows_no_progress_instead_of_a_full_bar(archive, visit):
    run = foreign()
    archive.create_run(run)
    archive.append_step(a_step(run.id, 0))
    page = visit("watch")
    assert " of " not in page.markdown[0].value
    assert not page.get("progress")


def test_a_failed_run_shows_its_last_line_and_keeps_the_traceback(archive, visit):
    error = "Traceback (most recent call last):\n  File x\nRuntimeError: out of memory"
    archive.create_run(a_run(status=RunStatus.FAILED, error=error))
    page = visit("watch")
    assert page.error[0].value == "The run failed: RuntimeError\\: out of memory"
    assert page.code[0].value == error


def test_a_link_opens_its_run_even_when_that_is_archived(archive, visit):
    away = healthy("put away", archived=True)
    fill(archive, away, steps=21)
    fill(archive, live(), steps=40)
    page = visit("watch", run=away.id)
    assert page.selectbox[0].value == away.id
    assert "step **21** of 300" in page.markdown[0].value
    assert not page.warning


def test_a_link_to_no_run_says_so_instead_of_showing_another_one_silently(archive, visit):
    fill(archive, live(), steps=40)
    page = visit("watch", run="nosuch")
    assert "no run nosuch" in page.warning[0].value
    assert page.selectbox[0].value == archive.runs()[0].id


def test_every_choice_of_a_run_is_kept_not_only_the_first(archive, visit):
    runs = [healthy(name) for name in ("one", "two", "three")]
    for i, run in enumerate(runs):
        fill(archive, run, steps=21 + i)
    page = visit("watch", run=runs[0].id)
    for i in (1, 2, 0):
        page.selectbox[0].select(runs[i].id).run()
        assert f"step **{21 + i}** of" in page.markdown[0].value
        assert page.query_params["run"] == runs[i].id


def test_without_a_link_the_living_come_before_the_newest(archive, visit):
    alive = live(id="20231114-221320-000001")
    fill(archive, alive, steps=40)
    fill(archive, healthy(id="20231114-221320-000002"), steps=40)
    assert visit("watch").selectbox[0].value == alive.id


def test_a_run_whose_process_is_gone_reads_as_lost_and_is_not_rewritten(archive, visit):
    run = live(pid=2**22 + 1, pid_started=NOON)  # beyond the largest process id of Linux
    fill(archive, run, steps=40)
    assert "lost" in visit("watch").markdown[0].value
    assert archive.run(run.id).status == RunStatus.RUNNING


# -- Advise -----------------------------------------------------------------------------------


def field(page, label):
    return next(each for each in page.text_input if each.label == label)


def press(page, label):
    return next(each for each in page.button if each.label == label).click().run()


def fill_evidence(store):
    fill(store, healthy(), steps=40)
    fill(store, collapsed(), steps=40, drift=0.5)


def test_without_runs_the_advice_is_from_the_literature_and_says_so(archive, visit):
    page = visit("advise")
    assert "No ended run is archived yet" in page.info[0].value
    page = press(page, "Advise")
    assert not page.exception
    assert "Uncalibrated" in page.warning[0].value
    assert len(archive.recommendations()) == 1


def test_advice_from_runs_is_shown_as_it_is_stored(archive, visit):
    fill_evidence(archive)
    page = visit("advise")
    assert "evidence: 2" in page.info[0].value
    page = press(page, "Advise")
    assert not page.exception
    assert not page.warning
    (kept,) = archive.recommendations()
    largest = kept.answer["max_learning_rate"]
    assert 0 < largest < 4e-3  # below the rate that collapsed
    assert float(tiles(page)["Largest safe learning rate"]) == pytest.approx(largest, rel=0.05)
    edge = kept.answer["edge"]
    assert float(tiles(page)["Edge: half of the runs fail"]) == pytest.approx(edge, rel=0.05)
    assert {"How likely a run is unsafe", "Where runs fail"} <= set(charts(page))


def test_the_command_of_an_answer_runs_the_setting_that_was_asked(archive, visit):
    fill_evidence(archive)
    page = visit("advise")
    field(page, "prompts").set_value("24")
    field(page, "max staleness").set_value("7")
    page.selectbox(key="ask-schedule").select("constant")
    next(each for each in page.selectbox if each.label == "evidence").select("literature")
    page = press(page, "Advise")
    given = config_from_options(parse(_parser(), shlex.split(page.code[0].value)[3:]))
    assert (given.prompts, given.max_staleness, given.schedule) == (24, 7, "constant")
    assert given.learning_rate == pytest.approx(float(tiles(page)["Suggested"]))


def test_a_rate_to_judge_gets_its_risk(archive, visit):
    fill_evidence(archive)
    page = visit("advise")
    field(page, "learning rate").set_value("4e-3")
    page = press(page, "Advise")
    stored = archive.recommendations()[0].answer["unsafe_probability"]
    shown = tiles(page)["Risk at your rate"]
    assert stored > 0.5
    assert shown == (">99%" if stored > 0.99 else f"{stored:.0%}")


def test_each_fault_of_a_question_gets_one_message_and_nothing_is_stored(archive, visit):
    page = visit("advise")
    field(page, "max staleness").set_value("-1")
    field(page, "steps").set_value("0")
    field(page, "learning rate").set_value("a lot")
    field(page, "clip epsilon").set_value("1.0")
    page = press(page, "Advise")
    assert not page.exception
    assert sorted(each.value.replace("\\", "") for each in page.error) == [
        "clip_epsilon: '1.0' is not allowed; allowed: 0 < clip_epsilon < 1",
        "learning_rate: 'a lot' is not allowed; allowed: 0 < learning_rate <= 10",
        "max_staleness: '-1' is not allowed; allowed: whole number, 0 <= max_staleness <= 4096",
        "steps: '0' is not allowed; allowed: whole number, 1 <= steps <= 100000000",
    ]
    assert not archive.recommendations()
    assert not tiles(page)


# -- Compare ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_runs_cannot_be_compared_and_the_page_says_what_to_do(archive, visit, count):
    for _ in range(count):
        fill(archive, healthy(), steps=21)
    page = visit("compare")
    assert "Start another on the **Runs** page" in page.info[0].value


def test_two_runs_show_what_differs_how_they_ended_and_both_curves(archive, visit):
    fill_state(archive, "archived")
    good, bold = sorted(archive.runs(), key=lambda run: run.name)
    page = visit("compare", runs=[good.id, bold.id])
    assert not page.exception
    differs, outcomes = (each.value for each in page.dataframe)
    assert differs.to_dict("records") == [
        {"setting": "learning rate", good.id: "0.0002", bold.id: "0.004"}
    ]
    by_field = outcomes.set_index("outcome")
    assert list(by_field.loc["status"]) == ["finished", "collapsed"]
    assert list(by_field.loc["collapse step"]) == ["–", "12"]
    assert list(by_field.loc["reward final"]) == ["0.9", "–"]
    names = [trace["name"] for trace in charts(page)["Batch reward"]["data"]]
    assert names == [f"survivor ({good.id[-6:]})", f"too bold ({bold.id[-6:]})"]


def test_every_choice_of_runs_is_kept(archive, visit):
    runs = [healthy(name) for name in ("one", "two", "three")]
    for run in runs:
        fill(archive, run, steps=21)
    ids = [run.id for run in runs]
    page = visit("compare", runs=ids[:2])
    for chosen in (ids, ids[1:], [ids[2], ids[0]]):
        page.multiselect[0].set_value(chosen).run()
        assert page.query_params["runs"] == chosen
        assert len(charts(page)["Batch reward"]["data"]) == len(chosen)
    page.multiselect[0].set_value(ids[:1]).run()
    assert page.info[0].value == "Choose at least two runs."


def test_a_metric_that_a_run_cannot_have_is_left_out_with_its_reason(archive, visit):
    fill(archive, fresh(), steps=40)
    fill(archive, healthy(), steps=40)
    page = visit("compare")
    metric = next(each for each in page.selectbox if each.label == "Metric")
    page = metric.select("clip_fraction_low").run()
    (curve,) = charts(page)["Clipped low"]["data"]
    assert curve["name"].startswith("survivor")
    assert "structurally impossible" in page.info[0].value


def test_runs_that_differ_only_in_name_are_said_to_be_the_same(archive, visit):
    fill(archive, healthy("one"), steps=21)
    fill(archive, healthy("two"), steps=21)
    assert "the configurations are the same" in visit("compare").info[0].value


# -- Runs -------------------------------------------------------------------------------------


def test_an_empty_archive_opens_the_form_to_start_a_run(visit):
    page = visit("runs")
    assert "Start the first run above" in page.info[0].value
    assert page.expander[0].proto.expanded


def test_each_fault_of_a_start_gets_one_message_and_nothing_is_launched(archive, visit, tmp_path):
    page = visit("runs")
    field(page, "learning rate").set_value("nan")
    field(page, "max staleness").set_value("2.5")
    field(page, "steps").set_value("")
    field(page, "seed").set_value("one")
    field(page, "hidden size").set_value("65")
    page = press(page, "Start")
    assert not page.exception
    assert sorted(each.value.split(":")[0].rstrip("\\") for each in page.error) == [
        "hidden\\_size",
        "learning\\_rate",
        "max\\_staleness",
        "seed",
        "steps",
    ]
    text = " ".join(each.value for each in page.error).replace("\\", "")
    assert "'nan' is not allowed; allowed: 0 < learning_rate <= 10" in text
    assert "steps: not given; allowed: whole number, 1 <= steps" in text
    assert not archive.runs()
    assert not (tmp_path / "logs").exists()
    assert not page.success


def test_the_table_leaves_what_is_unknown_empty(archive, visit):
    fill(archive, live(), steps=40)
    fill(archive, collapsed(reward_last=0.0), steps=40, drift=0.5)
    archive.create_run(foreign())
    table = visit("runs").dataframe[0].value.set_index("name")
    assert table.loc["alive", "done"] == pytest.approx(100 * 40 / 300)
    assert math.isnan(table.loc["from elsewhere", "done"])
    assert math.isnan(table.loc["alive", "reward last"])
    assert table.loc["too bold", "reward last"] == 0.0  # measured, and nothing was solved
    assert table.loc["too bold", "collapse step"] == 12
    assert math.isnan(table.loc["alive", "collapse step"])


def test_archived_runs_are_hidden_until_asked_for_and_words_filter(archive, visit):
    fill(archive, healthy("one"), steps=21)
    fill(archive, healthy("two", archived=True), steps=21)
    page = visit("runs")
    assert list(page.dataframe[0].value["name"]) == ["one"]
    page.toggle[0].set_value(True).run()
    assert sorted(page.dataframe[0].value["name"]) == ["one", "two"]
    page.text_input(key="runs-search").set_value("TWO").run()
    assert list(page.dataframe[0].value["name"]) == ["two"]
    page.text_input(key="runs-search").set_value("three").run()
    assert "No run matches" in page.info[0].value


# -- an archive that cannot be read ---------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_an_archive_that_cannot_be_opened_is_one_clear_message(visit, monkeypatch, tmp_path, page):
    monkeypatch.setenv("ETALON_DB", str(tmp_path / "nowhere" / "archive.db"))
    shown = visit(page)
    assert not shown.exception
    assert len(shown.error) == 1
    assert "The archive cannot be read" in shown.error[0].value
    assert "nowhere does not exist; make it first" in shown.error[0].value
    (tmp_path / "nowhere").mkdir()
    assert not press(shown, "Try again").error
