"""torch.distributed among the workers of Ray Train, set up by a process that does not import torch.

- `process_group`: Ray's backend config; `interface_of`: the network interface with an IP address
"""

import logging
import os
from typing import Any

import psutil

logger = logging.getLogger(__name__)

LEAVE_SECONDS = 30.0
"""Time that the workers have to leave the group at the end of training."""


def process_group(backend: str) -> Any:
    """Ray's backend config for workers that join one process group.

    Ray's own `TorchConfig` does the same in four rounds of calls, and needs torch in the process that controls the
    workers.

    Args:
        backend: "gloo" or "nccl".
    """
    import ray
    from ray.train._internal.utils import get_address_and_port
    from ray.train.backend import Backend, BackendConfig

    class Group(Backend):  # type: ignore[misc]
        share_cuda_visible_devices = True

        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            count, address = len(worker_group), worker_group.execute_single(0, get_address_and_port)
            call = worker_group.execute_single_async
            ray.get([call(rank, _join, backend, rank, count, *address) for rank in range(count)])

        def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
            try:
                ray.get(worker_group.execute_async(_leave, len(worker_group) > 1), timeout=LEAVE_SECONDS)
            except ray.exceptions.GetTimeoutError:
                logger.warning("the workers did not leave their process group within %g s", LEAVE_SECONDS)

    class Config(BackendConfig):  # type: ignore[misc]
        @property
        def backend_cls(self) -> Any:
            return Group

    return Config()


def _join(backend: str, rank: int, count: int, address: str, port: int) -> None:
    """Connect this worker; `address` and `port` are where the first worker listens."""
    import ray
    from ray.train.torch import config

    # By default gloo takes the interface of the address that the host's name has, which on Debian is a loopback one:
    # workers of two nodes do not find each other.
    if interface := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(backend, rank, count, "env://")


def _leave(is_group: bool) -> None:
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group=is_group)


def interface_of(address: str) -> str | None:
    """Name of this machine's network interface with an IP address; None if there is none."""
    names = (name for name, found in psutil.net_if_addrs().items() if address in (one.address for one in found))
    return next(names, None)
