"""Precision that `auto` takes: the best that all devices which compute multiply fast.

| device | fast |
|---|---|
| NVIDIA GPUs from compute capability 8.0 on (A100, H100), AMD's from MI100 on | bf16, fp16, fp32 |
| NVIDIA GPUs of capability 7 (V100, T4) | fp16, fp32 |
| older GPUs | fp32 |
| processors whose products in bf16 were measured to be clearly faster (AMX, AMD's AVX512_BF16) | bf16, fp32 |
| other processors | fp32 |

- `AutoPrecision`: the precision by what computes, asked when it is needed
- `best_precision`: of several devices; of a mixed cluster the best that all have
- `ask_cluster`: devices of a Ray cluster's nodes, by a task on a node of each kind

The devices are asked in a process of their own, so that the caller holds no memory on a GPU.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_schemas.config import ComputesOn
from data_schemas.errors import EnvironmentProblem
from infra import hardware
from infra.workers.ray_session import cluster_has_gpus, ensure_ray
from modeling.training.kinds import Precision

PREFERRED: tuple[Precision, ...] = ("bf16", "fp16", "fp32")
TF32_CAPABILITY = 8
"""Major compute capability of the first GPUs with TF32 and bf16."""
FP16_CAPABILITY = 7
GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
"""A Linux without any of these has no GPU that torch could use, and torch need not be imported to find out."""
ASK_SECONDS = 120.0
_LIST_GPUS = """
import json
from torch import cuda
indices = range(cuda.device_count() if cuda.is_available() else 0)
print(json.dumps([[cuda.get_device_name(index), cuda.get_device_capability(index)[0]] for index in indices]))
"""
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use."""

    name: str
    major: int
    """Major number of its compute capability."""

    @property
    def fast(self) -> tuple[Precision, ...]:
        """Precisions that it multiplies fast."""
        if self.major >= TF32_CAPABILITY:
            return PREFERRED
        return ("fp16", "fp32") if self.major >= FP16_CAPABILITY else ("fp32",)


@dataclass(frozen=True)
class Processor:
    """The processor of a machine."""

    has_fast_bf16: bool

    @property
    def fast(self) -> tuple[Precision, ...]:
        """Precisions that it multiplies fast."""
        return ("bf16", "fp32") if self.has_fast_bf16 else ("fp32",)


Device = Gpu | Processor


def best_precision(devices: Iterable[Device]) -> Precision:
    """The first of bf16, fp16 and fp32 that all devices multiply fast."""
    fast = [device.fast for device in devices]
    assert fast
    return next(precision for precision in PREFERRED if all(precision in precisions for precisions in fast))


class AutoPrecision:
    """Precision that `auto` takes by what computes."""

    def __init__(self, known: Mapping[str, str]) -> None:
        """Begin with what the record of a run holds; the rest is asked once, when it is needed."""
        self.known = dict(known)

    def __call__(self, computes_on: ComputesOn) -> str:
        """Precision on these devices.

        Raises:
            EnvironmentProblem: if the devices are those of a Ray cluster that cannot be asked.
        """
        if computes_on not in self.known:
            self.known[computes_on] = best_precision(devices_of(computes_on))
        return self.known[computes_on]


def devices_of(computes_on: ComputesOn) -> list[Device]:
    """Devices of this process's processor, of this process, or of the Ray workers; at least one."""
    if computes_on == "workers" and "RAY_ADDRESS" in os.environ:
        return ask_cluster()
    processor = Processor(hardware.has_fast_bf16())
    if computes_on == "processor":
        return [processor]
    gpus = local_gpus()
    # A process trains on its first GPU, Ray's workers on all.
    return list(gpus if computes_on == "workers" else gpus[:1]) or [processor]


def resolved_precision(precision: Precision | Literal["auto"], computes_on: ComputesOn) -> Precision:
    """A configured precision, or for `auto` that of these devices."""
    return best_precision(devices_of(computes_on)) if precision == "auto" else precision


@functools.cache
def local_gpus() -> tuple[Gpu, ...]:
    """GPUs of this machine that torch can use here."""
    if sys.platform == "linux" and not any(Path(path).exists() for path in GPU_FILES):
        return ()
    # Ray hides the GPUs of a node from tasks that reserve none.
    environment = {name: value for name, value in os.environ.items() if value or name not in _VISIBLE}
    listed = subprocess.run(
        [sys.executable, "-P", "-c", _LIST_GPUS], env=environment, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        return ()
    return tuple(Gpu(name, major) for name, major in json.loads(listed.stdout.splitlines()[-1]))


def ask_cluster() -> list[Device]:
    """Devices of the Ray cluster's nodes that workers can run on: its GPUs, if it has any, else the processors.

    One node of each kind of accelerator is asked, or every node if Ray does not know the kinds. The tasks reserve
    nothing, so that a busy cluster answers too.

    Raises:
        EnvironmentProblem: if the cluster cannot be reached, a node does not answer, or torch cannot use a node's GPUs.
    """
    ensure_ray()
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    gpus = cluster_has_gpus()
    nodes = nodes_to_ask(ray.nodes(), "GPU" if gpus else "CPU")
    tasks = [
        ray.remote(_devices_of_node)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(gpus)
        for node in nodes
    ]
    try:
        answers: list[list[Device]] = ray.get(tasks, timeout=ASK_SECONDS)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise EnvironmentProblem(
            f"the nodes of the Ray cluster at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')} did not tell which precision "
            f"they multiply fast ({reason}); set bf16, fp16 or fp32 where the config has precision: auto"
        ) from error
    for node, answer in zip(nodes, answers, strict=True):
        if not answer:
            raise EnvironmentProblem(
                f"the node {node['NodeManagerAddress']} offers {node['Resources']['GPU']:g} GPUs to Ray, but torch can "
                "use none there; install a build of torch for them, or start Ray there with --num-gpus=0"
            )
    return [device for answer in answers for device in answer]


def nodes_to_ask(nodes: Iterable[Mapping[str, Any]], resource: str) -> list[Mapping[str, Any]]:
    """One living node with the resource for each kind of accelerator, and every such node of no known kind.

    Args:
        nodes: as `ray.nodes()` returns them.
        resource: "GPU" or "CPU".
    """
    kinds: dict[str, Mapping[str, Any]] = {}
    for node in nodes:
        resources = node["Resources"]
        if node["Alive"] and resources.get(resource, 0) > 0:
            accelerators = sorted(name for name in resources if name.startswith("accelerator_type:"))
            known = accelerators if resource == "GPU" else []
            kinds.setdefault(" ".join(known) or node["NodeID"], node)
    return list(kinds.values())


def _devices_of_node(gpus: bool) -> list[Device]:
    return list(local_gpus()) if gpus else [Processor(hardware.has_fast_bf16())]
