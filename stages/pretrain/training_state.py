"""All tensors of a training process under names that are the same in every layout.

`model.<parameter>`, `optimizer.<parameter>.<moment>` and `average.<parameter>`: what a process has of them, whole or
as a DTensor, so that torch.distributed.checkpoint can write it in one layout and read it in another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modeling.training.loss_scale import LossScale
from modeling.training.weight_averaging import ExponentialAverage
from modeling.transformer import Transformer
from stages.pretrain.parallel.worker_network import WorkerNetwork


@dataclass
class TrainingState:
    """What a checkpoint keeps."""

    network: WorkerNetwork
    optimizer: Optimizer
    average: ExponentialAverage | None = None
    loss_scale: LossScale | None = None
    step: int = 0
    """Optimizer steps behind it, skipped ones included."""
    rows: int = 0
    """Rows of the data order behind it: more than those of the steps once a rewind has left some out."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last row of the log."""

    def __post_init__(self) -> None:
        """Make the optimizer's tensors, zero as before its first step, so that they can be read into."""
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
        """Views of all tensors."""
        found: dict[str, Tensor] = {}
        for name, parameter in named_parameters(self.network):
            found[f"model.{name}"] = parameter.detach()
            for moment, tensor in self.optimizer.state[parameter].items():
                if isinstance(tensor, Tensor):
                    found[f"optimizer.{name}.{moment}"] = tensor
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.average.state.items()}
        return found


def named_parameters(network: WorkerNetwork) -> Iterator[tuple[str, nn.Parameter]]:
    """Of all stages that are here, by the names that they have in the whole network."""
    for module in network.networks:
        assert isinstance(module, Transformer)
        yield from module.named_parameters()
