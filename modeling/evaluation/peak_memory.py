"""Peak memory of live tensors during a computation, counted exactly instead of measured for the process.

A process's peak memory has megabytes of noise from allocator and interpreter, more than a small network needs.
"""

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of a network's parameters and buffers; shared ones count once."""
    storages = {tensor.untyped_storage() for tensor in model.state_dict().values()}
    return sum(storage.nbytes() for storage in storages)


def peak_tensor_bytes(work: Callable[[], object], preparation: Callable[[], object] = lambda: None) -> int:
    """Peak bytes of the tensors that live during `work` and were made in it or in `preparation`, which runs before.

    Memory inside a kernel is not counted.
    """
    counter = _LiveBytes()
    with counter:
        preparation()
        counter.peak = counter.live
        work()
    return counter.peak


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _key(leaf) not in inputs:
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        key, storage = _key(tensor), tensor.untyped_storage()
        if key in self._counted:
            return
        self._counted.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.live -= size


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
