"""Plain Python values as JSON that both ends can trust to hold nothing but data.

Scalars that JSON has go as they are; what it lacks is a list [tag, ...]. An instance of a subclass (namedtuple,
Counter, IntEnum) goes as its base type, so that no `__eq__` of a candidate ever judges a test. What is no plain value
stays where it is and goes as a reference, by number (an object that a call gave) or by name (a global of the program).
"""

from collections.abc import Callable
from typing import Any

Reference = int | str


def encode(value: Any, reference: Callable[[Any], Reference]) -> Any:
    """JSON form of `value`; `reference` names what is not plain data, or raises.

    Raises:
        RecursionError: for a value that is nested too deeply or holds itself.
    """
    if value is None or value is True or value is False:
        return value
    for kind, encoded in SCALARS:
        if isinstance(value, kind):
            return encoded(value)
    for tag, kind in SEQUENCES.items():
        if isinstance(value, kind):
            return [tag, [encode(item, reference) for item in kind.__iter__(value)]]
    if isinstance(value, dict):
        pairs = dict.items(value)
        return ["dict", [[encode(key, reference), encode(item, reference)] for key, item in pairs]]
    if isinstance(value, type) and TYPES.get(value.__name__) is value:
        return ["type", value.__name__]
    return ["reference", reference(value)]


def decode(data: Any, resolve: Callable[[Reference], Any]) -> Any:
    """The value that `encode` was given; `resolve` gives what a reference stands for.

    Raises:
        Exception: of many kinds, for what `encode` never writes.
    """
    if not isinstance(data, list):
        return data
    tag, *rest = data
    if tag == "reference":
        return resolve(rest[0])
    if tag in SEQUENCES:
        return SEQUENCES[tag](decode(item, resolve) for item in rest[0])
    if tag == "dict":
        return {decode(key, resolve): decode(item, resolve) for key, item in rest[0]}
    return REBUILT[tag](*rest)


def _integer(value: int) -> Any:
    plain = int.__index__(value)
    # JSON's decimal numbers stop at 4,300 digits in Python, hexadecimal ones do not.
    return plain if -(2**63) <= plain < 2**63 else ["int", hex(plain)]


def _complex(value: complex) -> Any:
    plain = complex.__complex__(value)
    return ["complex", plain.real, plain.imag]


# The methods of the base types, not of the value: a subclass may have others.
SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, _integer),
    (float, float.__float__),
    (complex, _complex),
    (bytes, lambda value: ["bytes", bytes.hex(value)]),
    (bytearray, lambda value: ["bytearray", bytearray.hex(value)]),
    (range, lambda value: ["range", value.start, value.stop, value.step]),
    (type(...), lambda value: ["..."]),
)
SEQUENCES: dict[str, Any] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
KINDS = (bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict, range, type(None))
TYPES: dict[str, type] = {kind.__name__: kind for kind in KINDS}
REBUILT: dict[str, Callable[..., Any]] = {
    "int": lambda text: int(text, 16),
    "complex": complex,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "range": range,
    "...": lambda: ...,
    "type": TYPES.__getitem__,
}
