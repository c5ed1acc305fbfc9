import math

import pytest
from factories import fill
from pages import field, press
from states import collapsed, foreign, healthy, live

from advisor.experiments.probe import KIND as PROBE


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


def test_a_clip_range_is_left_to_the_loss_unless_it_is_typed(visit):
    page = visit("runs")
    assert field(page, "clip epsilon").value == ""
    assert field(page, "clip epsilon").placeholder == "as loss has it"
    assert field(page, "max grad norm").value == "1"


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
    page.toggle(key="archived").set_value(True).run()
    assert sorted(page.dataframe[0].value["name"]) == ["one", "two"]
    page.text_input(key="search").set_value("TWO").run()
    assert list(page.dataframe[0].value["name"]) == ["two"]
    page.text_input(key="search").set_value("three").run()
    assert "No run matches" in page.info[0].value


def test_the_runs_that_a_probe_is_made_of_are_hidden_until_asked_for_unless_they_live(
    archive, visit
):
    fill(archive, healthy("mine"), steps=21)
    assert "probes" not in [toggle.key for toggle in visit("runs").toggle]
    fill(archive, healthy("a hold", kind=PROBE), steps=21)
    fill(archive, live(kind=PROBE), steps=21)
    page = visit("runs")
    assert sorted(page.dataframe[0].value["name"]) == ["alive", "mine"]
    page.toggle(key="probes").set_value(True).run()
    assert len(page.dataframe[0].value) == 3
