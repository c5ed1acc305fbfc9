"""A Ray cluster to work on: joined, or started on this machine, and looked at before it is used.

Ray is optional: nothing else imports it, and this module does so only when it is asked for. What
runs on other nodes is this very code (``py_modules``); the packages it needs have to be there.
"""

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from storage.commandline import BadInput
from storage.engine import database_url
from storage.errors import StorageError
from storage.store import Store

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
def joined(address: str | None) -> Iterator[Any]:
    """Join a cluster and leave it afterwards; one that is joined already stays so.

    Meanwhile what is printed goes to standard error, because Ray prints what happens to its nodes.

    Args:
        address: ``HOST:PORT`` of the head, ``auto`` for the cluster that runs on this machine, and
            None for that one too, or one of this machine alone, for as long as it is needed.

    Raises:
        BadInput: there is no such cluster.
    """
    ray = ray_module()
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    address = address or os.environ.get("RAY_ADDRESS")
    _check_address(address)
    code = [str(PROJECT / name) for name in ("storage", "trainer")]
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


def able_nodes(ray: Any, db: str | None, needed: dict[str, int]) -> list[dict[str, Any]]:
    """Return the nodes that offer what one run needs.

    Args:
        ray: the package, joined.
        db: the archive that was asked for; it need not be there yet.
        needed: of ``resources``.

    Raises:
        BadInput: there is none, or the archive is a file and the cluster has other machines.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    url, here = database_url(db), str(ray.util.get_node_ip_address())
    machines = {node["NodeManagerAddress"] for node in alive}
    if url.get_backend_name() == "sqlite" and machines - {here}:
        raise BadInput(
            f"db: {url.database} is a file, and the Ray cluster has {len(machines)} machines; "
            "allowed: postgresql+psycopg://USER@HOST/NAME, or a cluster of this machine alone"
        )
    wanted = {"CPU": needed["num_cpus"], "GPU": needed["num_gpus"]}
    able = [
        node
        for node in alive
        if all(node["Resources"].get(name, 0) >= count for name, count in wanted.items())
    ]
    if not able:
        words = " and ".join(f"{count} {name}" for name, count in wanted.items() if count)
        raise BadInput(
            f"engine: no node of the Ray cluster offers {words} to a run; "
            "add one, or lower --threads or --rollout-workers"
        )
    return able


def check_reach(ray: Any, nodes: Sequence[dict[str, Any]], url: str, config: TrainerConfig) -> None:
    """Ask each of these nodes whether it reaches the archive and a person's own files.

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


def _unreached(url: str, config: TrainerConfig) -> list[str]:
    """Say on a node what of a run it does not reach: the archive, or a person's own files."""
    names = ("model", "reward_model", "prompts_file", "reward")
    faults = own_file_faults(**{name: getattr(config, name) for name in names})
    try:
        Store.open(url, create=False).close()
    except StorageError as error:
        faults.append(str(error))
    return faults


def node_home(home: Path) -> None:
    """Let what this process of a node makes lie in the folder of the same name as at home."""
    os.environ["ETALON_HOME"] = str(home)
