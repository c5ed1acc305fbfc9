import pytest
from factories import a_config, fill
from pages import charts, words
from states import MANY, STATES, fill_evidence, fresh, healthy, import_sparse

from advisor.compare import ALIGNMENTS


def table(page, number):
    """The rows of a table of the page by the name of their run, without its id."""
    rows = page.dataframe[number].value.to_dict("records")
    return {row.pop("run").rpartition(" (")[0]: row for row in rows}


def names_in(chart):
    return [trace["name"].rpartition(" (")[0] for trace in chart["data"]]


def choose(page, key, values):
    return page.multiselect(key=key).set_value(values).run()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_runs_cannot_be_compared_and_the_page_says_what_to_do(archive, visit, count):
    for _ in range(count):
        fill(archive, healthy(), steps=21)
    page = visit("compare")
    assert "Start another on the **Runs** page" in page.info[0].value


def test_two_runs_show_what_differs_how_they_ended_and_both_curves(archive, visit):
    good, bold = fill_evidence(archive, archived=True)
    page = visit("compare", runs=[good.id, bold.id])
    assert not page.exception
    assert table(page, 0) == {
        "survivor": {"learning rate": "0.0002"},
        "too bold": {"learning rate": "0.004"},
    }
    ended = table(page, 1)
    assert [row["status"] for row in ended.values()] == ["✔ finished", "✖ collapsed"]
    assert [row["collapse step"] for row in ended.values()] == ["–", "12"]
    assert [row["reward final"] for row in ended.values()] == ["0.9", "–"]
    names = [trace["name"] for trace in charts(page)["Batch reward"]["data"]]
    assert names == [f"survivor ({good.id[-6:]})", f"too bold ({bold.id[-6:]})"]


def test_every_choice_of_runs_is_kept(archive, visit):
    runs = [healthy(name) for name in ("one", "two", "three")]
    for run in runs:
        fill(archive, run, steps=21)
    ids = [run.id for run in runs]
    page = visit("compare", runs=ids[:2])
    for chosen in (ids, ids[1:], [ids[2], ids[0]]):
        choose(page, "compare-runs", chosen)
        assert page.query_params["runs"] == chosen
        assert len(charts(page)["Batch reward"]["data"]) == len(chosen)
    choose(page, "compare-runs", ids[:1])
    assert page.info[0].value == "Choose at least two runs."


def test_a_metric_that_a_run_cannot_have_is_left_out_with_its_reason(archive, visit):
    fill(archive, fresh(), steps=40)
    fill(archive, healthy(), steps=40)
    page = choose(visit("compare"), "metrics", ["clip_fraction_low"])
    assert names_in(charts(page)["Clipped low"]) == ["survivor"]
    (words,) = [each.value for each in page.caption if "Not drawn" in each.value]
    assert "fresh" in words
    assert "structurally impossible" in words
    assert table(page, 2)["fresh"] == {"best": "–", "last": "–", "at collapse": "–"}


def test_a_metric_that_no_run_has_gives_its_reason_in_place_of_a_chart(archive, visit):
    for seed in (0, 1):
        run = fresh()
        fill(
            archive,
            healthy(config=a_config(max_staleness=0, seed=seed), unmeasured=run.unmeasured),
            steps=21,
        )
    page = choose(visit("compare"), "metrics", ["clip_fraction_low"])
    assert not charts(page)
    assert "structurally impossible" in page.info[-1].value


def test_runs_that_differ_only_in_name_are_said_to_be_the_same(archive, visit):
    fill(archive, healthy("one"), steps=21)
    fill(archive, healthy("two"), steps=21)
    assert "the configurations are the same" in visit("compare").info[0].value


def test_against_a_baseline_every_number_has_its_difference(archive, visit):
    good, bold = fill_evidence(archive)
    page = choose(visit("compare", runs=[good.id, bold.id]), "metrics", ["displacement"])
    # ‖θ − θ₀‖ is η·300·√t: at step 40 0.379 and 7.589, at the collapse (step 12) 4.327.
    assert table(page, 2)["too bold"] == {"best": "–", "last": "7.589", "at collapse": "4.327"}
    page.selectbox(key="compare-baseline").select(good.id).run()
    rows = table(page, 2)
    assert rows["too bold"]["Δ last"] == "+7.21"
    assert rows["survivor"]["Δ last"] == "+0"
    assert rows["too bold"]["Δ at collapse"] == "–"  # the baseline did not collapse
    first, second = charts(page)["Displacement"]["data"]
    assert first["line"]["width"] > second["line"]["width"]


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_curves_are_laid_along_every_axis_that_is_offered(archive, visit, align):
    fill_evidence(archive)
    page = visit("compare", along=ALIGNMENTS[align])
    assert page.selectbox(key="along").value == align
    for chart in charts(page).values():
        assert chart["layout"]["xaxis"]["title"]["text"] == ALIGNMENTS[align]
        assert len(chart["data"]) == 2
        assert all(x is not None for trace in chart["data"] for x in trace["x"])


def test_several_metrics_stand_in_the_order_in_which_they_were_chosen(archive, visit):
    fill_evidence(archive)
    chosen = ["entropy", "reward_mean", "grad_norm"]
    page = choose(visit("compare"), "metrics", chosen)
    assert list(charts(page)) == ["Entropy", "Batch reward", "Gradient norm"]
    assert len(page.dataframe) == 2 + 3


def test_filters_narrow_what_is_on_offer_and_all_found_are_taken_at_once(archive, visit):
    for rate in (1e-4, 2e-4):
        for staleness in (0, 3):
            config = a_config(learning_rate=rate, max_staleness=staleness)
            fill(archive, healthy(f"{rate:g} at {staleness}", config), steps=21)
    tagged = healthy("marked", a_config(learning_rate=1e-4, max_staleness=15))
    fill(archive, tagged, steps=21)
    archive.tag_run(tagged.id, ["paper"])
    page = visit("compare")
    assert page.multiselect(key="compare-filter-S").options == ["0", "3", "15"]
    assert page.multiselect(key="compare-filter-η").options == ["1.0e-4", "2.0e-4"]
    assert page.multiselect(key="compare-filter-regime").options == ["healthy"]
    assert page.multiselect(key="compare-filter-tag").options == ["paper"]
    choose(page, "compare-filter-η", ["1.0e-4"])
    choose(page, "compare-filter-S", [0, 3])
    next(each for each in page.button if each.label == "Compare all 2").click().run()
    assert sorted(names_in(charts(page)["Batch reward"])) == ["0.0001 at 0", "0.0001 at 3"]
    choose(page, "compare-filter-tag", ["paper"])
    button = next(each for each in page.button if each.label == "Compare all 0")
    assert button.disabled


def test_what_is_chosen_stays_chosen_when_a_filter_leaves_it_out(archive, visit):
    good, bold = fill_evidence(archive)
    page = visit("compare", runs=[good.id, bold.id])
    choose(page, "compare-filter-regime", ["collapsed"])
    assert page.query_params["runs"] == [good.id, bold.id]
    assert not page.exception


def test_names_that_look_like_markup_are_shown_as_they_are(archive, visit):
    nasty = "<img src=x onerror=alert(1)>"
    fill(archive, healthy(nasty), steps=21)
    fill(archive, healthy("plain", a_config(seed=1)), steps=21)
    page = visit("compare")
    assert not page.exception
    drawn = " ".join(trace["name"] for trace in charts(page)["Batch reward"]["data"])
    assert "<img" not in drawn
    assert "&lt;img src=x" in drawn
    assert any(nasty[:20] in each for each in words(page))


def test_two_hundred_runs_can_be_compared_at_once(archive, visit):
    STATES["many"](archive)
    page = visit("compare")
    next(each for each in page.button if each.label == f"Compare all {MANY}").click().run()
    assert not page.exception
    assert len(charts(page)["Batch reward"]["data"]) == MANY
    assert len(table(page, 1)) == MANY


def test_a_run_of_a_link_that_is_not_there_is_left_out(archive, visit):
    good, bold = fill_evidence(archive)
    page = visit("compare", runs=["no-such-run", good.id, bold.id])
    assert not page.exception
    assert page.query_params["runs"] == [good.id, bold.id]


def test_an_imported_run_stands_beside_ones_own(archive, visit):
    good, _ = fill_evidence(archive)
    imported = import_sparse(archive)
    page = visit("compare", runs=[good.id, imported])
    assert not page.exception
    assert names_in(charts(page)["Batch reward"]) == ["survivor", "a log"]
    page.selectbox(key="along").select("exposure").run()
    assert not page.exception
    assert names_in(charts(page)["Batch reward"]) == ["survivor"]  # S of the log is not known
    assert any("not known of it\\: S · Σ η" in each.value for each in page.caption)
