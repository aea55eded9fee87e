"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) for matrices, whole or sharded.

- `Muon`: the optimizer
- `muon_update`: an update divided by the learning rate
- `orthogonalize`: the Newton-Schulz iteration

torch.optim.Muon (2.13) is not used. It always iterates in bfloat16, which CPUs emulate: 450 ms for a matrix (768, 256)
against 35 ms in float32 on one core. And it iterates on DTensors directly, with collectives in every product: after 3
steps of small matrices on two processes, weights differed by up to a fifth of their change on a single process. Here a
matrix is gathered, and every process that has a part of it orthogonalizes the whole: with FSDP shards the update was
bitwise equal to a single process's, with tensor parallelism within 1e-7.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5 (Jordan): steep at 0, so that small singular values grow fast, inexact near 1."""
STEPS = 5
"""Iterations (Jordan); singular values above 0.0015 of the Frobenius norm are then between 0.68 and 1.21."""
RMS = 0.2
"""Root mean square of an update divided by the learning rate, as AdamW's in training (2502.16982, section 2.2)."""


class Muon(torch.optim.Optimizer):
    """Nearly orthogonalized Nesterov momentum, scaled to AdamW's root mean square (Moonlight, 2502.16982, section 2.2).

    Therefore learning rate and decoupled weight decay can be those of AdamW. The state of a parameter is a
    `momentum_buffer` of its shape, half of AdamW's state. Processes that share matrices step them in the same order.

    A group may have the `head_width` of matrices with rows of query, key and value head by head, which are then treated
    as three matrices. As a single matrix the loss was 0.03 to 0.08 nats higher, of about 1.8 (bytes of Python's help,
    width 64 and 128, 150 steps, four seeds); separate matrices per head were no better than a single one.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]] | Iterable[Tensor], lr: float, momentum: float, weight_decay: float
    ) -> None:
        """Create for `params`, each (rows, columns); gradients are Tensors or DTensors as their parameters.

        Raises:
            ValueError: if a parameter is not a matrix.
        """
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "head_width": 0})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(
                        f"Muon: a parameter has the shape {tuple(parameter.shape)}; accepted are only matrices, "
                        "use AdamW for others"
                    )

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update each parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[parameter], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        update = muon_update(_gathered(gradient.lerp(buffer, momentum)), group["head_width"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(_cut_like(parameter, update), alpha=-group["lr"])


def muon_update(direction: Tensor, head_width: int = 0) -> Tensor:
    """Update divided by the learning rate: orthogonalized, with the root mean square `RMS`.

    Args:
        direction: (rows, columns), gathered.
        head_width: rows of each query, key and value in turn; 0 for a single matrix.

    Returns:
        Tensor like `direction`. The root mean square is smaller if the rank is below the shorter side.
    """
    if not head_width:
        # An orthogonal matrix has the mean square 1 / max(rows, columns).
        return orthogonalize(direction) * (RMS * math.sqrt(max(direction.shape)))
    matrices = direction.reshape(-1, 3, head_width, direction.shape[1]).unbind(1)
    updates = [muon_update(matrix.flatten(0, 1)).view_as(matrix) for matrix in matrices]
    return torch.stack(updates, dim=1).flatten(0, 2)


def orthogonalize(matrix: Tensor) -> Tensor:
    """The matrix with its singular values near 1: approximately U V' of its decomposition U S V'.

    Args:
        matrix: (rows, columns), gathered. On CUDA the products are in bfloat16, as Jordan's; elsewhere in float32.

    Returns:
        Tensor like `matrix`; zeros for zeros.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix  # Gram matrices of the shorter side are cheaper
    x = x / x.norm().clamp(min=torch.finfo(x.dtype).tiny)
    x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)


def _gathered(matrix: Tensor) -> Tensor:
    return matrix.full_tensor() if isinstance(matrix, DTensor) else matrix


def _cut_like(parameter: Tensor, whole: Tensor) -> Tensor:
    """This process's part of a tensor that all processes have, without communication."""
    if not isinstance(parameter, DTensor):
        return whole
    mesh = parameter.device_mesh
    replicated = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=parameter.placements)
