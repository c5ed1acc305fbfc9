"""``python -m advisor recommend|diagnose``: the contract, on real runs and on mistyped words."""

import json
import sqlite3

import pytest
from factories import a_config, a_run, fill
from processes import command

from advisor.__main__ import main
from storage import engine
from storage.commandline import run_command
from storage.records import RunStatus
from storage.store import Store

ASKED = ["--max-staleness", "3", "--steps", "300"]
FINISHED, COLLAPSED = "20231114-221320-000001", "20231114-221320-000002"
RATES = ("max_learning_rate", "suggested_learning_rate", "edge", "low", "high")
ESTIMATES = ("kappa_staleness", "kappa_horizon", "kappa_local")
CONTRACT = {
    *RATES,
    *ESTIMATES,
    "binding",
    "regime",
    "unsafe_probability",
    "forecast_collapse_step",
    "crossover_staleness",
    "reason",
    "evidence",
    "red_flags",
}


@pytest.fixture
def two_runs(archive_with_two_runs, tmp_path):
    """A copy of the two real runs, so that answers can be kept in it."""
    path = tmp_path / "two.db"
    source = sqlite3.connect(archive_with_two_runs.home / "etalon.db")
    target = sqlite3.connect(path)
    source.backup(target)
    source.close()
    target.close()
    return str(path)


def strictly(text):
    """Read one JSON object; NaN and Infinity are no JSON."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    [line] = text.splitlines()
    return json.loads(line, parse_constant=refuse)


def called(capsys, *words):
    """Run a command in this process; return its exit code and its one JSON object."""
    code = run_command(main, [*words, "--json"])
    out, err = capsys.readouterr()
    assert err == ""
    return code, strictly(out)


def recommended(capsys, db, *words):
    code, answer = called(capsys, "recommend", *ASKED, "--db", db, *words)
    assert code == 0
    assert unexplained(answer) == []
    return answer


def unexplained(answer):
    """Name every null without a reason beside it; an estimate has one for all its parts."""
    names = [name for name, value in answer.items() if value is None]
    found = [name for name in names if not answer.get(f"{name}_reason", "").strip()]
    for name, part in answer.items():
        if isinstance(part, dict) and None in part.values():
            found += [] if (part["reason"] or "").strip() else [name]
            found += [name] if part["value"] is None and not answer[f"{name}_reason"] else []
    return found


# -- two real runs ----------------------------------------------------------------------------


def test_the_answer_is_one_object_with_every_key_of_the_contract(two_runs, tmp_path):
    words = ["-m", "advisor", "recommend", *ASKED, "--db", two_runs, "--json"]
    done = command(*words, home=tmp_path / "home")
    assert (done.returncode, done.stderr) == (0, "")
    answer = strictly(done.stdout)
    assert answer.keys() >= CONTRACT
    assert unexplained(answer) == []
    assert not (tmp_path / "home").exists()


def test_two_real_runs_place_the_edge_between_their_rates(two_runs, capsys):
    answer = recommended(capsys, two_runs)
    assert answer["calibrated"]
    assert 2e-4 < answer["edge"] < 4e-3
    assert answer["max_learning_rate"] < answer["edge"]
    assert answer["suggested_learning_rate"] <= answer["max_learning_rate"]
    assert len(answer["evidence"]) == 2
    for name in ESTIMATES:
        assert answer[name].keys() == {"value", "low", "high", "is_bound", "reason"}


def test_the_answer_is_kept(two_runs, capsys):
    answer = recommended(capsys, two_runs, "--risk", "0.1", "--learning-rate", "3e-4")
    store = Store.open(two_runs)
    [kept] = store.recommendations(last=1)
    store.close()
    assert kept.answer["max_learning_rate"] == answer["max_learning_rate"]
    assert kept.question["risk"] == 0.1
    assert kept.question["learning_rate"] == 3e-4
    assert answer["unsafe_probability"] == kept.answer["unsafe_probability"] is not None


def test_one_run_alone_is_the_evidence_when_it_is_named(two_runs, archive_with_two_runs, capsys):
    survivor = recommended(capsys, two_runs, "--run", archive_with_two_runs.finished_id)
    assert survivor["max_learning_rate"] <= 4e-4
    assert survivor["edge"] is None
    assert "survived" in survivor["edge_reason"]
    lost = recommended(capsys, two_runs, "--run", archive_with_two_runs.collapsed_id)
    assert lost["max_learning_rate"] is None
    assert "no run of the evidence survived" in lost["max_learning_rate_reason"]


def test_literature_leaves_the_archive_aside(two_runs, capsys):
    answer = recommended(capsys, two_runs, "--literature")
    assert answer["calibrated"] is False
    assert "38 published settings, uncalibrated" in answer["reason"]
    assert answer["regime"] == "insufficient_data"


def test_another_setting_falls_back_on_literature_and_says_so(two_runs, capsys):
    answer = recommended(capsys, two_runs, "--clip-epsilon", "0.3")
    assert answer["calibrated"] is False
    said = "Archived runs of another setting (clip_epsilon 0.2 ≠ 0.3), left out: 2."
    assert said in answer["reason"]


def test_a_real_finished_run_is_healthy_and_a_real_collapsed_one_is_not(
    two_runs, archive_with_two_runs, capsys
):
    code, found = called(capsys, "diagnose", archive_with_two_runs.finished_id, "--db", two_runs)
    assert (code, found["regime"]) == (0, "stable")
    assert unexplained(found) == []
    code, found = called(capsys, "diagnose", archive_with_two_runs.collapsed_id, "--db", two_runs)
    assert (code, found["regime"]) == (1, "collapsed")
    assert unexplained(found) == []


# -- what people read -------------------------------------------------------------------------


def test_as_text_the_answer_is_a_sentence_the_rates_and_the_evidence(seeded, capsys):
    assert run_command(main, ["recommend", *ASKED, "--db", seeded.url]) == 0
    sentence, *lines = capsys.readouterr().out.splitlines()
    assert sentence.startswith("Up to ")
    assert [line.split("  ")[0] for line in lines[:7]] == [
        *("max_learning_rate", "suggested_learning_rate", "edge (half fail)"),
        *("edge, at least (95%)", "edge, at most (95%)", "binding", "regime"),
    ]
    assert [line.split(":")[0] for line in lines[7:]] == ["evidence", "evidence"]
    assert "None" not in "".join(lines)


def test_as_text_a_missing_rate_is_a_dash_with_its_reason(seeded, capsys):
    assert run_command(main, ["recommend", *ASKED, "--run", COLLAPSED, "--db", seeded.url]) == 0
    [line] = [each for each in capsys.readouterr().out.splitlines() if each.startswith("max_")]
    assert line.split(maxsplit=1)[1].startswith("- (no run of the evidence survived")


def test_as_text_a_diagnosis_is_its_regime_and_why(seeded, capsys):
    assert run_command(main, ["diagnose", COLLAPSED[-6:], "--db", seeded.url]) == 1
    regime, words, *limits = capsys.readouterr().out.splitlines()
    assert regime == "collapsed: the run has collapsed"
    assert words == "how much of each limit is used, where 1 is all of it:"
    assert [line[2:13].strip() for line in limits] == [
        *("staleness", "horizon", "slide", "local step")
    ]


# -- exit codes of diagnose -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "drift", "code", "regime"),
    [
        ({"status": "finished", "outcome": "healthy"}, 0.05, 0, "stable"),
        ({"status": "finished", "outcome": "finished"}, 0.05, 0, "stable"),
        ({"status": "collapsed", "outcome": "collapsed"}, 0.05, 1, "collapsed"),
        ({"status": "diverged", "outcome": "diverged"}, 0.05, 1, "diverged"),
        ({"status": "running"}, 0.9, 3, "staleness_limited"),
        ({"status": "finished", "outcome": "damaged"}, 0.05, 3, "insufficient_data"),
        ({"status": "running"}, 0.05, 4, "insufficient_data"),
        ({"status": "stopped", "outcome": "healthy"}, 0.05, 4, "insufficient_data"),
        ({"status": "stopped", "outcome": "damaged"}, 0.05, 4, "insufficient_data"),
        ({"status": "failed"}, 0.05, 4, "insufficient_data"),
    ],
)
def test_the_exit_code_says_what_the_regime_says(store, capsys, run, drift, code, regime):
    made = a_run(**run | {"status": RunStatus(run["status"])})
    fill(store, made, steps=40, drift=drift)
    found = called(capsys, "diagnose", made.id, "--db", store.url)
    assert (found[0], found[1]["regime"]) == (code, regime)
    assert unexplained(found[1]) == []


def test_a_run_without_a_step_is_insufficient_data(store, capsys):
    run = a_run()
    store.create_run(run)
    code, found = called(capsys, "diagnose", run.id, "--db", store.url)
    assert (code, found["regime"]) == (4, "insufficient_data")
    assert found["reason"] == "0 learner steps are too few; 20 are needed"


# -- bad input --------------------------------------------------------------------------------


def refused(capsys, *words):
    """Run a command that must be refused; return its one line."""
    assert run_command(main, words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    return line


RISK = "risk: {} is not allowed; allowed: 0 < risk < 1"
RATE = "learning_rate: {} is not allowed; allowed: 0 < learning_rate <= 10"
STEPS = "steps: {} is not allowed; allowed: whole number, 1 <= steps <= 100000000"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--risk", "0"], RISK.format("0.0")),
        (["--risk", "1"], RISK.format("1.0")),
        (["--risk", "-0.1"], RISK.format("-0.1")),
        (["--risk", "nan"], RISK.format("nan")),
        (["--risk", "1e400"], RISK.format("inf")),
        (["--risk", ""], RISK.format("''")),
        (["--risk", "5%"], RISK.format("'5%'")),
        (["--learning-rate", "-1e-4"], RATE.format("'-1e-4'")),
        (["--learning-rate", "−1e-4"], RATE.format("'−1e-4'")),
        (["--learning-rate", "0"], RATE.format("'0'")),
        (["--learning-rate", "0x10"], RATE.format("'0x10'")),
        (["--learning-rate", "1e400"], RATE.format("'1e400'")),
        (["--learning-rate", "nan"], RATE.format("'nan'")),
        (["--learning-rate", " "], RATE.format("' '")),
        (["--learning-rate="], RATE.format("''")),
        (["--learning-rate"], "argument --learning-rate: expected one argument"),
        (["--clip-epsilon", "0,2"], "clip_epsilon: '0,2' is not allowed; allowed: 0 < clip_"),
        (["--clip-epsilon-high", "0.1"], "clip_epsilon_high: 0.1 is below clip_epsilon 0.2"),
        (["--group", "nosuch"], "db: there is no archive at"),
        (["--group", ""], "db: there is no archive at"),
        (["--run", "nosuch"], "db: there is no archive at"),
        (["--literature", "--run", "x"], "argument --run: not allowed with argument --literature"),
        (["--steps", "400"], "--steps: given twice; give it once"),
        (["--optimiser", "sgd"], "--optimiser: unknown argument; did you mean --optimizer?"),
        (
            ["--learning_rate", "1e-4"],
            "--learning_rate: unknown argument; did you mean --learning-",
        ),
        (["--seed", "1"], "--seed: not an option of this command"),
        (["more"], "more: unknown argument; see --help"),
        (["--run", "\udcff"], "'\\udcff': not readable as text"),
    ],
)
def test_a_mistyped_question_is_refused_in_one_line_and_leaves_nothing(
    words, line, fresh_home, capsys
):
    assert refused(capsys, "recommend", *ASKED, *words).startswith(line)
    assert not fresh_home.exists()


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ([], ["max_staleness: not given", "steps: not given"]),
        (["--steps", "300"], ["max_staleness: not given"]),
        (["--max-staleness", "3"], ["steps: not given"]),
        (["--max-staleness", "-1", "--steps", "0"], ["max_staleness: '-1'", STEPS.format("'0'")]),
        (["--max-staleness", "3.5", "--steps", "1e3"], ["max_staleness: '3.5'", "steps: '1e3'"]),
    ],
)
def test_what_is_not_said_or_not_allowed_has_a_line_each(words, lines, fresh_home, capsys):
    assert run_command(main, ["recommend", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == len(lines)
    assert all(said.startswith(line) for said, line in zip(err.splitlines(), lines, strict=True))
    assert not fresh_home.exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["recomend"], "argument COMMAND: invalid choice: 'recomend'"),
        (["--json", "recommend"], "--json: options come after the command"),
        (["diagnose"], "the following arguments are required: run"),
        (["diagnose", "--run", "x"], "--run: not an option of this command"),
        (["diagnose", "a", "b"], "b: unknown argument"),
        (["diagnose", "a"], "db: there is no archive at"),
        (["diagnose", ""], "db: there is no archive at"),
    ],
)
def test_a_mistyped_command_is_refused_in_one_line_and_leaves_nothing(
    words, line, fresh_home, capsys
):
    assert refused(capsys, *words).startswith(line)
    assert not fresh_home.exists()


def test_an_unknown_run_or_group_is_refused_and_nothing_is_kept(seeded, capsys):
    near = FINISHED[:-1] + "9"
    for words in (["diagnose", near], ["recommend", *ASKED, "--run", near]):
        line = refused(capsys, *words, "--db", seeded.url)
        assert line.startswith(f"run: '{near}' is not in the archive; nearest: ")
        assert FINISHED in line
        assert COLLAPSED in line
    line = refused(capsys, "recommend", *ASKED, "--group", "nosuch", "--db", seeded.url)
    assert line == "group: 'nosuch' has no run in the archive; see storage list"
    assert seeded.recommendations() == []


@pytest.mark.parametrize(
    "place", ["folder", "text", "other.db", "missing.db", "text/x.db", "", " "]
)
@pytest.mark.parametrize("words", [["recommend", *ASKED], ["diagnose", FINISHED]])
def test_what_is_no_archive_is_refused_and_left_as_it_is(
    place, words, tmp_path, fresh_home, capsys
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("precious")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE cookies (jar)")
    other.commit()
    other.close()
    before = {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")}
    db = str(tmp_path / place) if place.strip() else place
    assert refused(capsys, *words, "--db", db).startswith("db: ")
    assert {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")} == before


def test_a_locked_archive_is_refused_in_one_line(seeded, capsys, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_SECONDS", 0.1)
    with seeded.writing():
        line = refused(capsys, "recommend", *ASKED, "--db", seeded.url)
    assert line.startswith("db: ")
    assert line.endswith("database is locked")
    assert seeded.recommendations() == []


# -- good input that looks odd ----------------------------------------------------------------


def test_without_an_archive_literature_answers_and_the_archive_is_made(fresh_home, capsys):
    code, answer = called(capsys, "recommend", *ASKED)
    assert code == 0
    assert answer["calibrated"] is False
    store = Store.open(str(fresh_home / "etalon.db"), create=False)
    assert len(store.recommendations()) == 1
    store.close()


@pytest.mark.parametrize(
    ("typed", "steps"), [("300.0", 300), ("1_000", 1000), (" 300 ", 300), ("+300", 300)]
)
def test_whole_numbers_are_read_as_people_write_them(typed, steps, seeded, capsys):
    words = ["recommend", "--max-staleness", "3", f"--steps={typed}", "--db", seeded.url]
    assert called(capsys, *words)[0] == 0
    assert seeded.recommendations()[0].question["setting"]["steps"] == steps


def test_the_clip_range_above_is_held_against_that_of_the_evidence(store, capsys):
    fill(store, a_run(a_config(clip_epsilon=0.05), status=RunStatus.FINISHED), steps=1)
    answer = recommended(capsys, store.url, "--clip-epsilon-high", "0.1")
    assert answer["calibrated"] is False
    line = refused(capsys, "recommend", *ASKED, "--clip-epsilon-high", "0.01", "--db", store.url)
    assert line.startswith("clip_epsilon_high: 0.01 is below clip_epsilon 0.05")


@pytest.mark.parametrize("rate", ["5e-324", "1e-300", "10"])
def test_the_smallest_and_the_largest_allowed_rate_are_judged(rate, seeded, capsys):
    answer = recommended(capsys, seeded.url, "--learning-rate", rate)
    assert 0 <= answer["unsafe_probability"] <= 1
