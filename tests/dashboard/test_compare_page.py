import pytest
from factories import fill
from pages import charts
from states import fresh, healthy


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
