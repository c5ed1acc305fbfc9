"""What is typed, linked or uploaded stays data: no code, no path, no SQL, no markup."""

import ast
import json
import subprocess
import sys
import unicodedata
from dataclasses import dataclass, replace

import pytest
import streamlit as st
from browsing import MILLISECONDS, a_browser, text_of, wait_for, wait_for_charts
from factories import NOON, a_step, fill
from own_things import own_config
from processes import PATIENCE, PROJECT, environment, wait_until
from sqlalchemy import inspect
from states import healthy
from streamlit.testing.v1 import AppTest

from advisor.__main__ import main as advisor_main
from advisor.dashboard import operate
from storage.__main__ import main as storage_main
from storage.check import inconsistencies
from storage.commandline import BadInput, run_command
from storage.engine import checkpoint_folder, policy_folder
from storage.errors import PathOutside
from storage.importers.importing import import_file
from storage.liveness import process_gone
from storage.records import Event
from storage.removal import remove_run
from storage.words import visible
from trainer.__main__ import main as trainer_main
from trainer.config import TrainerConfig, web_fields
from trainer.launch import launch, log_file

SOURCES = [
    path for part in ("storage", "trainer", "advisor") for path in PROJECT.glob(f"{part}/**/*.py")
]
SQL = "x'; DROP TABLE runs; --"
MARKUP = (
    "<img src=http://evil.example/a onerror=hacked()>![](http://evil.example/b)</script>"
    "<script>hacked()</script>[x](javascript:hacked())$\\href{javascript:hacked()}{x}$"
)


@dataclass(frozen=True)
class Upload:
    """An uploaded file as Streamlit hands it over."""

    content: bytes
    name: str = "../../log.jsonl"

    @property
    def size(self) -> int:
        return len(self.content)

    def getvalue(self) -> bytes:
        return self.content


def upload(store, *contents, **settings):
    files = [Upload(each) for each in contents]
    return operate.import_log(store, files, name="log", stack=None, settings=settings)


def rows(count, first=0):
    return b"".join(b'{"step":%d,"loss":1}\n' % step for step in range(first, first + count))


# -- code ---------------------------------------------------------------------------------------


def test_a_browser_sets_nothing_that_names_code_or_a_file():
    kept_back = set(TrainerConfig.model_fields) - set(web_fields())
    assert {"model", "reward", "reward_model", "prompts_file"} <= kept_back


def test_looking_at_a_run_imports_no_code_that_it_names(tmp_path, store, monkeypatch):
    trap, code = tmp_path / "code was run", tmp_path / "own.py"
    code.write_text(f"from pathlib import Path\nPath({str(trap)!r}).touch()\njudge = print\n")
    run = healthy()
    named = {
        "workload": "custom",
        "model": str(tmp_path),
        "prompts_file": str(tmp_path / "prompts.jsonl"),
        "reward": f"{code}:judge",
    }
    fill(store, replace(run, config={**run.config, **named}), steps=30)
    monkeypatch.setenv("ETALON_DB", store.url)
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    st.cache_resource.clear()
    for name, link in (("watch", "run"), ("advise", "like")):
        page = AppTest.from_file(PROJECT / "app.py", default_timeout=PATIENCE)
        page.query_params[link] = run.id
        page.switch_page(f"advisor/dashboard/{name}.py").run()
        assert not page.exception
        assert not page.error
        assert page.selectbox(key="watch-run" if name == "watch" else "like").value == run.id
    st.cache_resource.clear()
    assert not trap.exists()


@pytest.fixture(scope="module")
def calls():
    """Every call in the program: the name of its file, what is called, and the call."""
    return [
        (path.name, ast.unparse(node.func), node)
        for path in [*SOURCES, PROJECT / "app.py"]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def test_no_shell_and_no_evaluated_text_is_in_the_program(calls):
    assert len(calls) > 1000
    names = {name for _, name, _ in calls}
    assert names & {"eval", "exec", "os.system", "os.popen", "torch.load", "pickle.load"} == set()
    assert [file for file, _, node in calls for k in node.keywords if k.arg == "shell"] == []
    own_pipes = {"reward_process", "rollout_actors", "rollout_processes", "rollout_worker"}
    assert {f for f, name, _ in calls if name == "pickle.loads"} == {f"{f}.py" for f in own_pipes}


# -- the terminal -------------------------------------------------------------------------------

STEERS = "\x1b]0;owned\x07\x1b[2J\r\x08\x7f\x9b31m\u202e\u2066"
"""A title, an empty screen, an overwritten line, and words that read backwards."""

ON_A_STREAM = visible(STEERS.replace("\r", "\n"))
"""As a stream shows it: what would overwrite a line begins one."""

FIRST, SECOND = "20260101-000000-abcdef", "20260101-000000-fedcba"


@pytest.fixture
def steering(store):
    """An archive in which every text that a command prints would steer the terminal."""
    texts = {name: f"{name}{STEERS}" for name in ("workload", "group", "notes", "outcome_reason")}
    for run_id in (FIRST, SECOND):
        run = replace(healthy(), id=run_id)
        own = {**run.config, "name": f"{run_id}{STEERS}"}
        fill(store, replace(run, name=f"{STEERS}\nforged line", config=own, **texts), steps=60)
        store.update_run(run.id, error=f"first{STEERS}\nsecond", outcome=f"finished{STEERS}")
        store.tag_run(run.id, [f"tag{STEERS}"])
        store.append_event(Event(run_id=run.id, time=NOON, kind="governor", message=STEERS, step=1))
    return store


def steers(text):
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t"]


@pytest.mark.parametrize(
    ("program", "words", "code"),
    [
        (storage_main, "list", 0),
        (storage_main, "show RUN", 0),
        (storage_main, f"note RUN note{STEERS}", 0),
        (storage_main, f"tag RUN tag{STEERS}", 0),
        (storage_main, f"show {STEERS}", 2),
        (storage_main, f"import {STEERS}", 2),
        (storage_main, f"list --{STEERS}", 2),
        (trainer_main, f"stop {STEERS}", 2),
        (trainer_main, "resume RUN", 2),
        (advisor_main, "diagnose RUN", 4),
        (advisor_main, f"compare RUN {SECOND}", 0),
        (advisor_main, f"recommend --group group{STEERS} --max-staleness 3 --steps 60", 0),
    ],
    ids=lambda each: each.split("\x1b")[0] if isinstance(each, str) else "",
)
def test_no_text_of_an_archive_or_of_a_command_steers_the_terminal(
    steering, capsys, program, words, code
):
    given = [FIRST if word == "RUN" else word for word in words.split(" ")]
    assert run_command(program, [*given, "--db", steering.url]) == code
    out, err = capsys.readouterr()
    assert steers(out + err) == []
    assert "\nforged" not in out
    if words not in ("resume RUN", "diagnose RUN"):
        assert r"\x1b" in out + err
    if out:
        assert run_command(program, [*given, "--db", steering.url, "--json"]) == code
        assert steers(capsys.readouterr().out) == []


def test_nothing_is_printed_past_the_one_place_that_makes_it_visible(calls):
    printing = {file for file, name, _ in calls if name in ("print", "sys.stdout.write")}
    assert printing == {"commandline.py"}


PROGRAM = """
import logging, sys, threading, warnings
from tqdm import tqdm
from storage.commandline import be_command
from storage.terminal import for_progress

steers = sys.argv[1]

def fail():
    raise RuntimeError(steers)

def main(argv):
    print(steers, "a\\tb")
    sys.stdout.writelines([steers])
    logging.getLogger("any").error(steers)
    warnings.warn(steers)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    with tqdm(total=2, file=for_progress(), desc="own") as bar:
        bar.update(2)
    fail()

be_command(main)
"""


def printed(code, env):
    """Run code that is told what would steer, and fails, in a process of its own."""
    command = [sys.executable, "-c", code, STEERS]
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, check=False)
    assert done.returncode == 1
    return done


def test_no_traceback_warning_or_line_of_a_log_of_a_command_steers_the_terminal(tmp_path):
    done = printed(PROGRAM, environment(tmp_path))
    out, err, told = done.stdout.decode(), done.stderr.decode(), ON_A_STREAM
    assert (steers(out), out.count(told)) == ([], 2)
    assert "a\tb\n" in out
    assert set(steers(err)) == {"\r"}, "of the progress bar"
    assert "\rown: 100%" in err
    assert err.count(f"RuntimeError: {told}\n") == 2
    assert err.count(told) == 4
    assert "in main\n" in err


def test_what_the_encoding_of_a_terminal_lacks_is_an_escape_and_no_raw_byte(tmp_path):
    """As under LC_ALL=C, where Python would write a byte that no text holds, or fail."""
    code = "import sys; from storage.commandline import be_command; be_command(lambda _: print"
    code += "('√', chr(0xdc9b) + '31m', chr(0xd800)))"
    plain = environment(tmp_path) | {"PYTHONIOENCODING": "ascii:surrogateescape"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT, env=plain, capture_output=True, check=False)
    assert done.stdout == rb"\u221a \udc9b31m \ud800" + b"\n", done.stderr


@pytest.mark.parametrize(("closed", "told"), [(">&-", "err"), ("2>&-", "out")])
def test_a_command_whose_output_is_closed_ends_as_any_other(tmp_path, closed, told):
    """Words for the one stream are not printed on the other."""
    command = f"{sys.executable} -m storage show nosuch --db none.db {closed}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=PROJECT,
        env=environment(tmp_path),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"db: there is no archive") if told == "err" else not done.stderr


@pytest.mark.slow  # starts Python, which takes seconds to import torch
def test_nothing_that_a_reward_prints_or_raises_steers_who_reads_the_log(
    tmp_path, monkeypatch, store
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    body = f"print({STEERS!r}); raise ValueError({STEERS!r} + completions[0])"
    config = own_config(tmp_path, f"def judge(prompts, completions):\n    {body}\n")
    run_id = launch(store, config)
    wait_until(lambda: not store.run(run_id).status.alive)
    wait_until(lambda: process_gone(store.run(run_id)))
    text = log_file(run_id).read_bytes().decode()
    assert steers(text) == []
    assert f"\n{ON_A_STREAM}\n" in text, "printed"
    assert f"the reward raised ValueError: {ON_A_STREAM}" in text
    assert "\n  File " in text


DASHBOARD = """
import sys
from streamlit.logger import get_logger
early = get_logger("streamlit.early")
sys.path.insert(0, ".")
import app  # as the server does
early.error(sys.argv[1])
get_logger("streamlit.late").error(sys.argv[1])
raise RuntimeError(sys.argv[1])
"""


def test_no_line_that_the_server_of_the_dashboard_logs_steers_the_terminal(tmp_path):
    where = {"STREAMLIT_SERVER_ADDRESS": "127.0.0.1"}
    err = printed(DASHBOARD, environment(tmp_path) | where).stderr.decode()
    assert (steers(err), err.count(ON_A_STREAM)) == ([], 3)


def test_every_process_makes_what_it_prints_visible(calls):
    """Wherever a process of ours begins, and but for the bars that draw over their line."""
    began = [p for p in SOURCES if 'if __name__ == "__main__":' in p.read_text(encoding="utf-8")]
    assert [p.relative_to(PROJECT).as_posix() for p in began if p.name != "__main__.py"] == [
        "advisor/serve.py"
    ]
    commands = sorted(file for file, name, _ in calls if name == "be_command")
    assert commands == sorted(path.name for path in began)
    assert {file for file, name, _ in calls if name == "make_output_visible"} == {
        *("app.py", "commandline.py", "ray_cluster.py", "reward_process.py", "rollout_worker.py")
    }
    bars = [node for _, name, node in calls if name == "tqdm"]
    files = [ast.unparse(k.value) for node in bars for k in node.keywords if k.arg == "file"]
    assert files == ["for_progress()"] * len(bars)


# -- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run_id", ["..", ".", "../../home", "/etc", "a/b", "", "a\0b", "a\n", "a\\b"]
)
def test_the_id_of_a_run_leads_to_no_other_folder(store, tmp_path, monkeypatch, run_id):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "home"))
    for place in (checkpoint_folder, policy_folder, log_file):
        with pytest.raises(PathOutside):
            place(run_id)
    kept = tmp_path / "home" / "kept"
    kept.mkdir()
    with pytest.raises(PathOutside):
        remove_run(store, run_id)
    assert kept.exists()


def test_the_name_of_an_uploaded_file_is_no_path(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    upload(store, rows(3))
    assert sorted(tmp_path.rglob("*")) == before


# -- size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contents", "fault"),
    [
        ([rows(1, n) for n in range(9)], "log: 9 files; allowed: at most 8"),
        ([rows(25), rows(25, 25)], "log: 1040 bytes in all; allowed: at most 1000"),
        ([rows(21)], "rows: more than 20; allowed"),
        ([rows(5), rows(11, 5)], "rows: more than 10; allowed"),
    ],
    ids=["files", "bytes", "rows", "rows of several"],
)
def test_an_upload_is_bounded_in_files_bytes_and_rows(store, monkeypatch, contents, fault):
    monkeypatch.setattr(operate, "MOST_BYTES", 1000)
    monkeypatch.setattr(operate, "MOST_ROWS", 20)
    upload(store, rows(10), rows(10, 10))
    with pytest.raises(BadInput, match=fault):
        upload(store, *contents)
    assert len(store.runs()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 1_000_000,
        b'{"step":1}\n' + b"[" * 1_000_000 + b"\n",
        b'{"step":' * 200_000,
        b'{"step":1e400}',
        b"\x1f\x8b" + bytes(1000),
        b"PK\x03\x04" + bytes(1000),
    ],
    ids=["deep", "deep later on", "deep objects", "no number", "gzip", "zip"],
)
def test_what_is_made_to_exhaust_a_reader_is_refused(store, content):
    with pytest.raises(BadInput):
        upload(store, content)
    assert store.runs() == []


def test_an_endless_number_is_infinite_and_not_worked_out(store):
    run = upload(store, b'{"step":1,"loss":' + b"9" * 1_000_000 + b"}").run_id
    assert store.steps(run)[0].loss == float("inf")


def test_half_a_character_is_none(store):
    run = upload(store, b'{"step":1,"\\ud800":"\\udc00","\\ud83d\\ude00":"\\ud83d\\ude00"}').run_id
    assert store.steps(run)[0].extra == {"\ufffd": "\ufffd", "😀": "😀"}
    for settings in ({"name": "\ud800"}, {"settings": {"my_own": "\ud800"}}):
        with pytest.raises(BadInput, match="ud800"):
            import_file(store, rows(1), **({"name": "a log"} | settings))


# -- SQL ----------------------------------------------------------------------------------------


def test_text_that_looks_like_sql_is_stored_as_it_is(store):
    run = healthy(SQL, group=SQL, ended_at=NOON)
    fill(store, run, steps=3)
    operate.mark(store, [run], SQL, SQL)
    log = json.dumps({"step": 1, SQL: 1.0, "loss": SQL}).encode()
    imported = upload(store, log, **{"my_own": SQL}).run_id
    kept = store.run(run.id)
    assert (kept.name, kept.group, kept.notes, store.tags()[run.id]) == (SQL, SQL, SQL, (SQL,))
    assert store.steps(imported)[0].extra == {SQL: 1.0, "loss": SQL}
    assert [each.id for each in store.runs(group=SQL)] == [run.id]
    assert store.steps(SQL) == []
    assert inconsistencies(store) == []
    assert inspect(store._engine).has_table("runs")


EXECUTING = {"text", "exec_driver_sql", "execute", "executemany", "executescript"}
PUT_TOGETHER = (ast.JoinedStr, ast.BinOp, ast.IfExp, ast.Name, ast.Attribute, ast.Subscript)


def is_put_together(what):
    """Whether this need not be a constant text, nor a statement that SQLAlchemy builds."""
    if isinstance(what, ast.Call) and isinstance(what.func, ast.Attribute):
        return isinstance(what.func.value, ast.Constant)  # of a text: format, join, replace
    return isinstance(what, PUT_TOGETHER)


def test_no_statement_is_put_together_from_what_was_given(calls):
    """Every text that is handed over as SQL is a constant, or put together of own words alone."""
    built = {"check", "copying", "rollups", "run_store", "step_store", "store"}
    allowed = {
        # of SQLAlchemy, whose connections take no text
        *((f"{name}.py", "query") for name in built),
        ("alert_store.py", "query"),
        ("alert_store.py", "changed"),
        ("alert_store.py", "epoch"),
        ("rollups.py", "counted"),
        ("rollups.py", "counts"),
        ("check.py", "newest"),
        ("run_store.py", "self._run_upsert"),
        ("step_store.py", "self._run_upsert"),
        # compiled by SQLAlchemy, with its parameters bound
        ("rows.py", "self.statement"),
        ("transactions.py", "upsert.statement"),
        # constants, names of own tables and columns, and a number
        ("check.py", "_GAPS"),
        ("copying.py", "f'LOCK TABLE {names} IN EXCLUSIVE MODE'"),
        ("engine.py", "'BEGIN IMMEDIATE' if writes else 'BEGIN'"),
        ("engine.py", "f'PRAGMA {pragma}'"),
        ("engine.py", "f'SET lock_timeout = {round(1000 * patience)}'"),
        ("trackio_database.py", "rows"),
        ("trackio_database.py", "newest"),
    }
    found = {
        (file, ast.unparse(what))
        for file, name, node in calls
        if name.rpartition(".")[2] in EXECUTING
        for what in [*node.args, *(keyword.value for keyword in node.keywords)][:1]
        if is_put_together(what)
    }
    assert found == allowed


# -- markup -------------------------------------------------------------------------------------


@pytest.mark.browser
def test_markup_is_shown_and_neither_drawn_nor_run(unlocked):
    store, asked, said = unlocked.store, [], []
    for seed in (1, 2):
        run = healthy(f"{seed} {MARKUP}", notes=MARKUP, group=MARKUP, outcome_reason=MARKUP)
        fill(store, run, steps=25)
        store.tag_run(run.id, [MARKUP[:60]])
        store.append_step(a_step(run.id, 25, extra={MARKUP: 1.0}))
    with a_browser() as browser:
        page = browser.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.on("request", lambda request: asked.append(request.url))
        page.expose_function("hacked", lambda: said.append("code was run"))
        for path in (f"watch?run={run.id}", f"advise?like={run.id}", "compare"):
            page.goto(f"{unlocked.url}/{path}")
            wait_for_charts(page, 1)
        page.goto(f"{unlocked.url}/runs?search={SQL}")
        page.get_by_text("No run matches").wait_for()
        page.goto(f"{unlocked.url}/watch?run={run.id}")
        wait_for(page, lambda: "<img src=http" in text_of(page))
    assert said == []
    assert [url for url in asked if "evil.example" in url] == []
