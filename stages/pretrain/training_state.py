"""State of a training process, with tensor names that are the same in every layout.

`model.<parameter>`, `optimizer.<parameter>.<moment>` and `average.<parameter>`: those that the process holds, as plain
tensors or DTensors, so that torch.distributed.checkpoint can write them in one layout and read them in another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modeling.training.loss_scale import LossScale
from modeling.training.weight_averaging import ExponentialAverage
from modeling.transformer import Transformer
from stages.pretrain.loss_spikes import SpikeWindow
from stages.pretrain.parallel.worker_network import WorkerNetwork


@dataclass
class TrainingState:
    """Network, optimizer and progress, as a checkpoint saves them."""

    network: WorkerNetwork
    optimizer: Optimizer
    average: ExponentialAverage | None = None
    loss_scale: LossScale | None = None
    step: int = 0
    """Optimizer steps taken, skipped ones included."""
    rows: int = 0
    """Position in the data order: rows read or skipped; rewinds skip rows."""
    losses: list[float] = field(default_factory=list)
    """Losses of the steps since the last row of the log."""
    spikes: SpikeWindow = field(default_factory=SpikeWindow)
    """Recent steps that the next one is compared with."""
    rewinds: int = 0
    """Rewinds so far."""

    def __post_init__(self) -> None:
        """Create the optimizer's tensors, zero as before its first step, so that a checkpoint can be read into them."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        for _, parameter in named_parameters(self.network):
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for tensors in self.optimizer.state.values():
            for tensor in tensors.values():
                if isinstance(tensor, Tensor):
                    tensor.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Views of all tensors by name."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in named_parameters(self.network):
            tensors[f"model.{name}"] = parameter.detach()
            for moment, tensor in self.optimizer.state[parameter].items():
                if isinstance(tensor, Tensor):
                    tensors[f"optimizer.{name}.{moment}"] = tensor
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.state.items()}
        return tensors


def named_parameters(network: WorkerNetwork) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of this worker's part, by their names in the whole network."""
    for module in network.networks:
        assert isinstance(module, Transformer)
        yield from module.named_parameters()
