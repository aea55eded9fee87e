"""Training on several gloo processes, for tests: a layout's losses beside one process's."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
import torch.multiprocessing

from infra.filesystem import Folder
from modeling.optimizer import build_optimizer
from modeling.training_step import training_step
from modeling.transformer_config import TransformerConfig
from stages.pretrain.checkpoints import Checkpoints
from stages.pretrain.layout import ParallelLayout, places_of
from stages.pretrain.shared_network import SharedNetwork
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
    network = SharedNetwork.alone(TransformerConfig(**config), torch.device("cpu"))
    return _train(network, ROWS, steps, kind, folder, save_every)


def train_together(
    folder: Path,
    layout: dict[str, Any],
    workers: int,
    config: dict[str, Any],
    steps: int,
    micro_batch: int | None = None,
    **more: Any,
) -> Results:
    """The same, on `workers` processes in a layout; `kind` and `save_every` as above, checkpoints in `folder`."""
    order = {"layout": layout, "workers": workers, "config": config, "steps": steps, "micro_batch": micro_batch, **more}
    (folder / "meeting").unlink(missing_ok=True)
    torch.multiprocessing.spawn(_worker, (str(folder), order), nprocs=workers)
    results: Results = torch.load(folder / "results.pt")
    return results


def _worker(rank: int, folder: str, order: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=order["workers"]
    )
    config = TransformerConfig(**order["config"])
    places = places_of(ParallelLayout(**order["layout"]), order["workers"], config)
    rows = ROWS // places.batch_ranks
    micro_batch = order["micro_batch"] or rows
    torch.manual_seed(0)
    network = SharedNetwork.build(config, places, torch.device("cpu"), micro_batch, rows // micro_batch)
    save_every = order.get("save_every", 0)
    kept = Path(folder) if save_every or order.get("resume") else None
    results = _train(network, micro_batch, order["steps"], order.get("kind", "adamw"), kept, save_every)
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    distributed.destroy_process_group()


def _train(
    network: SharedNetwork, micro_batch: int, steps: int, kind: str, folder: Path | None, save_every: int
) -> Results:
    state = TrainingState(network, build_optimizer(network.module, kind, 1e-2, (0.9, 0.95), 0.1, 0.9))
    rank = distributed.get_rank() if network.mesh else 0
    store = Checkpoints(Folder(f"{folder}/checkpoints"), rank, {}, set) if folder else None
    if store:
        store.restore(state)
    results = []
    for batch in batches(steps)[state.step :]:
        own = batch.chunk(network.mesh.places.batch_ranks)[network.batch_rank] if network.mesh else batch
        pieces = list(own.split(micro_batch))
        result = training_step(network.module, state.optimizer, pieces, 1e-2, 1.0, "fp32", 1e-3, network.gradients)
        results.append((network.agree(result.loss)[0], result.gradient_norm))
        state.step += 1
        if store and save_every and state.step % save_every == 0:
            store.save(state)
    if store:
        store.wait()
    return results
