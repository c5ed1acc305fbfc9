import json
import shlex

from factories import NOON, a_config, a_run, a_step, fill
from pages import charts, elements, help_of, said_in, tiles, words
from states import STATES, collapsed, fill_diverged, foreign, fresh, healthy, import_sparse, live

from storage.commandline import parse
from storage.records import Event, RunStatus
from trainer.__main__ import _parser
from trainer.config_options import config_from_options


def test_an_empty_archive_is_told_how_to_start_a_run(visit):
    page = visit("watch")
    assert [title.value for title in page.title] == ["No run yet"]
    assert "Runs" in " ".join(words(page))
    command = shlex.split(page.code[0].value)
    assert command[:3] == ["python", "-m", "trainer"]
    assert config_from_options(parse(_parser(), command[3:])) == a_config()


def test_when_all_runs_are_archived_watch_says_where_they_are(archive, visit):
    STATES["archived"](archive)
    page = visit("watch")
    assert [title.value for title in page.title] == ["No run to watch"]
    assert "Every run is archived (2)" in " ".join(words(page))


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


def test_a_window_ends_where_it_is_told_to_and_then_stands_still(archive, visit):
    fill(archive, live(), steps=500)

    def feeds(page):
        protos = [e.proto for e in elements(page.main) if type(e).__name__ == "UnknownElement"]
        return [json.loads(p.json)["feed"] for p in protos if '"name": "reward"' in p.json]

    def steps_shown(page):
        assert not page.exception
        return charts(page)["Raw gradient norm"]["data"][0]["x"]

    newest = visit("watch", window="last 200")
    assert steps_shown(newest) == list(range(300, 500))
    page = visit("watch", window="last 200", until="399")
    assert steps_shown(page) == list(range(200, 400))
    assert steps_shown(visit("watch", window="last 200", until="900")) == list(range(300, 500))
    assert "up to step" not in [field.label for field in visit("watch").number_input]
    assert feeds(newest) != []
    assert feeds(page) == []


def test_a_window_without_a_step_has_empty_charts(archive, visit):
    run_id = import_sparse(archive)  # its first step is 10
    page = visit("watch", run=run_id, window="last 200", until="5")
    assert not page.exception
    assert {tuple(trace["x"]) for trace in charts(page)["Reward"]["data"]} == {()}


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
    (words_in_chart,) = said_in(charts(page)["Active clipping"])
    assert words_in_chart["text"].startswith("structurally impossible")
    limits = charts(page)["How much of each limit is used"]["layout"]["yaxis"]["ticktext"]
    assert limits[0] == "staleness<br><b>0</b>"  # a known zero: every rollout is fresh


def test_what_was_not_measured_is_a_dash_with_its_reason(archive, visit):
    STATES["unmeasured"](archive)
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


def test_alerts_of_a_run_are_shown_with_how_each_was_delivered(archive, visit):
    fill(archive, live(), steps=40)
    [run] = archive.runs()
    about = {"rule": "limits", "subject": "s", "message": "κ *is* 1.2", "step": 7}
    archive.raise_alert(run_id=run.id, **about, destinations=["log", "phone"])
    archive.settle_delivery(archive.claim_delivery("phone", seconds=9), "HTTP 404")
    page = visit("watch")
    assert [each.label for each in page.expander if "Alerts" in each.label] == ["Alerts (2)"]
    shown = [text.partition("UTC` ")[2] for text in words(page) if "limits" in text]
    alert = r"limits\: κ \*is\* 1.2 &nbsp;·&nbsp; "
    assert shown == [rf"{alert}log\: pending", rf"{alert}phone\: failed, HTTP 404"]
