"""A real Ray cluster of several nodes on this machine, for tests that add nodes and kill them."""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import psutil
from processes import wait_until

from trainer.ray_cluster import joined

MEGABYTE = 2**20


class Nodes:
    """A cluster whose nodes can be added and killed; the head works on nothing."""

    def __init__(self) -> None:
        from ray._private.utils import get_ray_address_file
        from ray.cluster_utils import Cluster

        noted_in = Path(get_ray_address_file(None)).parent
        noted_in.mkdir(parents=True, exist_ok=True)  # which a head in a folder of its own does not
        self._folder = tempfile.mkdtemp(prefix="etalon-ray-")  # sockets need a short path
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self._folder}
        head["object_store_memory"] = 80 * MEGABYTE
        head["_system_config"] = {"health_check_period_ms": 500}  # a death is noticed after five
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address

    def add(self, cpus: int = 1, **settings: Any) -> Any:
        """Add a node and return it."""
        size = {"num_cpus": cpus, "object_store_memory": 80 * MEGABYTE}
        return self._cluster.add_node(**size, **settings)

    def kill(self, node: Any) -> None:
        """Let a node go away without a word."""
        self._cluster.remove_node(node, allow_graceful=False)

    def dismiss(self, node: Any) -> None:
        """Let a node leave."""
        self._cluster.remove_node(node, allow_graceful=True)

    def wait(self, machines: int) -> None:
        """Wait, having joined, until the head knows of so many machines that are alive."""
        with joined() as ray:
            wait_until(
                lambda: (
                    len({n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}) == machines
                )
            )

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the processes of its nodes whose title says that they carry out such a thing."""
        found = []
        for each in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if name in " ".join(each.cmdline()):
                    found.append(each)
        return found

    def end(self) -> None:
        """End every node."""
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)
