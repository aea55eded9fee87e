"""Training steps of any layout, measured: FLOPs, bytes sent by kind, peak memory, seconds.

- `TrainingCase`: a small network, its batch and layout
- `measure`: this process's `Measurement` of a few steps

The steps are those of `stages.pretrain.training_loop`; only data and callbacks are the benchmark's.
"""

import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as distributed
from torch._C._profiler import _EventType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.common.step_counter import StepCounter
from modeling.training.kinds import Precision
from modeling.training.optimizer import build_optimizer
from modeling.training.weight_averaging import ExponentialAverage
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.pretrain.batch_plan import plan_batches
from stages.pretrain.config import PretrainConfig
from stages.pretrain.parallel.worker_network import WorkerNetwork
from stages.pretrain.progress.training_log import LogRow
from stages.pretrain.training_job import TrainingJob
from stages.pretrain.training_loop import Callbacks, PretrainingLoop
from stages.pretrain.training_state import TrainingState

WARM_UP = 2
"""Steps before the first measured one; DistributedDataParallel rearranges its buckets in the second."""
TIMED = 7
MEASURED_STEP = "measured step"


@dataclass(frozen=True)
class TrainingCase:
    """Training of a small network on some processes."""

    name: str
    config: PretrainConfig
    vocabulary_size: int = 512

    @property
    def model(self) -> TransformerConfig:
        """The network with its vocabulary."""
        return TransformerConfig(**self.config.model.model_dump(), vocabulary_size=self.vocabulary_size)

    @property
    def precision(self) -> Precision:
        """Precision of matrix products."""
        assert self.config.precision != "auto"
        return self.config.precision

    @property
    def rows(self) -> int:
        """Rows of a global batch."""
        return self.config.batch_tokens // self.config.model.context_length


@dataclass(frozen=True)
class Measurement:
    """Figures of one process."""

    flops: int
    """FLOPs of a step."""
    sent: dict[str, float]
    """Bytes in a step by kind of process group."""
    collectives: dict[str, int]
    """Collectives in a step by kind."""
    peak_bytes: int
    """Most bytes of tensors at once in a step."""
    seconds: float
    """Median of the timed steps."""


def measure(case: TrainingCase, timed: int = TIMED) -> Measurement:
    """Train for a few steps; with several workers, called by each of them after `init_process_group`.

    Args:
        case: what to train.
        timed: steps that only the clock measures.
    """
    steps = _Steps(case, timed)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        steps.run()
    return Measurement(
        steps.counter.flops,
        dict(steps.counter.sent),
        dict(steps.counter.collectives),
        _peak_bytes(profiler),
        steps.seconds,
    )


class _Steps:
    """Steps of the training loop, with a measurement in each."""

    def __init__(self, case: TrainingCase, timed: int) -> None:
        steps = WARM_UP + 2 + timed
        self.case, self.config = case, case.config.model_copy(update={"tokens": steps * case.config.batch_tokens})
        self.plan = plan_batches(self.config)
        torch.manual_seed(self.config.seed)
        self._times: list[float] = []
        self._marker: Any = None
        self._math: Any = None

    @property
    def seconds(self) -> float:
        """Median of the timed steps."""
        return statistics.median(after - before for before, after in pairwise(self._times))

    def run(self) -> None:
        """Train."""
        config, plan = self.config, self.plan
        network = self._network()
        optimizer = build_optimizer(
            network.module, config.optimizer, config.peak_learning_rate, (config.beta1, config.beta2),
            config.weight_decay, config.momentum,
        )  # fmt: skip
        half_life = config.ensemble.half_life(plan.steps)
        average = ExponentialAverage(network.module, half_life) if half_life else None
        state = TrainingState(network, optimizer, average)
        self.counter = StepCounter(_group_kinds(network))
        job = TrainingJob(config, {config.workers: plan}, self.case.model, cast(Any, None), cast(Any, None))
        callbacks = Callbacks(
            log=self._after, sample=_nothing, event=_nothing, checkpoint=_nothing, rewind=lambda step: False
        )
        sampler: Any = _RandomRows(config.model.context_length + 1, self.case.vocabulary_size)
        PretrainingLoop(state, sampler, job, plan, callbacks).run()

    def _network(self) -> WorkerNetwork:
        def prepare(model: Transformer) -> None:
            model.recompute = self.config.recompute_activations

        device, plan = torch.device("cpu"), self.plan
        if not distributed.is_initialized():
            return WorkerNetwork.alone(self.case.model, device, prepare)
        return WorkerNetwork.build(self.case.model, plan.layout, device, plan.micro_batch, plan.accumulation, prepare)

    def _after(self, row: LogRow) -> None:
        """Begin and end the measurements of a step after the step before it."""
        if row.step == WARM_UP:
            self._marker = record_function(MEASURED_STEP)
            self._marker.__enter__()
        elif row.step == WARM_UP + 1:
            self._marker.__exit__(None, None, None)
            self._math = sdpa_kernel(SDPBackend.MATH)  # with which the counter sees attention's products
            self._math.__enter__()
            self.counter.__enter__()  # type: ignore[no-untyped-call]
        elif row.step == WARM_UP + 2:
            self.counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._math.__exit__(None, None, None)
        if row.step >= WARM_UP + 2:
            self._times.append(time.perf_counter())


def _nothing(*arguments: object) -> None:
    """Callback without effect."""


class _RandomRows:
    """Stands in for a `WindowSampler`."""

    def __init__(self, tokens: int, vocabulary: int) -> None:
        self.tokens, self.vocabulary = tokens, vocabulary

    def rows(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """Rows by position."""
        return np.random.default_rng(start).integers(1, self.vocabulary, (count, self.tokens))


def _group_kinds(network: WorkerNetwork) -> dict[str, str]:
    """Kind of each process group of this worker, by the group's name."""
    mesh = network.mesh
    if mesh is None:
        return {}
    groups = {name: mesh.grid[name].get_group() for name in ("pipeline", "data", "shard", "context", "tensor")}
    kinds = {group.group_name: name for name, group in groups.items()}
    kinds |= {mesh.parameters[name].get_group().group_name: kind for name, kind in _PARAMETER_GROUPS.items()}
    if mesh.experts is not None and mesh.expert_replicas is not None:
        kinds |= {mesh.experts.group_name: "expert", mesh.expert_replicas.group_name: "data"}
    ends = getattr(network.gradients, "_ends", None)
    return kinds | ({ends.group_name: "pipeline"} if ends is not None else {})


_PARAMETER_GROUPS = {"pipeline": "pipeline", "replicate": "data", "shard": "shard", "tensor": "tensor"}


def _peak_bytes(profiler: profile) -> int:
    """Most bytes at once during the measured step, of those that torch allocated since the profile began."""
    events = list(_events(profiler.profiler.kineto_results.experimental_event_tree()))  # type: ignore[union-attr]
    step = next(event for event in events if event.name == MEASURED_STEP)
    first, last = step.start_time_ns, step.start_time_ns + step.duration_time_ns
    sizes: dict[int, int] = {}
    live = peak = 0
    for event in sorted(_allocations(events), key=lambda event: event.start_time_ns):
        change = event.extra_fields
        if change.alloc_size > 0:
            live -= sizes.get(change.ptr, 0)  # freed by a thread that is not profiled
            sizes[change.ptr] = change.alloc_size
        elif sizes.pop(change.ptr, None) is None:
            continue  # allocated before
        live += change.alloc_size
        if first <= event.start_time_ns <= last:
            peak = max(peak, live)
    return peak


def _events(roots: Sequence[Any]) -> Iterator[Any]:
    pending = list(roots)
    while pending:
        event = pending.pop()
        yield event
        pending += event.children


def _allocations(events: Sequence[Any]) -> Iterator[Any]:
    return (event for event in events if event.tag == _EventType.Allocation)
