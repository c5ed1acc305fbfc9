"""Files of trackers: TensorBoard's written by its own writer, trackio's by trackio 0.43.0."""

import math
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from storage import exchange_command
from storage.__main__ import main
from storage.commandline import BadInput, run_command
from storage.importers.importing import import_file
from storage.records import RunStatus
from storage.store import Store

TRACKIO = Path(__file__).parent / "data" / "trackio_0_43.sql"
ROWS = 6
LEFT = "left for the next import"


@pytest.fixture
def events(tmp_path):
    """A folder of event files as verl writes them, with what is no scalar beside."""
    pytest.importorskip("tensorboard", reason="no tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    folder = tmp_path / "a verl run"

    def write(first, last):
        with SummaryWriter(str(folder)) as writer:
            writer.add_text("config", "learning_rate 1e-6")
            for step in range(first, last):
                writer.add_scalar("actor/lr", 1e-6, step)
                writer.add_scalar("actor/pg_clipfrac", 0.001 * step, step)
                writer.add_scalar("actor/ppo_kl", math.nan if step == 2 else 0.01, step)
                writer.add_scalar("critic/score/mean", 0.1 * step, step)
                writer.add_scalar("actor/grad_norm", math.inf if step == 3 else 1.0, step)
                staleness = "training/off_policy/trajectory_staleness/mean"
                writer.add_scalar(staleness, float(step % 2), step)
                writer.add_scalar("perf/mine", 5.0, step, walltime=1_700_000_000 + step)
                writer.add_histogram("gradients", np.array([1.0, 2.0]), step)
        return folder

    write(0, ROWS)
    return write


def test_event_files_are_read_as_the_stack_that_wrote_them(events, store):
    folder = events(ROWS, ROWS + 2)  # a second file, as after a restart
    done = import_file(store, folder, settings={"max_staleness": 4, "parameter_sync_step": 1})
    assert (done.format, done.stack, done.rows) == ("tensorboard", "verl", ROWS + 2)
    assert done.unknown == ("perf/mine",)
    run, rows = store.run(done.run_id), store.steps(done.run_id)
    assert (run.name, run.config["max_staleness"]) == ("a verl run", 4)
    assert run.source["references"]["actor/ppo_kl"] == "proximal"
    assert any("float32" in note for note in done.notes)
    assert [row.step for row in rows] == list(range(ROWS + 2))
    assert rows[4].learning_rate == pytest.approx(1e-6, rel=1e-7)
    assert rows[4].reward_mean == pytest.approx(0.4)
    assert rows[0].time == 1_700_000_000
    assert rows[3].grad_norm == math.inf
    assert math.isnan(rows[2].extra["actor/ppo_kl"])
    assert rows[5].staleness_mean == 1
    assert "gradients" not in rows[0].extra
    again = import_file(store, folder)
    assert (again.run_id, again.written) == (done.run_id, 0)


def test_one_event_file_is_known_by_its_content_and_may_grow(events, store, tmp_path):
    [file] = sorted(events(0, 0).glob("*tfevents*"))[:1]
    whole = file.read_bytes()
    grown = tmp_path / "grown.log"
    grown.write_bytes(whole[: len(whole) // 2])  # cut within a record
    first = import_file(store, grown)
    assert 0 < first.rows < ROWS
    grown.write_bytes(whole)
    second = import_file(store, grown)
    assert (second.run_id, second.rows) == (first.run_id, ROWS)
    uploaded = import_file(store, whole, name="grown")
    assert (uploaded.run_id, uploaded.written) == (first.run_id, 0)


@pytest.mark.parametrize("damage", ["garbage", "nothing but a beginning", "no scalar"])
def test_event_files_without_rows_are_refused_and_leave_nothing(events, store, tmp_path, damage):
    [file] = sorted(events(0, 0).glob("*tfevents*"))[:1]
    head = file.read_bytes()[:40]
    content = {
        "garbage": head + bytes(range(256)) * 9,
        "nothing but a beginning": head,
        "no scalar": head[:24],
    }[damage]
    with pytest.raises(BadInput, match="file: "):
        import_file(store, content)
    with pytest.raises(BadInput, match="a folder without TensorBoard event files"):
        import_file(store, tmp_path)
    assert store.runs() == []


def flipped(content: bytes, at: int) -> bytes:
    """One byte made another one, whatever it was: checksums differ with the time of writing."""
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        (lambda content: content, None),
        (lambda content: content[:-3], "the last record of log is not finished"),
        (
            lambda content: flipped(content, len(content) - 1),
            "the last record of log is not finished",
        ),
        (lambda content: content + bytes(100), "the last record of log is not finished"),
        (lambda content: content + b"no record, and as long as one is", BadInput),
        (lambda content: flipped(content, 2000), BadInput),
    ],
    ids=["whole", "cut", "wrong at its end", "zeros behind", "text behind", "wrong within"],
)
def test_a_damaged_event_file_is_refused_and_a_cut_one_is_told(
    events, store, tmp_path, changed, note
):
    [file] = [each for each in events(0, 0).iterdir() if each.stat().st_size > 2500]
    log = tmp_path / "log"
    log.write_bytes(changed(file.read_bytes()))
    if note is BadInput:
        with pytest.raises(BadInput, match=r"log is damaged \(a wrong checksum after byte \d+\)"):
            import_file(store, log)
        assert store.runs() == []
    else:
        done = import_file(store, log)
        assert done.rows == ROWS
        assert [n for n in done.notes if "record" in n] == ([f"{note}: {LEFT}"] if note else [])


def test_an_event_file_without_a_record_is_told(events, store):
    folder = events(0, 0)
    (folder / "events.out.tfevents.9.empty").touch()
    assert "events.out.tfevents.9.empty holds no whole record" in import_file(store, folder).notes


@pytest.fixture
def project(tmp_path):
    file = tmp_path / "grpo.db"
    with sqlite3.connect(file) as database:
        database.executescript(TRACKIO.read_text())
    database.close()
    return file


def test_a_run_of_a_trackio_project_is_read(project, store):
    with pytest.raises(BadInput, match="has 2 runs; name one with --run: first, second"):
        import_file(store, project)
    with pytest.raises(BadInput, match="'third' is not in the project; allowed: first, second"):
        import_file(store, project, run_name="third")
    done = import_file(store, project, run_name="second", settings={"max_staleness": 3})
    assert (done.format, done.stack, done.rows) == ("trackio", "trl", 4)
    run, rows = store.run(done.run_id), store.steps(done.run_id)
    assert run.name == "second"
    assert run.config["learning_rate"] == 1e-6  # of the table configs
    assert [row.reward_mean for row in rows] == pytest.approx([10.1, 10.2, 10.3, 10.4])
    assert math.isnan(rows[2].loss)
    assert rows[3].grad_norm == math.inf
    assert rows[1].clip_fraction_low == 0.002
    other = import_file(store, project, run_name="first")
    assert other.run_id != done.run_id
    assert import_file(store, project, run_name="first").written == 0


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DROP TABLE metrics", "without trackio's table metrics"),
        ("DELETE FROM metrics", "'second' is not in the project; allowed: none"),
        ("UPDATE metrics SET metrics = '[1]' WHERE step = 2", "row 2: metrics '"),
        ("UPDATE metrics SET step = -1 WHERE step = 3", "row 3: step -1"),
    ],
)
def test_a_database_that_is_none_of_trackio_is_refused(project, store, statement, words):
    with sqlite3.connect(project) as database:
        database.execute(statement)
    database.close()
    with pytest.raises(BadInput) as faults:
        import_file(store, project, run_name="second")
    assert words in str(faults.value)
    assert store.runs() == []


def test_a_damaged_database_is_refused(project, store):
    project.write_bytes(project.read_bytes()[:100] + b"\xff" * 5000)
    with pytest.raises(BadInput, match=r"grpo\.db cannot be read"):
        import_file(store, project, run_name="first")


def test_an_older_project_without_run_ids_is_read(project, store):
    with sqlite3.connect(project) as database:
        database.execute("CREATE TABLE older AS SELECT run_name, step, metrics FROM metrics")
        database.execute("DROP TABLE metrics")
        database.execute("ALTER TABLE older RENAME TO metrics")
    database.close()
    assert import_file(store, project, run_name="first").rows == 4


def test_a_log_is_followed_as_it_grows_until_interrupted(tmp_path, monkeypatch, capsys):
    log, db = tmp_path / "log.jsonl", str(tmp_path / "archive.db")
    log.write_text("".join(f'{{"step": {t}, "loss": 1.0}}\n' for t in range(3)))
    statuses = []

    def grow(seconds):
        assert seconds >= exchange_command.FOLLOW_SECONDS
        store = Store.open(db)
        [run] = store.runs()
        statuses.append((run.status, store.last_step(run.id)))
        store.close()
        if len(statuses) == 3:
            raise KeyboardInterrupt
        if len(statuses) == 1:
            with log.open("a") as more:
                more.write('{"step": 3, "loss": 0.5}\n{"step": 4, "lo')

    monkeypatch.setattr(time, "sleep", grow)
    words = ["import", str(log), "--follow", "--db", db]
    assert run_command(main, words) == 130
    assert statuses == [(RunStatus.RUNNING, 2), (RunStatus.RUNNING, 3), (RunStatus.RUNNING, 3)]
    assert "4 steps, 1 of them new" in capsys.readouterr().out
    store = Store.open(db)
    [run] = store.runs()
    assert run.status is RunStatus.FINISHED
    store.close()
