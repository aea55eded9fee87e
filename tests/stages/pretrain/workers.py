"""Training on several gloo processes, for tests: a layout's losses beside one process's."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
import torch.multiprocessing

from infra.store.filesystem import Folder
from modeling.training.optimizer import build_optimizer
from modeling.training.step import training_step
from modeling.transformer_config import TransformerConfig
from stages.pretrain.checkpoints import Checkpoints
from stages.pretrain.parallel.layout import ParallelLayout, worker_layout
from stages.pretrain.parallel.worker_network import WorkerNetwork
from stages.pretrain.training_state import TrainingState

NETWORK = {"layers": 4, "width": 32, "heads": 4, "feed_forward_width": 64, "context_length": 16, "vocabulary_size": 50}
ROWS = 8
Results = list[tuple[float, float]]


def batches(steps: int, seed: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (ROWS, NETWORK["context_length"] + 1)
    return [
        torch.randint(1, NETWORK["vocabulary_size"], shape, generator=generator).masked_fill(
            torch.rand(shape, generator=generator) < 0.05, 0
        )
        for _ in range(steps)
    ]


def train_alone(
    config: dict[str, Any], steps: int, kind: str = "adamw", folder: Path | None = None, save_every: int = 0
) -> Results:
    """(loss, gradient norm) of each step on one process, from the newest checkpoint in `folder` if there is one."""
    torch.manual_seed(0)
    network = WorkerNetwork.alone(TransformerConfig(**config), torch.device("cpu"))
    return _train(network, ROWS, steps, kind, folder, save_every)


@dataclass(frozen=True)
class Together:
    """Training on several processes."""

    layout: dict[str, Any]
    workers: int
    config: dict[str, Any]
    steps: int
    micro_batch: int | None = None
    kind: str = "adamw"
    save_every: int = 0
    resume: bool = False


def train_together(folder: Path, together: Together) -> Results:
    """As `train_alone`, in a layout; checkpoints in `folder`."""
    return train_all(folder, {"case": together})["case"]


def train_all(folder: Path, cases: Mapping[str, Together]) -> dict[str, Results]:
    """Several layouts of the same number of workers, run in turn in the same processes, which take seconds to start."""
    [workers] = {case.workers for case in cases.values()}
    with tempfile.TemporaryDirectory(dir=folder) as meetings:  # a file of an earlier meeting would mislead a later one
        torch.multiprocessing.spawn(_worker, (str(folder), meetings, dict(cases)), nprocs=workers)
    results: dict[str, Results] = torch.load(folder / "results.pt")
    return results


def _worker(rank: int, folder: str, meetings: str, cases: dict[str, Together]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    results = {}
    for number, (name, case) in enumerate(cases.items()):
        distributed.init_process_group(
            "gloo", init_method=f"file://{meetings}/{number}", rank=rank, world_size=case.workers
        )
        results[name] = _train_case(case, folder)
        distributed.destroy_process_group()
        if rank == 0:
            torch.save(results, f"{folder}/results.pt")


def _train_case(case: Together, folder: str) -> Results:
    config = TransformerConfig(**case.config)
    layout = worker_layout(ParallelLayout(**case.layout), case.workers, config)
    rows = ROWS // layout.batch_ranks
    micro_batch = case.micro_batch or rows
    torch.manual_seed(0)
    network = WorkerNetwork.build(config, layout, torch.device("cpu"), micro_batch, rows // micro_batch)
    kept = Path(folder) if case.save_every or case.resume else None
    return _train(network, micro_batch, case.steps, case.kind, kept, case.save_every)


def _train(
    network: WorkerNetwork, micro_batch: int, steps: int, kind: str, folder: Path | None, save_every: int
) -> Results:
    state = TrainingState(network, build_optimizer(network.module, kind, 1e-2, (0.9, 0.95), 0.1, 0.9))
    rank = distributed.get_rank() if network.mesh else 0
    store = Checkpoints(Folder(f"{folder}/checkpoints"), rank, {}, set) if folder else None
    if store:
        store.restore(state)
    results = []
    for batch in batches(steps)[state.step :]:
        own = batch.chunk(network.mesh.layout.batch_ranks)[network.batch_rank] if network.mesh else batch
        micro_batches = list(own.split(micro_batch))
        result = training_step(
            network.module, state.optimizer, micro_batches, 1e-2, 1.0, "fp32", 1e-3, network.gradients
        )
        results.append((network.all_reduce(result.loss)[0], result.gradient_norm))
        state.step += 1
        if store and save_every and state.step % save_every == 0:
            store.save(state)
    if store:
        store.wait()
    return results
