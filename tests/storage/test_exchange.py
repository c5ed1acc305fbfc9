"""``python -m storage import|export``: logs in, files out, nothing half written."""

import csv
import json
import math

import pytest
from factories import a_run, a_step, an_evaluation
from processes import command
from pyarrow import parquet

from storage.__main__ import main
from storage.commandline import run_command
from storage.records import METRIC_NAMES, Event
from storage.store import Store

ROW = {"optim/lr": 1e-6, "mismatch_kl/all/mean": 2e-3, "off_policy/max": 4.0, "mine": 1}


def outcome(capsys, *words):
    code = run_command(main, words)
    return code, *capsys.readouterr()


def called(capsys, *words):
    code, out, err = outcome(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def refused(capsys, *words):
    code, out, err = outcome(capsys, *words)
    assert (code, out) == (2, "")
    return err.splitlines()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "run-7" / "metrics.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps({"step": t, **ROW}) + "\n" for t in range(5)))
    return path


# -- import -----------------------------------------------------------------------------------


def test_a_log_is_imported_told_the_rest_and_shown(store, log, capsys):
    words = ("import", str(log), "--group", "g", "--db", store.url)
    done = called(capsys, *words, "--set", "max_off_policy_steps=4", "steps=300")
    assert done["rows"] == done["written"] == 5
    assert (done["stack"], done["format"]) == ("prime_rl", "jsonl")
    assert done["mapped"] == {
        "optim/lr": "learning_rate",
        "mismatch_kl/all/mean": "approx_kl",
        "off_policy/max": "staleness_max",
    }
    assert done["unknown"] == ["mine"]
    run = called(capsys, "show", done["run_id"], "--db", store.url)["run"]
    assert (run["name"], run["group"], run["kind"]) == ("run-7", "g", "imported")
    assert run["config"] == {"learning_rate": 1e-6, "max_staleness": 4, "steps": 300}
    code, out, err = outcome(capsys, *words)
    assert (code, err) == (0, "")
    assert "5 steps, 0 of them new  prime_rl" in out
    assert "mismatch_kl/all/mean -> approx_kl" in out
    assert "not known: mine" in out


def test_of_an_unknown_stack_the_answer_says_why(store, tmp_path, capsys):
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 0, "\\ud800": 1}\n')
    done = called(capsys, "import", str(path), "--db", store.url)
    assert (done["stack"], done["stack_reason"][:6]) == (None, "no key")
    code, out, _ = outcome(capsys, "import", str(path), "--db", store.url)
    assert (code, "\ufffd" in out) == (0, True)  # half a character is none


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["--set", "steps"], ["set: 'steps' is not allowed; allowed: NAME=VALUE"]),
        (["--set", "steps=1", "steps=2"], ["set: steps is given twice; give it once"]),
        (["--set", "steps=0", "max_staleness=-1"], ["steps: 0", "max_staleness: -1"]),
        (["--stack", "ppo"], ["stack: 'ppo' is not allowed; allowed: trl | "]),
        (["--format", "csv"], ["format: 'csv' is not allowed; allowed: auto | jsonl"]),
        (["--formt", "auto"], ["--formt: unknown argument; did you mean --format?"]),
    ],
)
def test_a_bad_import_is_refused_line_by_line_and_makes_no_archive(
    words, lines, log, tmp_path, capsys
):
    found = refused(capsys, "import", str(log), *words, "--db", str(tmp_path / "new.db"))
    assert [a.startswith(b) for a, b in zip(found, lines, strict=True)] == [True] * len(lines)
    assert not (tmp_path / "new.db").exists()


def test_a_bad_file_makes_no_archive_and_a_good_one_does(log, tmp_path, capsys):
    new = tmp_path / "new.db"
    with log.open("a") as opened:
        opened.write("{}\n")
    [line] = refused(capsys, "import", str(log), "--db", str(new))
    assert line.startswith(f"file: {log}: line 6: no step among its keys (none)")
    assert not new.exists()
    log.write_text('{"step": 0}\n')
    assert called(capsys, "import", str(log), "--db", str(new))["rows"] == 1


def test_a_process_of_its_own_imports_into_the_default_archive(log, tmp_path):
    done = command("-m", "storage", "import", str(log), "--json", home=tmp_path / "home")
    assert (done.returncode, done.stderr) == (0, "")
    opened = Store.open(str(tmp_path / "home" / "etalon.db"), create=False)
    assert opened.step_counts() == {json.loads(done.stdout)["run_id"]: 5}
    opened.close()


# -- export -----------------------------------------------------------------------------------


@pytest.fixture
def run(store):
    made = a_run(name="naïve")
    store.create_run(made)
    store.append_steps(
        [
            a_step(made.id, 0, loss=math.nan, grad_norm=math.inf, tokens=7),
            a_step(made.id, 1, entropy=1 / 3, extra={"k": -math.inf, "words": "a,b"}),
            a_step(made.id, 2, clipping_radii={"0.1": 0.5}, reasons={"loss": "why"}),
        ]
    )
    store.append_evaluation(an_evaluation(made.id, 0, 0.5))
    store.append_event(Event(run_id=made.id, time=1.0, kind="k", message="m"))
    store.tag_run(made.id, ["mine"])
    return made


def test_csv_keeps_empty_and_nan_apart(store, run, tmp_path, capsys):
    file = tmp_path / "run.csv"
    done = called(capsys, "export", run.id, "--to", str(file), "--db", store.url)
    assert done == {"run_id": run.id, "file": str(file), "rows": 3}
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert set(rows[0]) >= {"step", "time", *METRIC_NAMES, "extra.k", "clipping_radii"}
    assert (rows[0]["loss"], rows[0]["grad_norm"], rows[0]["entropy"]) == ("nan", "inf", "")
    assert (rows[0]["tokens"], rows[1]["extra.k"], rows[1]["extra.words"]) == ("7", "-inf", "a,b")
    assert float(rows[1]["entropy"]) == 1 / 3
    assert json.loads(rows[2]["clipping_radii"]) == {"0.1": 0.5}


def test_parquet_has_types_nulls_and_the_run(store, run, tmp_path, capsys):
    file = tmp_path / "run.parquet"
    called(capsys, "export", run.id, "--to", str(file), "--db", store.url)
    table = parquet.read_table(file)
    assert str(table.schema.field("tokens").type) == "int64"
    assert str(table.schema.field("loss").type) == "double"
    assert str(table["loss"].to_pylist()) == "[nan, None, None]"
    assert table["extra.k"].to_pylist() == [None, -math.inf, None]
    assert table["extra.words"].to_pylist() == [None, "a,b", None]
    assert json.loads(table.schema.metadata[b"run"])["name"] == "naïve"


def test_json_holds_everything_in_the_archives_own_convention(store, run, tmp_path, capsys):
    file = tmp_path / "run.json"
    called(capsys, "export", run.id, "--to", str(file), "--db", store.url)
    whole = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert whole["steps"][0]["loss"] == {"$float": "nan"}
    assert whole["steps"][0]["entropy"] is None
    assert whole["steps"][1]["extra"]["k"] == {"$float": "-inf"}
    assert whole["steps"][2]["reasons"] == {"loss": "why"}
    assert (whole["run"]["id"], whole["tags"]) == (run.id, ["mine"])
    assert (len(whole["evaluations"]), len(whole["events"])) == (1, 1)


def test_an_export_never_overwrites_unasked_and_leaves_nothing_half_written(
    store, run, tmp_path, capsys
):
    file = tmp_path / "run.json"
    file.write_text("precious")
    words = ("export", run.id, "--db", store.url, "--to")
    [line] = refused(capsys, *words, str(file))
    assert line == f"to: {file} is there already; give another name, or --force for a file"
    for name, words_of_it in (
        ("x.txt", "allowed: .csv | .parquet | .json"),
        ("no/x.csv", "the folder"),
    ):
        assert words_of_it in refused(capsys, *words, str(tmp_path / name))[0]
    assert refused(capsys, "export", "nobody", "--db", store.url, "--to", str(tmp_path / "y.csv"))
    assert file.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir() if "archive" not in p.name) == ["run.json"]
    assert called(capsys, *words, str(file), "--force")["rows"] == 3
    assert json.loads(file.read_text())["run"]["id"] == run.id
