"""A Ray cluster to work on: joined, or started on this machine, and looked at before it is used.

Ray is optional: nothing else imports it, and this module does so only when it is asked for. What
runs on other nodes is this very code (``py_modules``); the packages it needs have to be there.
"""

import contextlib
import fcntl
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from storage.commandline import BadInput
from storage.engine import database_url
from storage.errors import StorageError
from storage.store import Store
from storage.terminal import make_output_visible

from .config import TrainerConfig
from .launch import PROJECT
from .own_files import own_file_faults

ANSWER_SECONDS = 5.0
LOOK_SECONDS = 120.0
"""How long the nodes may take to say what they reach; a new process loads some packages first."""


def ray_module() -> Any:
    """Return the package.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise BadInput(
            "engine: 'ray' needs a package that is not installed; "
            "run: pip install -r requirements-ray.txt"
        ) from None
    return ray


@contextlib.contextmanager
def joined() -> Iterator[Any]:
    """Join a cluster and leave it afterwards; one that is joined already stays so.

    Which one ``RAY_ADDRESS`` says: ``HOST:PORT`` of its head, or ``auto`` for the one that runs on
    this machine. Without it that one is joined too, or else one of this machine alone is started,
    for as long as it is needed. Meanwhile what is printed goes to standard error, because Ray
    prints what happens to its nodes.

    Raises:
        BadInput: there is no such cluster.
    """
    ray = ray_module()
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    address = os.environ.get("RAY_ADDRESS") or None
    _check_address(address)
    code = [str(PROJECT / name) for name in ("storage", "trainer")]
    at_terminate = signal.getsignal(signal.SIGTERM)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            ray.init(
                address=address,
                runtime_env={"py_modules": code, "excludes": ["__pycache__"]},
                include_dashboard=False,
                log_to_driver=False,
                logging_level="warning",
            )
        except ConnectionError as error:
            raise BadInput(
                f"ray_address: no cluster answers at {address}: {str(error).splitlines()[0]}; "
                "start one: ray start --head"
            ) from None
        try:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, at_terminate)  # Ray has taken it
            yield ray
        finally:
            ray.shutdown()


def _check_address(address: str | None) -> None:
    """Refuse an address at which nobody listens; Ray would try for minutes."""
    if address in (None, "auto"):
        return
    found = re.fullmatch(r"(\S+):(\d{1,5})", address)
    if found is None:
        raise BadInput(f"ray_address: {address!r} is not allowed; allowed: auto | HOST:PORT")
    try:
        socket.create_connection((found[1], int(found[2])), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"ray_address: no cluster answers at {address}: {error}; start one: ray start --head"
        ) from None


def resources(cpus: int, config: TrainerConfig) -> dict[str, int]:
    """Return what Ray shall set aside; a GPU where the setting says so, which ``auto`` does not.

    Raises:
        BadInput: the setting names a certain GPU.
    """
    if re.fullmatch(r"cuda:\d+", config.device):
        raise BadInput(
            f"device: {config.device!r} is not allowed with the engine ray, which chooses the GPU; "
            "allowed: auto | cpu | cuda"
        )
    return {"num_cpus": cpus, "num_gpus": int(config.device == "cuda")}


def check_archive(ray: Any, db: str | None) -> None:
    """Look whether the archive that was asked for, there already or not, can be shared.

    Raises:
        BadInput: it is a file, and the cluster has other machines.
    """
    url, here = database_url(db), str(ray.util.get_node_ip_address())
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if url.get_backend_name() == "sqlite" and machines - {here}:
        raise BadInput(
            f"db: {url.database} is a file, and the Ray cluster has {len(machines)} machines; "
            "allowed: postgresql+psycopg://USER@HOST/NAME, or a cluster of this machine alone"
        )


def able_nodes(ray: Any, needed: dict[str, int]) -> list[dict[str, Any]]:
    """Return the nodes that offer what one run, or one rollout worker, needs.

    Raises:
        BadInput: there is none.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": needed["num_cpus"], "GPU": needed["num_gpus"]}
    able = [
        node
        for node in alive
        if all(node["Resources"].get(name, 0) >= count for name, count in wanted.items())
    ]
    if not able:
        words = " and ".join(f"{count} {name}" for name, count in wanted.items() if count)
        raise BadInput(
            f"engine: no node of the Ray cluster offers {words} at once; "
            "add one, or lower --threads or --rollout-workers"
        )
    return able


@contextlib.contextmanager
def ready_for(config: TrainerConfig) -> Iterator[None]:
    """Join the cluster on which the rollout workers of a run with the engine ray shall work.

    Raises:
        BadInput: they cannot; one line per fault.
    """
    if config.engine != "ray":
        yield
        return
    needed = resources(config.threads, config)
    with joined() as ray:
        check_reach(ray, able_nodes(ray, needed), None, config)
        yield


def check_reach(
    ray: Any, nodes: Sequence[dict[str, Any]], url: str | None, config: TrainerConfig
) -> None:
    """Ask each of these nodes whether it reaches a person's own files, and an archive if given.

    Raises:
        BadInput: one line per fault and node.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_unreached)
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[look.options(scheduling_strategy=there).remote(url, config)] = node
    ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_SECONDS)
    faults, there = [], len(asked)
    for answer, node in asked.items():
        try:
            faults += [f"{fault} ({_name(node)})" for fault in ray.get(answer, timeout=0)]
        except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
            there -= 1  # it went away meanwhile
        except ray.exceptions.GetTimeoutError:
            faults.append(f"engine: {_name(node)} does not answer within {LOOK_SECONDS:.0f} s")
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            faults.append(f"engine: {_name(node)} cannot work: {last}")
    if not there:
        faults.append("engine: every node of the Ray cluster that offers enough went away; add one")
    if faults:
        raise BadInput(*faults)


def _name(node: dict[str, Any]) -> str:
    return f"Ray node {node['NodeManagerHostname']}, {node['NodeManagerAddress']}"


def _unreached(url: str | None, config: TrainerConfig) -> list[str]:
    """Say on a node what of a run it does not reach: the archive, or a person's own files."""
    names = ("model", "reward_model", "prompts_file", "reward")
    faults = own_file_faults(**{name: getattr(config, name) for name in names})
    if url is not None:
        try:
            Store.open(url, create=False).close()
        except StorageError as error:
            faults.append(str(error))
    return faults


def node_home(home: Path) -> None:
    """Let what this process of a node makes lie in the folder of the same name as at home.

    What it prints goes to a log of Ray's.
    """
    make_output_visible()
    os.environ["ETALON_HOME"] = str(home)


@contextlib.contextmanager
def first_of_this_node(home: Path) -> Iterator[None]:
    """Let one process of a node make what is made once; the others find it made."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "warm_start.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
