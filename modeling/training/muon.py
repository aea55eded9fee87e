"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) for matrices, whole or sharded.

- `Muon`: the optimizer
- `muon_update`: an update divided by the learning rate
- `orthogonalize`: the Newton-Schulz iteration

torch.optim.Muon (2.13) is not used. It always iterates in bfloat16, which CPUs emulate: 450 ms for a matrix (768, 256)
against 35 ms in float32 on one core. And it iterates on DTensors directly, with collectives in every product: after 3
steps of small matrices on two processes, weights differed by up to a fifth of their change on a single process. Here a
matrix is gathered and orthogonalized whole, each by one of the processes that have a part of it: with FSDP shards the
update was bitwise equal to a single process's, with tensor parallelism within 1e-7.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, overload

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5 (Jordan): steep at 0, so that small singular values grow fast, inexact near 1."""
STEPS = 5
"""Iterations (Jordan); singular values above 0.0015 of the Frobenius norm are then between 0.68 and 1.21."""
BATCH_NUMBERS = 2**22
"""Numbers in matrices that are orthogonalized together: a large matrix occupies the processor by itself."""
SHARED_NUMBERS = 2**29
"""Numbers in large matrices that are gathered together to be shared out: 2 GiB in float32, on every process."""
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
        self,
        params: Iterable[dict[str, Any]] | Iterable[Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        products: torch.dtype = torch.float32,
        sharers: distributed.ProcessGroup | None = None,
    ) -> None:
        """Create for `params`, each (rows, columns); gradients are Tensors or DTensors as their parameters.

        Args:
            params: parameters, or groups of them.
            lr: learning rate.
            momentum: decay rate of the mean gradient.
            weight_decay: decay per step, multiplied by the learning rate.
            products: dtype of the products of `orthogonalize`.
            sharers: processes with the same parameters, or parts of them, in the same order; each orthogonalizes some.

        Raises:
            ValueError: if a parameter is not a matrix.
        """
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "head_width": 0})
        self.products, self.sharers = products, sharers
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
            for alike in batches_of_equal_shape(group["params"], self._sharer_count):
                self._update(alike, group)
        return loss

    def _update(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        directions = torch.stack([_gathered(self._direction(parameter, group["momentum"])) for parameter in parameters])
        update = partial(muon_update, head_width=group["head_width"], products=self.products)
        for parameter, whole in zip(parameters, self._shared_out(update, directions), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(_cut_like(parameter, whole), alpha=-group["lr"])

    @property
    def _sharer_count(self) -> int:
        return 1 if self.sharers is None else distributed.get_world_size(self.sharers)

    def _shared_out(self, update: Callable[[Tensor], Tensor], directions: Tensor) -> Tensor:
        """`update` of all (matrices, rows, columns), of which this process computes its share; overwrites them."""
        if self.sharers is None:
            return update(directions)
        shares = directions.chunk(self._sharer_count)
        rank = distributed.get_rank(self.sharers)
        if rank < len(shares):
            shares[rank].copy_(update(shares[rank]))
        # Each from its process: a gather would need as many shares as processes, also for a single matrix.
        sent = [
            distributed.broadcast(share, group=self.sharers, group_src=source, async_op=True)
            for source, share in enumerate(shares)
        ]
        for work in sent:
            work.wait()
        return directions

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov momentum: the gradient, and the mean that contains it."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(buffer, momentum)


def muon_update(direction: Tensor, head_width: int = 0, products: torch.dtype = torch.float32) -> Tensor:
    """Update divided by the learning rate: orthogonalized, with the root mean square `RMS`.

    Args:
        direction: (..., rows, columns), gathered.
        head_width: rows of each query, key and value in turn; 0 for a single matrix.
        products: dtype of the products.

    Returns:
        Tensor like `direction`. The root mean square is smaller if the rank is below the shorter side.
    """
    if not head_width:
        # An orthogonal matrix has the mean square 1 / max(rows, columns).
        return orthogonalize(direction, products) * (RMS * math.sqrt(max(direction.shape[-2:])))
    by_kind = direction.view(*direction.shape[:-2], -1, 3, head_width, direction.shape[-1]).transpose(-4, -3)
    update = muon_update(by_kind.flatten(-3, -2), products=products).view_as(by_kind)
    return update.transpose(-4, -3).reshape(direction.shape)


def orthogonalize(matrices: Tensor, products: torch.dtype = torch.float32) -> Tensor:
    """The matrices with their singular values near 1: approximately U V' of each one's decomposition U S V'.

    Args:
        matrices: (..., rows, columns), gathered.
        products: dtype of the products; on CUDA they are in bfloat16, as Jordan's.

    Returns:
        Tensor like `matrices`; zeros for zeros.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices  # Gram matrices of the shorter side are cheaper
    x = x.reshape(-1, *x.shape[-2:])
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    x = x.to(torch.bfloat16 if x.is_cuda else products)
    is_exact = x.dtype != torch.bfloat16
    x = _iterated_by_gram(x) if is_exact and 2 * x.shape[1] <= x.shape[2] else _iterated(x)
    x = x.mT if is_tall else x
    return x.reshape(matrices.shape).to(matrices.dtype)


def _iterated(x: Tensor) -> Tensor:
    """`STEPS` times a x + b x x' x + c x x' x x' x, of (matrices, rows, columns)."""
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterated_by_gram(x: Tensor) -> Tensor:
    """The same, for matrices at least twice as wide as high, with two products of the longer side in all.

    A step multiplies x from the left by p(g) = a + b g + c g g of its Gram matrix g. What depends on g alone commutes:
    the next Gram matrix is p(g) g p(g), and x is multiplied once, by the product of all p. 3.2 ms in place of 6.4 for
    four matrices 512 x 128 on one core, equal up to 1e-6. Not in bfloat16, whose rounding of g exceeds the squares of
    small singular values.
    """
    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    product = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).expand_as(gram)
    for step in range(STEPS):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        product = torch.baddbmm(product, polynomial, product, beta=a)
        if step + 1 < STEPS:
            once = torch.baddbmm(gram, polynomial, gram, beta=a)
            gram = torch.baddbmm(once, once, polynomial, beta=a)
    return product @ x


def batches_of_equal_shape(parameters: Iterable[Tensor], sharers: int) -> Iterator[list[Tensor]]:
    """Parameters with a gradient, in order, by shape: many small ones at a time, of large ones one for each sharer."""
    alike: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            alike.setdefault(parameter.shape, []).append(parameter)
    for shape, group in alike.items():
        size = max(1, BATCH_NUMBERS // shape.numel(), min(sharers, SHARED_NUMBERS // shape.numel()))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _gathered(matrix: Tensor) -> Tensor:
    return matrix.full_tensor() if isinstance(matrix, DTensor) else matrix


def _cut_like(parameter: Tensor, whole: Tensor) -> Tensor:
    """This process's part of a tensor that all processes have, without communication."""
    if not isinstance(parameter, DTensor):
        return whole
    mesh = parameter.device_mesh
    replicated = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=parameter.placements)
