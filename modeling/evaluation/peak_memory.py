"""Most bytes of tensors that live at once while a piece of work runs, counted exactly instead of read off the process.

A process's own peak has megabytes of noise from allocator and interpreter, more than a small network takes.
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


def peak_tensor_bytes(work: Callable[[], object]) -> int:
    """Most bytes of the tensors made during `work` that live at once; memory inside one kernel does not show."""
    counter = _LiveBytes()
    with counter:
        work()
    return counter.peak


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _key(leaf) not in given:
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        key, storage = _key(tensor), tensor.untyped_storage()
        if key in self._known:
            return
        self._known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
