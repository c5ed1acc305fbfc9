"""Logs in the real format of nine stacks, and of W&B, become the right inputs of a diagnosis."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest

from advisor.diagnosis import diagnose
from advisor.imported import config_of_log, drift_so_far
from storage.commandline import BadInput
from storage.importers.importing import import_file
from storage.importers.wandb_file import BLOCK, FIRST, HEAD, LAST, PIECE

LOGS = Path(__file__).parent / "storage" / "logs"
STACKS = sorted(path.parent.name for path in LOGS.glob("*/expected.json"))
EVERY = pytest.mark.parametrize("name", STACKS)


@pytest.fixture
def recorded(name):
    expected = json.loads((LOGS / name / "expected.json").read_text())
    if any("tfevents" in path.name for path in (LOGS / name).rglob("*")):
        pytest.importorskip("tensorboard", reason="no tensorboard")
    if name == "wandb":
        pytest.importorskip("wandb", reason="no wandb; pip install -r requirements-wandb.txt")
    return expected, [LOGS / name / file for file in expected["files"]]


def test_every_stack_has_a_recorded_log():
    nine = {"trl", "verl", "openrlhf", "areal", "prime_rl", "nemo_rl", "skyrl", "slime", "tinker"}
    assert {*STACKS} == nine | {"wandb"}


@EVERY
def test_a_recorded_log_becomes_the_inputs_of_its_regime(store, name, recorded):
    expected, files = recorded
    done = import_file(store, files, settings=expected["set"])
    assert (done.stack, done.rows) == (expected["stack"], 40)
    assert {column: key for key, column in done.mapped.items()} == expected["columns"]
    assert done.kept_against == expected["kept_against"]
    assert list(done.unknown) == expected["unknown"]
    run, steps = store.run(done.run_id), store.steps(done.run_id)
    for setting, value in expected["config"].items():
        assert run.config[setting] == pytest.approx(value, rel=1e-6), setting
    for at, values in expected["steps"].items():
        row = next(each for each in steps if each.step == int(at))
        for column, value in values.items():
            assert getattr(row, column) == pytest.approx(value, rel=1e-5), (at, column)

    drift = drift_so_far(store, run, config_of_log(store, run))
    for quantity, value in expected["eighth_batch"].items():
        found = getattr(drift, quantity)[7]
        assert math.isnan(found) if value is None else found == pytest.approx(value, rel=1e-5)
    fresh = slice(0, None, 8)  # whatever age is told for a batch that did not drift
    assert not drift.age_S[fresh][np.isfinite(drift.sigma_S[fresh])].any()
    assert diagnose(store, run.id).regime == expected["regime"]
    again = import_file(store, files, settings=expected["set"])
    assert (again.run_id, again.written) == (done.run_id, 0)


@EVERY
def test_half_a_recorded_log_is_a_shorter_log_or_one_fault_with_its_file(
    store, tmp_path, name, recorded
):
    _, files = recorded
    [whole] = files[0].glob("events*") if files[0].is_dir() else [files[0]]
    half = tmp_path / whole.name
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    if name == "trl":
        with pytest.raises(BadInput, match=f"^file: {half}: not JSON") as fault:
            import_file(store, half)
        assert len(str(fault.value).splitlines()) == 1
        assert store.runs() == []
        return
    short = import_file(store, half, name="a run")
    assert 10 < short.rows < 30
    grown = import_file(store, whole, name="a run")
    assert grown.run_id == short.run_id


def test_a_log_of_wandb_that_is_damaged_is_refused(store):
    pytest.importorskip("wandb", reason="no wandb; pip install -r requirements-wandb.txt")
    content = bytearray((LOGS / "wandb" / "run-stale.wandb").read_bytes())
    content[5000] ^= 1
    with pytest.raises(BadInput, match="file: damaged at byte"):
        import_file(store, bytes(content))
    assert store.runs() == []


@pytest.mark.parametrize(
    ("told", "step"),
    [
        ({"train/global_step": "3"}, 3),
        ({"train/global_step": "null", "_step": "5"}, 5),
        ({"train/global_step": "NaN"}, 7),
        ({"train/global_step": '"NaN"', "_step": "null"}, 7),
        ({"train/global_step": '"3"'}, None),
    ],
)
def test_a_row_of_wandb_is_at_the_first_step_that_is_a_number(store, told, step):
    """The file is put together as W&B does, the row in two pieces."""
    pytest.importorskip("wandb", reason="no wandb; pip install -r requirements-wandb.txt")
    from wandb.proto.wandb_internal_pb2 import Record

    record = Record()
    record.history.step.num = 7
    for key, value in {"actor/lr": "1e-6", "x": "0." + "1" * 40_000, **told}.items():
        item = record.history.item.add()
        item.key, item.value_json = key, value
    content = record.SerializeToString()
    cut = BLOCK - HEAD - PIECE.size
    log = (LOGS / "wandb" / "run-stale.wandb").read_bytes()[:HEAD]
    for kind, piece in ((FIRST, content[:cut]), (LAST, content[cut:])):
        log += PIECE.pack(zlib.crc32(piece, zlib.crc32(bytes([kind]))), len(piece), kind) + piece
    if step is None:
        with pytest.raises(BadInput, match="file: record 1: step '3'; allowed: a whole number"):
            import_file(store, log)
    else:
        assert [row.step for row in store.steps(import_file(store, log).run_id)] == [step]
