"""Sweeps on a real Ray cluster of several nodes on this machine, some of which are killed."""

import json
import signal
import socket

import postgres
import psutil
import pytest
from own_things import own_config, own_values
from processes import ended, start, wait_until

from storage.check import inconsistencies
from storage.commandline import BadInput, run_command
from storage.records import RunStatus
from storage.store import Store
from trainer.__main__ import main
from trainer.ray_cluster import able_nodes, check_reach, joined, resources

pytest.importorskip("ray", reason="no ray; pip install -r requirements-ray.txt")
A_WHILE = (
    "import os, time\n"
    "def judge(prompts, completions, **keys):\n"
    "    time.sleep(0.1)\n"
    "    judge.n = getattr(judge, 'n', 0) + 1\n"
    "    while judge.n > 10 and os.path.exists(os.path.dirname(__file__) + '/wait'):\n"
    "        time.sleep(0.1)\n"
    "    return [len(c) for c in completions]\n"
)
"""Takes a while; where a file named wait lies beside it, runs wait in about their tenth step."""


@pytest.fixture
def archive(request, tmp_path):
    """An archive that the nodes share: on PostgreSQL where there is a server, else a file."""
    if postgres.missing():
        opened = Store.open(str(tmp_path / "archive.db"))
        yield opened
        opened.close()
        return
    with request.getfixturevalue("postgres_server").archive() as url:
        opened = Store.open(url)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def node(nodes):
    """A node that the tests here share."""
    added = nodes.add()
    yield added
    nodes.dismiss(added)


def sweep_words(folder, *, seeds, **changes):
    values = own_values(folder, A_WHILE, **changes)
    setting = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    lists = ["--learning-rates", "1e-3", "--max-stalenesses", "0", "--seeds", str(seeds)]
    return ["-m", "trainer", "sweep", "--engine", "ray", *lists, *setting, "--json"]


def under_way(store):
    """The runs that have taken a few learner steps."""
    running = [run for run in store.runs() if run.status is RunStatus.RUNNING]
    return [run for run in running if (store.last_step(run.id) or 0) > 3]


@pytest.mark.usefixtures("node")
def test_a_killed_node_loses_no_cell_of_a_sweep(nodes, archive, tmp_path):
    doomed = nodes.add()
    words = sweep_words(tmp_path, seeds=3, steps=25)
    where = ["--db", archive.url, "--ray-address", nodes.address]
    (tmp_path / "wait").touch()  # as one process may begin long before the other
    sweep = start(*words, *where, home=tmp_path / "home")
    wait_until(lambda: len(under_way(archive)) == 2 or sweep.poll() is not None)
    nodes.kill(doomed)
    (tmp_path / "wait").unlink()
    done = ended(sweep)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    answer = json.loads(line)
    assert answer["counts"] == {"finished": 3}
    assert sorted(cell["seed"] for cell in answer["cells"]) == [0, 1, 2]
    for cell in answer["cells"]:
        assert archive.series(cell["run_id"], ["step"])["step"] == list(range(25))
    [lost] = archive.runs(archived=True)
    assert lost.status is RunStatus.STOPPED
    assert lost.outcome_reason.startswith("its node went away: ")
    assert archive.last_step(lost.id) > 3
    assert len(archive.runs()) == 4
    assert inconsistencies(archive) == []


@pytest.mark.long
@pytest.mark.usefixtures("node")
def test_a_process_that_dies_fails_its_run_and_an_interrupt_stops_it(nodes, archive, tmp_path):
    words = sweep_words(tmp_path, seeds=1, steps=1000)
    where = ["--db", archive.url, "--ray-address", nodes.address]
    sweep = start(*words, *where, home=tmp_path / "home")
    wait_until(lambda: bool(under_way(archive)) or sweep.poll() is not None)
    [first] = archive.runs()
    psutil.Process(first.pid).kill()
    wait_until(lambda: bool(archive.runs(archived=True)) and bool(under_way(archive)))
    [second] = archive.runs(archived=False)
    sweep.send_signal(signal.SIGINT)
    done = ended(sweep)
    assert (done.returncode, done.stdout) == (130, "")
    first, second = archive.run(first.id), archive.run(second.id)
    assert (first.status, first.archived) == (RunStatus.FAILED, True)
    assert first.error.startswith("its process died: The worker died unexpectedly")
    assert (second.status, second.outcome_reason) == (RunStatus.STOPPED, "interrupted")
    assert archive.last_step(second.id) > 3


# -- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run a sweep that must be refused in one line, with nothing left behind; return the line."""
    home = tmp_path / "home"
    monkeypatch.setenv("ETALON_HOME", str(home))
    monkeypatch.delenv("ETALON_DB", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "")

    def refuse(*words, **changes):
        given = sweep_words(tmp_path, seeds=1, **changes)
        capsys.readouterr()  # saving a model says so
        before = signal.getsignal(signal.SIGTERM)
        code = run_command(main, [*given[2:], *words])
        signal.signal(signal.SIGTERM, before)  # Ray takes it
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert not home.exists()
        [line] = [each for each in err.splitlines() if "WARNING" not in each]
        return line

    return refuse


def test_a_file_is_no_archive_for_several_machines_and_no_node_is_too_small(nodes, refused):
    far = nodes.add(node_ip_address="127.0.0.2")
    words = ["--ray-address", nodes.address]
    assert "is a file, and the Ray cluster has 2 machines; allowed: postgresql" in refused(*words)
    nodes.dismiss(far)
    nodes.wait(1)
    line = refused(*words, threads=64)
    assert line.startswith("engine: no node of the Ray cluster offers 64 CPU at once; add one")


@pytest.mark.usefixtures("node")
def test_a_node_that_does_not_reach_the_archive_or_the_files_says_so(nodes, tmp_path, monkeypatch):
    config = own_config(tmp_path)
    (tmp_path / "prompts.jsonl").unlink()
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    with joined() as package:
        able = able_nodes(package, resources(1, config))
        with pytest.raises(BadInput) as found:
            check_reach(package, able, str(tmp_path / "no.db"), config)
    first, second = str(found.value).splitlines()
    assert first.startswith(f"prompts_file: {str(tmp_path / 'prompts.jsonl')!r}")
    assert second.startswith(f"db: there is no archive at {tmp_path / 'no.db'}")
    assert all(f"(Ray node {socket.gethostname()}, " in line for line in (first, second))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--ray-address 127.0.0.1:1", "ray_address: no cluster answers at 127.0.0.1:1: "),
        ("--ray-address nowhere", "ray_address: 'nowhere' is not allowed; allowed: auto | HOST"),
        ("--device cuda:1", "device: 'cuda:1' is not allowed with the engine ray"),
    ],
)
def test_what_cannot_be_on_ray_is_one_line(refused, words, line):
    assert refused(*words.split()).startswith(line)


def test_another_engine_is_refused(tmp_path, capsys):
    words = sweep_words(tmp_path, seeds=1)[2:]
    words[words.index("ray")] = "spark"
    capsys.readouterr()
    assert run_command(main, words) == 2
    assert capsys.readouterr().err == "engine: 'spark' is not allowed; allowed: local | ray\n"
