"""Plain Python values as JSON, which can contain nothing but data.

Scalars of JSON are sent as they are, other values as a list [tag, ...]: those of the built-in types and of the standard
library's (`standard_values`). An instance of a subclass (IntEnum, a program's own list) is sent as its base type, so
that no `__eq__` of a candidate decides a test. Nothing is unpickled. An object that is not a plain value stays in its
process and is sent as a reference, by number (an object that a call returned) or by name (a global of the program).
"""

from collections.abc import Callable
from typing import Any

from infra.sandbox.inside.standard_values import named_tuple, parts_of, rebuilt

Reference = int | str


def encode(value: Any, reference: Callable[[Any], Reference]) -> Any:
    """JSON form of `value`; `reference` names an object that is not plain data, or raises.

    Raises:
        RecursionError: for a value that is nested too deeply or contains itself.
    """
    if value is None or value is True or value is False:
        return value
    for kind, encoded in SCALARS:
        if isinstance(value, kind):
            return encoded(value)
    if type(value) not in EXACT:
        standard = parts_of(value, lambda part: encode(part, reference))
        if standard is not None:
            return standard
    for tag, kind in SEQUENCES.items():
        if isinstance(value, kind):
            return [tag, [encode(item, reference) for item in kind.__iter__(value)]]
    if isinstance(value, dict):
        pairs = dict.items(value)
        return ["dict", [[encode(key, reference), encode(item, reference)] for key, item in pairs]]
    if isinstance(value, type) and TYPES.get(value.__name__) is value:
        return ["type", value.__name__]
    return ["reference", reference(value)]


def decode(
    data: Any,
    resolve: Callable[[Reference], Any],
    named: Callable[[str, tuple[str, ...]], Any] = named_tuple,
) -> Any:
    """Inverse of `encode`.

    Args:
        data: JSON form of a value.
        resolve: returns the object of a reference.
        named: returns the class of a named tuple from its name and fields.

    Raises:
        Exception: of many types, for data that `encode` does not write.
    """
    if not isinstance(data, list):
        return data

    def part(inner: Any) -> Any:
        return decode(inner, resolve, named)

    tag, *rest = data
    if tag == "reference":
        return resolve(rest[0])
    if tag in SEQUENCES:
        return SEQUENCES[tag](part(item) for item in rest[0])
    if tag == "dict":
        return {part(key): part(item) for key, item in rest[0]}
    return REBUILT[tag](*rest) if tag in REBUILT else rebuilt(tag, rest, part, named)


def _integer(value: int) -> Any:
    plain = int.__index__(value)
    # Python reads decimal numbers up to 4,300 digits, hexadecimal ones without limit.
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
EXACT = frozenset({list, tuple, set, frozenset, dict})
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
