"""What lies in a file is data: no model, checkpoint or archive runs code when it is read."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from own_things import save_model

from storage.commandline import BadInput
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
