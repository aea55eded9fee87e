"""FLOPs of a training step as torch's FlopCounterMode counts them, and its collectives and the bytes that they send.

- `StepCounter`: a mode that counts both on this process
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed.distributed_c10d import _resolve_process_group  # type: ignore[attr-defined]
from torch.distributed.tensor import DTensor
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode


class StepCounter(_FlopCounterMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of this process's part of each operation, its collectives and the bytes that they send.

    Ring algorithms: all-reduce 2 (n - 1) / n of its tensor, all-gather and reduce-scatter (n - 1) / n of the whole one.
    """

    def __init__(self, kinds: dict[str, str]) -> None:
        """Create with the kind of each process group by its name."""
        self._flops = FlopCounterMode(display=False)
        super().__init__(self._flops)
        self.kinds, self.sent, self.collectives = kinds, defaultdict[str, float](float), defaultdict[str, int](int)

    @property
    def flops(self) -> int:
        """FLOPs so far."""
        return int(self._flops.get_total_flops())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # DTensor computes on its local part, which comes here next
        if getattr(func, "namespace", "") not in ("c10d", "_c10d_functional"):
            return super().__torch_dispatch__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        name = func._opname.rstrip("_")
        if name in _SENT:
            group = next(own for own in map(_group, args) if own is not None)
            sent = _SENT[name](args, group.size(), group.rank())
            kind = "control" if _is_control(args) else _OPERATION_KINDS.get(name) or self.kinds[group.group_name]
            self.sent[kind] += sent
            self.collectives[kind] += sent > 0
        return func(*args, **(kwargs or {}))


def _group(argument: Any) -> distributed.ProcessGroup | None:
    """The process group that an argument of a collective is or names."""
    if isinstance(argument, distributed.ProcessGroup):
        return argument
    if isinstance(argument, torch.ScriptObject) and "ProcessGroup" in str(argument._type()):
        return distributed.ProcessGroup.unbox(argument)
    if isinstance(argument, str):
        with suppress(ValueError, KeyError, RuntimeError):
            return _resolve_process_group(argument)  # type: ignore[arg-type]
    return None


def _is_control(args: Any) -> bool:
    """Whether a call sends one or two numbers: a norm, a loss, a flag."""
    tensor = args[0] if isinstance(args[0], Tensor) else args[0][0]
    return isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel() <= 2


_OPERATION_KINDS = {"all_gather_into_tensor": "context", "reduce_scatter_tensor": "context"}
"""Kinds of operations whose group may also be another's: those of context parallelism are the only functional ones."""


def _bytes(tensors: Any) -> float:
    if isinstance(tensors, Tensor):
        return float(tensors.numel() * tensors.element_size())
    return sum(_bytes(tensor) for tensor in tensors)


def _all_reduce(args: Any, size: int, rank: int) -> float:
    return 2 * (size - 1) / size * _bytes(args[0])


def _gather(args: Any, size: int, rank: int) -> float:
    return (size - 1) * _bytes(args[0])


def _scatter(args: Any, size: int, rank: int) -> float:
    return (size - 1) / size * _bytes(args[0])


def _exchange(args: Any, size: int, rank: int, tensor: int = 0, splits: int = 2) -> float:
    if not (counts := args[splits]):
        return _scatter(args[tensor:], size, rank)
    return float(_bytes(args[tensor]) * (sum(counts) - counts[rank]) / max(sum(counts), 1))


_SENT: dict[str, Callable[[Any, int, int], float]] = {
    "allreduce": _all_reduce,
    "allreduce_coalesced": _all_reduce,
    "all_reduce": _all_reduce,
    "_allgather_base": lambda args, size, rank: _gather(args[1:], size, rank),
    "allgather": lambda args, size, rank: _gather(args[1:], size, rank),
    "allgather_into_tensor_coalesced": lambda args, size, rank: _gather(args[1:], size, rank),
    "all_gather_into_tensor": _gather,
    "all_gather_into_tensor_out": _gather,
    "_reduce_scatter_base": lambda args, size, rank: _scatter(args[1:], size, rank),
    "reduce_scatter": lambda args, size, rank: _scatter(args[1:], size, rank),
    "reduce_scatter_tensor_coalesced": lambda args, size, rank: _scatter(args[1:], size, rank),
    "reduce_scatter_tensor": _scatter,
    "alltoall_base": lambda args, size, rank: _exchange(args, size, rank, 1, 4),
    "all_to_all_single": _exchange,
    "broadcast": lambda args, size, rank: _bytes(args[0]),
    "send": lambda args, size, rank: _bytes(args[0]),
}
"""Bytes that an operation sends, by its arguments, the size of the group and this process's rank in it."""
