"""States of analyses as bytes, without pickle: JSON for the structure, and the arrays one after another.

- `encode`, `decode`

Arrays of integers are stored in the narrowest type that holds their values, and read as the type that they had.
"""

import json
from typing import Any

import numpy as np

from stages.profile.analysis import State

_LENGTH_BYTES = 8
_PLAIN = frozenset({str, int, float, bool, type(None)})


def encode(state: State) -> bytes:
    """Bytes of a state of dicts with string keys, lists, tuples (read as lists), strings, numbers, None and arrays."""
    arrays: list[bytes] = []
    structure = json.dumps(_structure(state, arrays), separators=(",", ":")).encode()
    return b"".join([len(structure).to_bytes(_LENGTH_BYTES, "little"), structure, *arrays])


def decode(data: bytes) -> State:
    """The state; its arrays may be written to."""
    begin = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    return _Reader(data, begin).value(json.loads(data[_LENGTH_BYTES:begin]))


def _structure(value: Any, arrays: list[bytes]) -> Any:
    """JSON in which a list begins with what it is, so that no content can look like another.

    What is `plain` holds scalars alone, such as the texts of thousands of types: it is read without a call for each.
    """
    if isinstance(value, np.ndarray):
        assert value.dtype.kind in "biuf", f"arrays of {value.dtype} are no part of a state"
        stored = np.ascontiguousarray(_narrowed(value))
        arrays.append(stored.tobytes())
        return ["array", value.dtype.str, stored.dtype.str, list(value.shape)]
    if isinstance(value, dict):
        assert all(isinstance(name, str) for name in value), "keys of a state are strings"
        if _PLAIN.issuperset(map(type, value.values())):
            return ["plain", value]
        return ["dict", {name: _structure(item, arrays) for name, item in value.items()}]
    if isinstance(value, list | tuple):
        if _PLAIN.issuperset(map(type, value)):
            return ["plain", value]
        return ["list", [_structure(item, arrays) for item in value]]
    if isinstance(value, np.generic):
        return value.item()
    assert value is None or isinstance(value, str | bool | int | float), f"{type(value)} is no part of a state"
    return value


def _narrowed(array: Any) -> Any:
    """Integers in the narrowest unsigned type that holds them."""
    if array.dtype.kind not in "iu" or not array.size or array.min() < 0:
        return array
    narrow = np.min_scalar_type(int(array.max()))
    return array.astype(narrow) if narrow.itemsize < array.dtype.itemsize else array


class _Reader:
    def __init__(self, data: bytes, begin: int) -> None:
        self._data, self._position = data, begin

    def value(self, structure: Any) -> Any:
        if not isinstance(structure, list):
            return structure
        kind, *content = structure
        if kind == "plain":
            return content[0]
        if kind == "dict":
            return {name: self.value(item) for name, item in content[0].items()}
        if kind == "list":
            return [self.value(item) for item in content[0]]
        dtype, stored, shape = content
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(self._data, np.dtype(stored), count, self._position)
        self._position += array.nbytes
        return array.astype(dtype).reshape(shape)
