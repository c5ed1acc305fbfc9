"""What lies in a file is data: reading it runs no code, and takes no more than the file holds."""

import hashlib
import io
import json
import pickle
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest
import torch
from own_things import save_model

from storage.commandline import BadInput
from storage.importers import trackio_database
from storage.importers.importing import import_file
from trainer.checkpoint import Checkpoints, NoCheckpoint
from trainer.policy import load_policy

CPU = torch.device("cpu")


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.fixture
def trap(tmp_path):
    return tmp_path / "code was run"


def test_the_trap_works(trap):
    pickle.loads(pickle.dumps(Bomb(trap)))
    assert trap.exists()


def test_pickled_weights_are_refused_unread(tmp_path, trap):
    folder = save_model(tmp_path / "model")
    weights = load_policy(folder, CPU)[0].state_dict()
    (folder / "model.safetensors").unlink()
    torch.save({**weights, "more": Bomb(trap)}, folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_policy(folder, CPU)
    assert not trap.exists()


def test_code_that_a_model_brings_along_is_not_run(tmp_path, trap):
    folder = save_model(tmp_path / "model")
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(trap)!r}).touch()\n")
    card = json.loads((folder / "config.json").read_text())
    for name in ("config.json", "tokenizer_config.json"):
        card = json.loads((folder / name).read_text())
        own = {
            "AutoConfig": "own.C",
            "AutoModelForCausalLM": "own.M",
            "AutoTokenizer": ["own.T", None],
        }
        card |= {"auto_map": own, "model_type": "of its own", "tokenizer_class": "T"}
        (folder / name).write_text(json.dumps(card))
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_policy(folder, CPU)
    assert not trap.exists()


def test_a_checkpoint_that_holds_a_pickle_is_damaged_and_nothing_more(tmp_path, trap):
    checkpoints = Checkpoints(tmp_path / "a-run")
    checkpoints.save(3, {"weights": torch.ones(2)})
    [folder] = checkpoints.folder.iterdir()
    card = next(
        each for each in folder.iterdir() if "sha256" in each.read_bytes().decode("latin-1")
    )
    written = json.loads(card.read_text())
    for name in written["sha256"]:
        (folder / name).write_bytes(pickle.dumps(Bomb(trap)))
        written["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    card.write_text(json.dumps(written))
    with pytest.raises(NoCheckpoint, match="damaged"):
        checkpoints.load(CPU)
    assert not trap.exists()


# -- logs of trackers ---------------------------------------------------------------------------


def events(*records, lengths=()):
    """Return TensorBoard events, then the heads of records that claim to be so long."""
    event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2", reason="no tensorboard")
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(event_pb2.Event(file_version="brain.Event:2").SerializeToString())
    for record in records:
        writer.write(record)
    for length in lengths:
        head = struct.pack("<Q", length)
        file.write(head + struct.pack("<I", masked_crc32c(head)))
    return file.getvalue()


def a_tensor(*shape, dtype=1):
    """Return an event with one float that is said to fill this shape."""
    from tensorboard.compat.proto import event_pb2

    event = event_pb2.Event(step=1)
    tensor = event.summary.value.add(tag="loss").tensor
    tensor.dtype = dtype
    tensor.float_val.append(0.5)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return event.SerializeToString()


@pytest.mark.parametrize("shape", [(10**13,), (10**7, 10**6), (2**62, 2**62), (-1, -1), (0,)])
def test_events_that_claim_more_than_they_hold_are_refused(store, shape):
    with pytest.raises(BadInput, match="holds no row"):
        import_file(store, events(a_tensor(*shape)))
    done = import_file(store, events(a_tensor(*shape), a_tensor(1, 1), a_tensor(*shape)))
    assert store.steps(done.run_id)[0].loss == 0.5


@pytest.mark.parametrize("length", [2**50, 2**63 - 1, 2**64 - 1])
def test_records_that_claim_any_length_or_are_none_are_refused(store, length):
    for content in (events(lengths=[length]), events(b"\xff" * 9), events(a_tensor(dtype=99))):
        with pytest.raises(BadInput, match="file: uploaded is damaged"):
            import_file(store, content)


def a_database(*statements):
    with closing(sqlite3.connect(":memory:")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
        return database.serialize()


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'a' AS run_name"
TABLE = "CREATE TABLE metrics (run_name TEXT, step INTEGER, metrics TEXT)"
LONG = json.dumps({"loss": "9" * 6000})
MADE_UP = {
    "view": [f"CREATE VIEW metrics AS {ENDLESS}, i AS step, '{{}}' AS metrics FROM n"],
    "virtual table": ["CREATE VIRTUAL TABLE metrics USING fts5(run_name, step)"],
    "long row": [TABLE, "INSERT INTO metrics VALUES ('a', 1, zeroblob(20000))"],
    "one text for all": [
        "CREATE TABLE metrics (run_name TEXT)",
        f"INSERT INTO metrics {ENDLESS} FROM n LIMIT 20",
        "ALTER TABLE metrics ADD COLUMN step INTEGER DEFAULT 1",
        f"ALTER TABLE metrics ADD COLUMN metrics TEXT DEFAULT '{LONG}'",
    ],
    "work": [TABLE, f"INSERT INTO metrics {ENDLESS}, 1, '{{}}' FROM n LIMIT 4000"],
}


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("view", "file: .CREATE VIEW .*; allowed: tables and indexes alone"),
        ("virtual table", "file: 'CREATE VIRTUAL .*; allowed: tables and indexes alone"),
        ("long row", "string or blob too big"),
        ("one text for all", "metrics: more text than allowed; allowed: at most 100000 bytes"),
        ("work", "takes more than 10000 steps"),
    ],
)
def test_a_database_that_makes_up_its_rows_is_refused(store, monkeypatch, kind, fault):
    monkeypatch.setattr(trackio_database, "LONGEST", 10_000)
    with pytest.raises(BadInput, match=fault):
        import_file(store, a_database(*MADE_UP[kind]), most_rows=20, most_bytes=100_000)
    assert store.runs() == []
