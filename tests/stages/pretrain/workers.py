"""Training on several gloo processes, for tests: a layout's losses beside one process's."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
import torch.multiprocessing

from modeling.optimizer import build_adamw
from modeling.training_step import training_step
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.pretrain.layout import ParallelLayout, places_of
from stages.pretrain.shared_network import SharedNetwork

NETWORK = {"layers": 4, "width": 32, "heads": 4, "feed_forward_width": 64, "context_length": 16, "vocabulary_size": 50}
ROWS = 8


def batches(steps: int, seed: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = torch.randint(
        1, NETWORK["vocabulary_size"], (steps, ROWS, NETWORK["context_length"] + 1), generator=generator
    )
    ends = torch.rand(made.shape, generator=generator) < 0.05
    return list(made.masked_fill(ends, 0))


def train_alone(config: dict[str, Any], steps: int, precision: str = "fp32") -> list[tuple[float, float]]:
    """(loss, gradient norm) of each step on one process."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(**config)).train()
    optimizer = build_adamw(model, 1e-2, (0.9, 0.95), 0.1)
    results = [training_step(model, optimizer, [batch], 1e-2, 1.0, precision, 1e-3) for batch in batches(steps)]
    return [(result.loss, result.gradient_norm) for result in results]


def train_together(
    folder: Path,
    layout: dict[str, Any],
    workers: int,
    config: dict[str, Any],
    steps: int,
    micro_batch: int | None = None,
) -> list[tuple[float, float]]:
    """The same, on `workers` processes in a layout."""
    order = {"layout": layout, "workers": workers, "config": config, "steps": steps, "micro_batch": micro_batch}
    torch.multiprocessing.spawn(_worker, (str(folder), order), nprocs=workers)
    return torch.load(folder / "results.pt")


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
    optimizer = build_adamw(network.module, 1e-2, (0.9, 0.95), 0.1)
    results = []
    for batch in batches(order["steps"]):
        own = batch.chunk(places.batch_ranks)[network.mesh.batch_rank]
        pieces = list(own.split(micro_batch))
        result = training_step(network.module, optimizer, pieces, 1e-2, 1.0, "fp32", 1e-3, network.gradients)
        results.append((network.mean(result.loss), result.gradient_norm))
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    distributed.destroy_process_group()
