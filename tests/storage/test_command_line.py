"""``python -m storage …``: what it lists, shows and checks, and what it refuses."""

import json
import math
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from factories import NOON, a_config, a_run, a_step, an_evaluation, seeded_store
from processes import PATIENCE, PROJECT, command, environment, start

from storage.__main__ import main
from storage.commandline import run_command
from storage.models import SCHEMA_REVISION
from storage.records import RunStatus

FINISHED, COLLAPSED = "20231114-221320-000001", "20231114-221320-000002"


def called(capsys, *words):
    """Run a command that must succeed; return its one JSON object."""
    code = run_command(main, [*words, "--json"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    [line] = out.splitlines()
    return json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def printed(capsys, *words):
    """Run a command that must succeed; return the lines of its text."""
    code = run_command(main, words)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out.splitlines()


def refused(capsys, *words):
    """Run a command that must be refused; return its one line."""
    assert run_command(main, words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    return line


# -- list -------------------------------------------------------------------------------------


def test_the_runs_are_listed_newest_first_with_their_steps(seeded, capsys):
    runs = called(capsys, "list", "--db", seeded.url)["runs"]
    assert [run["id"] for run in runs] == [COLLAPSED, FINISHED]
    assert runs[0] == {
        "id": COLLAPSED,
        "name": "a run",
        "kind": "train",
        "status": "collapsed",
        "workload": "arithmetic",
        "group": None,
        "group_reason": "the run belongs to no group",
        "seed": None,
        "seed_reason": "not recorded",
        "archived": False,
        "outcome": "collapsed",
        "steps": 40,
    }
    lines = printed(capsys, "list", "--db", seeded.url)
    assert [line.split()[:5] for line in lines] == [
        [COLLAPSED, "collapsed", "collapsed", "40", "steps"],
        [FINISHED, "finished", "healthy", "40", "steps"],
    ]


def test_a_run_without_a_step_has_none_and_one_without_an_outcome_says_so(store, capsys):
    store.create_run(a_run(seed=5, group="g"))
    [run] = called(capsys, "list", "--db", store.url)["runs"]
    assert (run["steps"], run["outcome"], run["seed"], run["group"]) == (0, None, 5, "g")
    assert run["outcome_reason"] == "the run has not ended"


def test_a_run_whose_process_is_gone_reads_as_lost_and_stays_as_it_was_written(store, capsys):
    """An id beyond what Linux gives, and a heartbeat of 2023."""
    gone = {"host": socket.gethostname(), "pid": 2**22 + 1, "heartbeat_at": NOON}
    run = a_run(status=RunStatus.RUNNING, **gone)
    store.create_run(run)
    [listed] = called(capsys, "list", "--db", store.url)["runs"]
    assert listed["status"] == "lost"
    assert called(capsys, "show", run.id, "--db", store.url)["run"]["status"] == "lost"
    assert "lost" in printed(capsys, "list", "--db", store.url)[0]
    assert store.run(run.id).status == RunStatus.RUNNING


def test_a_run_that_was_put_away_is_listed_only_on_request(seeded, capsys):
    db = ["--db", seeded.url]
    assert called(capsys, "archive", COLLAPSED, *db) == {"run_id": COLLAPSED, "archived": True}
    assert [run["id"] for run in called(capsys, "list", *db)["runs"]] == [FINISHED]
    both = called(capsys, "list", "--archived", *db)["runs"]
    assert [(run["id"], run["archived"]) for run in both] == [(COLLAPSED, True), (FINISHED, False)]
    assert called(capsys, "archive", "--undo", COLLAPSED, *db)["archived"] is False
    assert len(called(capsys, "list", *db)["runs"]) == 2
    assert seeded.step_counts()[COLLAPSED] == 40
    assert printed(capsys, "archive", COLLAPSED, *db) == [f"{COLLAPSED} is archived"]
    assert printed(capsys, "archive", COLLAPSED, "--undo", *db) == [
        f"{COLLAPSED} is back in the lists"
    ]


def test_an_empty_archive_says_how_to_start(fresh_home, capsys):
    [line] = printed(capsys, "list")
    assert line == "no runs yet; start one with: python -m trainer run --help"
    assert called(capsys, "list") == {"runs": []}
    assert (fresh_home / "etalon.db").is_file()


# -- show -------------------------------------------------------------------------------------


def test_a_run_is_shown_with_its_configuration_its_newest_steps_and_its_evaluations(seeded, capsys):
    shown = called(capsys, "show", FINISHED, "--last", "3", "--db", seeded.url)
    assert shown["run"]["id"] == FINISHED
    assert shown["run"]["config"] == a_config().model_dump(mode="json")
    assert [step["step"] for step in shown["steps"]] == [37, 38, 39]
    assert [(each["step"], each["reward"]) for each in shown["evaluations"]] == [(0, 0.78)]
    [one] = called(capsys, "show", FINISHED, "--db", seeded.url)["steps"]
    assert one["step"] == 39
    assert called(capsys, "show", FINISHED, "--last", "0", "--db", seeded.url)["steps"] == []
    assert (
        len(called(capsys, "show", FINISHED, "--last", "1000000", "--db", seeded.url)["steps"])
        == 40
    )


def test_every_missing_number_of_a_run_and_of_a_step_has_its_reason(store, capsys):
    run = a_run(reward_last=math.nan, unmeasured={"entropy": "switched off"})
    store.create_run(run)
    store.append_step(
        a_step(
            run.id,
            0,
            loss=math.nan,
            grad_norm=math.inf,
            clipping_radii={"0.0005": None, "0.1": 0.7},
            reasons={"m2": "no token moved"},
        )
    )
    store.append_evaluation(an_evaluation(run.id, 0, math.nan, gold=None))
    shown = called(capsys, "show", run.id, "--db", store.url)
    [step], [evaluation] = shown["steps"], shown["evaluations"]
    for part in (shown["run"], step, evaluation):
        missing = [n for n, v in part.items() if v is None and not n.endswith("_reason")]
        assert [name for name in missing if not part.get(f"{name}_reason")] == []
    assert step["loss_reason"] == "computed nan"
    assert step["grad_norm_reason"] == "computed inf"
    assert step["clipping_radii"] == {"0.0005": None, "0.1": 0.7}
    assert "enough tokens" in step["clipping_radii_reason"]
    assert step["m2_reason"] == "no token moved"
    assert step["entropy_reason"] == "switched off"
    assert step["tokens_reason"] == "not measured"
    assert shown["run"]["reward_last_reason"] == "computed nan"
    assert shown["run"]["reward_first_reason"] == "not recorded"
    assert shown["run"]["collapse_step_reason"] == "the run has not ended"
    assert evaluation["reward_reason"] == "computed nan"


def test_as_text_a_missing_number_is_a_dash_with_its_reason(store, capsys):
    run = a_run(a_config(max_staleness=0), unmeasured={"m2": "structurally impossible"})
    store.create_run(run)
    store.append_step(a_step(run.id, 0, loss=0.25))
    lines = [
        line.split(maxsplit=1)
        for line in printed(capsys, "show", run.id, "--db", store.url)
        if line
    ]
    assert ["loss", "0.25"] in lines
    assert ["m2", "-  (structurally impossible)"] in lines
    assert ["id", run.id] in lines
    assert ["reward_final", "-"] in lines
    assert not any("None" in line[-1] for line in lines if line[0] != "config")


# -- check, migrate ---------------------------------------------------------------------------


def test_a_sound_archive_has_no_inconsistency(seeded, capsys):
    assert called(capsys, "check", "--db", seeded.url)["inconsistencies"] == []
    assert printed(capsys, "check", "--db", seeded.url) == ["no inconsistency found"]


def test_an_inconsistency_is_printed_and_the_exit_code_is_one(seeded, capsys):
    with seeded.writing() as connection:
        connection.exec_driver_sql("DELETE FROM steps WHERE step = 7")
    assert run_command(main, ["check", "--db", seeded.url]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert run_command(main, ["check", "--db", seeded.url, "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["inconsistencies"]) == 2


def test_migrating_the_newest_schema_changes_nothing(seeded, capsys):
    done = called(capsys, "migrate", "--db", seeded.url)
    assert done == {"before": SCHEMA_REVISION, "after": SCHEMA_REVISION}
    [line] = printed(capsys, "migrate", "--db", seeded.url)
    assert line == f"schema {SCHEMA_REVISION} -> {SCHEMA_REVISION}"
    assert len(seeded.runs()) == 2


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["show", "archive"])
def test_an_unknown_run_is_refused_with_the_nearest_ids(name, seeded, capsys):
    line = refused(capsys, name, FINISHED[:-1] + "9", "--db", seeded.url)
    assert line.startswith(f"run: '{FINISHED[:-1]}9' is not in the archive; nearest: ")
    assert FINISHED in line
    for typed in ("", " ", "x\ny", "x" * 5000):
        assert refused(capsys, name, typed, "--db", seeded.url).startswith(
            f"run: {typed!r} is not in"
        )


@pytest.mark.parametrize(
    ("typed", "id"),
    [
        (FINISHED, FINISHED),
        ("000002", COLLAPSED),
        ("third", "20240101-000000-000003"),
        ("2024", "20240101-000000-000003"),
    ],
)
def test_a_run_is_known_by_as_much_of_its_id_as_is_its_own_and_by_its_name(
    seeded, capsys, typed, id
):
    seeded.create_run(a_run(id="20240101-000000-000003", name="third"))
    assert called(capsys, "show", typed, "--db", seeded.url)["run"]["id"] == id


def test_what_fits_several_runs_is_refused_with_their_ids(seeded, capsys):
    line = refused(capsys, "delete", "2023", "--yes", "--db", seeded.url)
    assert line == (f"run: '2023' fits 2 runs: {COLLAPSED}, {FINISHED}; give more of the id of one")
    for number in range(3, 9):
        seeded.create_run(a_run(id=f"2023-{number}", name="equal"))
    line = refused(capsys, "show", "2023", "--db", seeded.url)
    assert line.startswith(f"run: '2023' fits 8 runs: {COLLAPSED}, {FINISHED}, 2023-8, ")
    assert " and 2 more; give" in line
    assert "'equal' fits 6 runs: " in refused(capsys, "show", "equal", "--db", seeded.url)
    seeded.create_run(a_run(id="20240101-000000-000003", name="000001"))
    line = refused(capsys, "delete", "000001", "--yes", "--db", seeded.url)
    assert line.startswith(f"run: '000001' fits 2 runs: 20240101-000000-000003, {FINISHED}; give")
    assert len(seeded.runs()) == 9


@pytest.mark.parametrize("typed", ["2", "202"])
def test_so_little_of_an_id_that_any_may_be_meant_names_no_run(seeded, capsys, typed):
    line = refused(capsys, "delete", typed, "--yes", "--db", seeded.url)
    assert line.startswith(f"run: '{typed}' is not in the archive")
    assert len(seeded.runs()) == 2


def test_as_text_a_run_has_times_that_people_read_and_a_line_for_each_setting(seeded, capsys):
    lines = printed(capsys, "show", FINISHED, "--db", seeded.url)
    assert "created_at           2023-11-14 22:13:20 UTC" in lines
    assert f"  {'learning_rate':<24} {a_config().learning_rate}" in lines


LAST = "last: {} is not allowed; allowed: whole number, 0 <= last <= 1000000"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["lists"], "argument COMMAND: invalid choice: 'lists'"),
        (["--db", "x", "list"], "--db: options come after the command"),
        (["--json", "list"], "--json: options come after the command"),
        (["show"], "the following arguments are required: run"),
        (["show", "x"], "db: there is no archive at"),
        (["archive", "x"], "db: there is no archive at"),
        (["migrate"], "db: there is no archive at"),
        (["show", "x", "--last", "-1"], LAST.format("'-1'")),
        (["show", "x", "--last", "1.5"], LAST.format("'1.5'")),
        (["show", "x", "--last", ""], LAST.format("''")),
        (["show", "x", "--last", "1000001"], LAST.format("'1000001'")),
        (["show", "x", "--last", "9" * 30], LAST.format(repr("9" * 30))),
        (["show", "x", "--last", "²"], LAST.format("'²'")),
        (["list", "x"], "x: unknown argument; see --help"),
        (["list", "--archive"], "--archive: unknown argument; did you mean --archived?"),
        (["list", "--last", "3"], "--last: not an option of this command; see --help"),
        (["list", "--json", "--json"], "--json: given twice; give it once"),
        (["list", "--db=a", "--db", "b"], "--db: given twice; give it once"),
        (["list", "--db"], "argument --db: expected one argument"),
        (["list", "--db", ""], "db: '' names no file"),
        (["list", "--db", " "], "db: ' ' names no file"),
        (["list", "--db", "x" * 5000], "[Errno 36] File name too long"),
        (["show", "\udcff"], "'\\udcff': not readable as text"),
        (["list", "--db", "\udcff.db"], "'\\udcff.db': not readable as text"),
    ],
)
def test_a_mistyped_command_is_refused_in_one_line_and_leaves_nothing(
    words, line, fresh_home, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, *words).startswith(line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["list", "check", "migrate"])
def test_what_is_no_archive_is_refused_and_left_as_it_is(name, tmp_path, capsys):
    (tmp_path / "text").write_text("precious " * 500)
    (tmp_path / "folder").mkdir()
    for place in ("text", "folder", "text/x.db", "nowhere/x.db"):
        before = {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")}
        assert refused(capsys, name, "--db", str(tmp_path / place)).startswith("db: ")
        assert {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")} == before


def test_a_home_that_cannot_be_made_and_a_blank_name_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.delenv("ETALON_DB", raising=False)
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "file"))
    assert refused(capsys, "list").startswith(f"db: cannot make {tmp_path / 'file'}")
    monkeypatch.setenv("ETALON_DB", " ")
    assert refused(capsys, "list").startswith("db: ' ' names no file")
    monkeypatch.setenv("ETALON_DB", "")
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "home"))
    assert called(capsys, "list") == {"runs": []}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "home"]


# -- real processes ---------------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_error(seeded, tmp_path):
    words = ["-m", "storage", "show", FINISHED, "--last", "40", "--json", "--db", seeded.url]
    process = start(*words, home=tmp_path)
    assert len(seeded.steps(FINISHED)) * 900 > 2**15, "more than a pipe takes at once"
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full, on Linux")
def test_a_full_disk_is_one_line(seeded, tmp_path):
    words = [sys.executable, "-m", "storage", "list", "--db", seeded.url]
    buffered = {k: v for k, v in environment(tmp_path).items() if k != "PYTHONUNBUFFERED"}
    settings = {"cwd": PROJECT, "env": buffered, "stderr": subprocess.PIPE, "text": True}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, check=False, **settings)
    assert done.returncode == 2
    assert done.stderr == "[Errno 28] No space left on device\n"


def test_each_command_answers_from_a_process_of_its_own(tmp_path):
    with closing(seeded_store(tmp_path)) as store:
        url = store.url
    for words in (["list"], ["show", FINISHED], ["check"], ["archive", FINISHED]):
        done = command("-m", "storage", *words, "--json", "--db", url, home=tmp_path / "no")
        assert (done.returncode, done.stderr) == (0, "")
        assert isinstance(json.loads(done.stdout), dict)
    assert not (tmp_path / "no").exists()
    refused = command("-m", "storage", "show", "nosuch", "--db", url, home=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
