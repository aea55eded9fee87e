"""One cluster for all tests of this folder: a head without CPUs, and workers that a test may lose."""

from collections.abc import Iterator

import pytest

from tests.cluster.network import Cluster, Driver, Node, why_not
from tests.cluster.stages_on_ray import living_nodes
from tests.processes import wait_for


class RayCluster:
    """A cluster and a driver on its head."""

    def __init__(self, cluster: Cluster) -> None:
        self.network = cluster
        cluster.start_node(0)
        cluster.wait_for_head()
        self.workers: list[Node] = []
        self.driver = Driver(cluster)

    def use(self, count: int) -> list[Node]:
        """Exactly `count` worker nodes of one CPU that are alive."""
        while len(self.workers) < count:
            self.workers.append(self.network.start_node(1))
        while len(self.workers) > count:
            self.lose(self.workers[-1])
        wait_for(self._have_joined)
        return list(self.workers)

    def _have_joined(self) -> bool:
        """Whether Ray counts exactly these; starts those again that a busy machine did not start in Ray's 30 s."""
        for node in [node for node in self.workers if node.raylet.poll() is not None]:
            self.lose(node)
            self.workers.append(self.network.start_node(1))
        names = sorted(["node1", *(node.machine.name for node in self.workers)])
        return bool(self.driver.call(living_nodes) == names)

    def add(self, cpus: int) -> Node:
        """One more worker node, which may not have joined yet."""
        self.workers.append(self.network.start_node(cpus))
        return self.workers[-1]

    def lose(self, node: Node, cut_off: bool = False) -> None:
        """Kill a node, or cut it off."""
        self.workers.remove(node)
        node.cut_off() if cut_off else node.kill()


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """The cluster; its tests are skipped where namespaces cannot be had."""
    if reason := why_not():
        pytest.skip(reason)
    network = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield RayCluster(network)
    finally:
        network.close()
