"""What is refused before a run begins: models, prompts and memory, each in one clear line."""

import json
from dataclasses import replace

import pytest
import torch
from factories import a_config
from own_things import LENGTH, own_config, own_values, save_model, save_reward_model, write_prompts
from processes import command

from storage.commandline import BadInput, run_command
from storage.records import RunStatus
from trainer.__main__ import main
from trainer.launch import create_run
from trainer.lockstep import Lockstep
from trainer.memory import (
    GIB,
    _cgroup_rooms,
    available_bytes,
    least_bytes,
    memory_fault,
    out_of_memory,
    shape_of,
)
from trainer.policy import load_policy, loaded_tokenizer
from trainer.preflight import check
from trainer.reward_model import RewardModel
from trainer.rollout import score
from trainer.worker import Worker
from trainer.workloads.arithmetic import build_model, build_tokenizer
from trainer.workloads.choice import task_and_start

CPU = torch.device("cpu")


def ignore(*words):
    pass


def refusal(function, *given):
    with pytest.raises(BadInput) as found:
        function(*given)
    [line] = str(found.value).splitlines()
    return line


# -- prompts -----------------------------------------------------------------------------------


def test_a_prompt_that_leaves_no_room_to_answer_is_refused_with_its_line(tmp_path):
    save_model(tmp_path / "model")  # which reads 64 tokens
    file = tmp_path / "prompts.jsonl"
    write_prompts(file, [{"prompt": "1" * 61}])
    config = own_config(tmp_path)
    check(config)  # 61 + 3 = 64 fit
    file.write_text('{"prompt": "5="}\n\n' + json.dumps({"prompt": "1" * 62}) + "\n")
    assert refusal(check, config) == (
        f"prompts_file: line 3 of {str(file)!r} has a prompt of 62 tokens; allowed: at most 61, "
        "the 64 that the model reads less max_new_tokens, 3"
    )


def test_prompts_are_turned_into_tokens_once_until_their_file_changes(tmp_path, monkeypatch):
    config, turned = own_config(tmp_path), []

    def loaded(*given):
        turned.append(given)
        return loaded_tokenizer(*given)

    monkeypatch.setattr("trainer.preflight.loaded_tokenizer", loaded)
    check(config)
    check(config)
    assert len(turned) == 1
    write_prompts(tmp_path / "prompts.jsonl", [{"prompt": "1" * 62}])
    with pytest.raises(BadInput, match="has a prompt of 62 tokens"):
        check(config)


def test_padding_takes_no_room(tmp_path):
    """The longest prompt fits to the last token, and short ones padded to it are scored alike."""
    torch.set_num_threads(1)
    write_prompts(tmp_path / "prompts.jsonl", [{"prompt": "1" * 61}, {"prompt": "5="}])
    config = own_config(tmp_path, prompts=2)
    check(config)
    learner = Lockstep("a run", config, *task_and_start(config, tmp_path, ignore))
    learner.evaluate(0, 16)
    batch = learner._sample(0).batch
    assert batch.prompt_ids_B_L.shape[1] == 61
    short = batch.prompt_mask_B_L[:, 0] == 0
    assert short.sum() == 4
    alone = replace(
        batch.rows(short),
        prompt_ids_B_L=batch.prompt_ids_B_L[short][:, 59:],
        prompt_mask_B_L=batch.prompt_mask_B_L[short][:, 59:],
    )
    found = learner.backward(batch, None)[0].log_prob_B_T[short]
    torch.testing.assert_close(found, score(learner.policy, alone)[0].detach())


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """Run a command that must be refused and make nothing; return its one line."""
    home = tmp_path / "home"
    monkeypatch.setenv("ETALON_HOME", str(home))
    monkeypatch.delenv("ETALON_DB", raising=False)

    def tell(*words):
        capsys.readouterr()  # saving a model says so
        assert run_command(main, words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert not home.exists()
        [line] = err.splitlines()
        return line

    return tell


def test_the_command_refuses_a_long_prompt_before_anything_is_made(tmp_path, told):
    values = own_values(tmp_path)
    write_prompts(tmp_path / "prompts.jsonl", [{"prompt": "1" * 62}])
    named = ("workload", "model", "prompts_file", "reward", "steps", "max_new_tokens")
    options = [w for n in named for w in (f"--{n.replace('_', '-')}", str(values[n]))]
    words = ("run", "--learning-rate", "1e-4", "--max-staleness", "0", "--detach")
    assert told(*words, *options, "--json").startswith("prompts_file: line 1 of ")


# -- models that do not load -------------------------------------------------------------------


def test_a_damaged_checkpoint_is_refused_before_and_when_it_is_loaded(tmp_path):
    config = own_config(tmp_path)
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    told = f"model: {str(tmp_path / 'model')!r} cannot be loaded: "
    assert refusal(check, config).startswith(told)
    assert refusal(load_policy, tmp_path / "model", CPU).startswith(told)


def test_weights_that_are_missing_are_no_random_numbers(tmp_path):
    """A causal LM has no score head: taken for a reward model it would reward at random."""
    folder = save_model(tmp_path / "model")
    line = refusal(RewardModel, folder, CPU)
    assert line.startswith(f"reward_model: {str(folder)!r} lacks 1 of its weights, the first is ")
    judge = save_reward_model(tmp_path / "judge")
    settings = json.loads((judge / "config.json").read_text())
    settings["tie_word_embeddings"] = False
    (judge / "config.json").write_text(json.dumps(settings))
    assert "lm_head.weight; allowed: a complete" in refusal(load_policy, judge, CPU)


# -- memory ------------------------------------------------------------------------------------


def test_a_model_that_no_machine_holds_is_refused_in_one_line(told):
    words = "--learning-rate 1e-4 --max-staleness 0 --steps 5 --hidden-size 8192 --layers 128"
    line = told("run", *words.split(), "--json")
    assert line.startswith("memory: this run needs at least ")
    assert "optimizer 10" in line  # 137 billion weights, twice, in GiB


def need(config, width=64, layers=2):
    return least_bytes(config, shape_of(build_model(width, layers), config), 1024)


def test_the_need_is_counted_by_hand():
    """134 208 weights in fp32: themselves, gradient, two moments, a snapshot, a second model."""
    weights = sum(p.numel() for p in build_model(64, 2).parameters())
    found = need(a_config())
    cache = 1024 * (2 * 2 * 64 * 2 + 2 * 16 * 4)
    assert found == {
        "weights": 4 * weights,
        "gradient": 4 * weights,
        "optimizer": 8 * weights,
        "behavior snapshots": 4 * weights,
        "evaluation": cache,
        "behavior policy": 4 * weights,
    }


@pytest.mark.parametrize(
    ("changes", "name", "copies"),
    [
        ({"schedule": "constant", "max_staleness": 7}, "behavior snapshots", 8),
        ({"schedule": "constant", "max_staleness": 7, "steps": 3}, "behavior snapshots", 4),
        ({"optimizer": "sgd"}, "optimizer", 1),
        ({"optimizer": "sgd", "adam_beta1": 0.0}, "optimizer", None),
        ({"kl_coefficient": 0.1}, "reference policy", 1),
        ({"schedule": "queue", "rollout_workers": 3}, "rollout workers", 3),
        (
            {"schedule": "queue", "rollout_workers": 3, "engine": "ray"},
            "rollout workers",
            None,  # its actors have the memory of their nodes
        ),
        ({"lora_rank": 4}, "behavior policy", None),
    ],
)
def test_what_changes_the_need(changes, name, copies):
    found = need(a_config(**changes))
    assert found.get(name) == (None if copies is None else copies * found["weights"])


def test_the_line_says_what_is_needed_what_is_there_and_what_to_do():
    line = memory_fault({"weights": 2**60, "gradient": 2**61, "small": 5}, CPU)
    told = "3221225472.0 GiB (gradient 2147483648.0, weights 1073741824.0) and cpu has "
    assert line.startswith(f"memory: this run needs at least {told}")
    there = float(line.removeprefix(f"memory: this run needs at least {told}").split()[0])
    assert there == pytest.approx(available_bytes(CPU) / GIB, rel=0.5)
    assert line.endswith("fewer rollout_workers")
    assert memory_fault({"weights": 5}, CPU) is None
    assert available_bytes(torch.device("mps")) is None


def test_a_control_group_with_a_limit_leaves_what_it_leaves(tmp_path):
    """The tightest of the groups above counts; files that were read are let go when need be."""
    inner = tmp_path / "fs" / "a" / "b"
    inner.mkdir(parents=True)
    for folder, most, used in ((inner, "max", 70), (inner.parent, "100", 80)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 5\ninactive_file 30\n")
    own = tmp_path / "cgroup"
    own.write_text("1:cpu:/x\n0::/a/b\n")
    assert _cgroup_rooms(tmp_path / "fs", own) == [50]
    assert _cgroup_rooms(tmp_path / "fs", tmp_path / "nowhere") == []


PEAK = """
import gc, re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from trainer.config import checked_config
from trainer.lockstep import Lockstep
from trainer.memory import least_bytes, shape_of
from trainer.workloads.arithmetic import arithmetic
from trainer.workloads.arithmetic import build_model

def kilobytes(name):  # of this program; ru_maxrss holds that of the process it came from
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def run(folder):
    config = checked_config(dict(learning_rate=1e-4, max_staleness=int(sys.argv[3]), steps=4,
        schedule=sys.argv[4], optimizer=sys.argv[5], model=folder, prompts=2, group_size=2))
    task, start = arithmetic(config, Path("."), print)
    learner = Lockstep("a run", config, task, start)
    learner.evaluate(0, 64)
    for step in range(4):
        learner.learner_step(step)
    learner.evaluate(4, 64)
    return config

run(sys.argv[1])  # loads what is loaded when it is first needed, which is no part of a run's need
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kilobytes("VmRSS")
config = run(sys.argv[2])
taken = 1024 * (kilobytes("VmHWM") - before)
print(sum(least_bytes(config, shape_of(build_model(512, 4), config), 64).values()), taken)
"""


@pytest.mark.parametrize(
    "setting",
    [
        ("3", "constant", "adamw"),
        pytest.param(("0", "cyclic", "adamw"), marks=pytest.mark.long),
        pytest.param(("0", "cyclic", "sgd"), marks=pytest.mark.long),
    ],
)
def test_a_run_needs_at_least_what_is_said_and_not_twice_that(tmp_path, setting):
    """17 million weights, against the largest resident size of a process."""
    folders = [tmp_path / "small", tmp_path / "large"]
    for folder, size in zip(folders, (16, 512), strict=True):
        build_model(size, 4).save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
    done = command("-c", PEAK, *map(str, folders), *setting, home=tmp_path)
    assert done.returncode == 0, done.stderr
    needed, taken = map(int, done.stdout.split()[-2:])
    assert needed <= taken < 2 * needed


@pytest.mark.parametrize("ask", [lambda: torch.empty(10**15), lambda: bytearray(2**62)])
def test_memory_that_runs_out_in_a_run_is_told_in_one_line(store, tmp_path, monkeypatch, ask):
    """The real allocator of the CPU, and of Python, asked for more than there is."""
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    learn = Lockstep.learner_step

    def greedy(self, step):
        if step == 2:
            ask()
        return learn(self, step)

    monkeypatch.setattr(Lockstep, "learner_step", greedy)
    run = create_run(store, own_config(tmp_path, LENGTH))
    with pytest.raises((MemoryError, RuntimeError)):
        Worker(store, run, ignore).run()
    run = store.run(run.id)
    assert run.status is RunStatus.FAILED
    assert run.outcome_reason.startswith("out of memory: ")
    assert "micro_batch_size" in run.outcome_reason
    assert "\n" not in run.outcome_reason
    assert len(store.steps(run.id)) == 2


def test_the_memory_of_a_device_that_runs_out_is_told_too():
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory")).startswith("out of memory: ")
    assert out_of_memory(RuntimeError("something else")) is None
