"""Values of the standard library as plain parts, and back; the classes are those of `KINDS` and no others.

- `parts_of`: [tag, *parts] of a value of these classes
- `rebuilt`: the value of a tag and its parts
- `named_tuple`: a class of tuples with named fields, made without running code

A value keeps its class (`Decimal(2)` stays a Decimal), but a subclass arrives as the class in `KINDS`, without the
methods that it defines. A module is imported only for a value that needs it.
"""

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from keyword import iskeyword
from operator import itemgetter
from typing import Any, NamedTuple

Part = Callable[[Any], Any]
"""Encodes or decodes a part of a value."""


class Kind(NamedTuple):
    """Functions that take the values of a class apart and rebuild them."""

    module: str
    parts: Callable[[Any, Any, Part], list[Any]]
    """(class, value, encoder of its parts) -> JSON values."""
    rebuild: Callable[..., Any]
    """(class, decoder of its parts, *JSON values) -> value."""


def _pairs(value: Any, part: Part) -> list[Any]:
    return [[part(key), part(item)] for key, item in dict.items(value)]


def _dict(pairs: Iterable[Any], part: Part) -> dict[Any, Any]:
    return {part(key): part(item) for key, item in pairs}


def _iso(cls: Any, value: Any, part: Part) -> list[Any]:
    return [cls.isoformat(value), getattr(value, "fold", 0)]


def _from_iso(cls: Any, part: Part, text: str, fold: int) -> Any:
    value = cls.fromisoformat(text)
    return value.replace(fold=fold) if fold else value


def _timezone(cls: Any, part: Part, seconds: int, microseconds: int) -> Any:
    return cls(sys.modules["datetime"].timedelta(seconds=seconds, microseconds=microseconds))


def _timezone_parts(cls: Any, value: Any, part: Part) -> list[Any]:
    offset = value.utcoffset(None)
    return [offset.days * 86_400 + offset.seconds, offset.microseconds]


# Subclasses before their base classes.
KINDS: dict[str, Kind] = {
    "Decimal": Kind("decimal", lambda cls, value, part: [cls.__str__(value)], lambda cls, part, text: cls(text)),
    "Fraction": Kind(
        "fractions",
        lambda cls, value, part: [hex(value.numerator), hex(value.denominator)],
        lambda cls, part, numerator, denominator: cls(int(numerator, 16), int(denominator, 16)),
    ),
    "datetime": Kind("datetime", _iso, _from_iso),
    "date": Kind("datetime", _iso, _from_iso),
    "time": Kind("datetime", _iso, _from_iso),
    "timedelta": Kind(
        "datetime",
        lambda cls, value, part: [value.days, value.seconds, value.microseconds],
        lambda cls, part, *numbers: cls(*numbers),
    ),
    "timezone": Kind("datetime", _timezone_parts, _timezone),
    "UUID": Kind("uuid", lambda cls, value, part: [value.hex], lambda cls, part, text: cls(text)),
    "array": Kind(
        "array",
        lambda cls, value, part: [value.typecode, [part(item) for item in cls.__iter__(value)]],
        lambda cls, part, typecode, items: cls(typecode, [part(item) for item in items]),
    ),
    "deque": Kind(
        "collections",
        lambda cls, value, part: [[part(item) for item in cls.__iter__(value)], value.maxlen],
        lambda cls, part, items, maxlen: cls((part(item) for item in items), maxlen),
    ),
    "Counter": Kind(
        "collections",
        lambda cls, value, part: [_pairs(value, part)],
        lambda cls, part, pairs: cls(_dict(pairs, part)),
    ),
    "OrderedDict": Kind(
        "collections",
        lambda cls, value, part: [_pairs(value, part)],
        lambda cls, part, pairs: cls(_dict(pairs, part)),
    ),
    "defaultdict": Kind(
        "collections",
        lambda cls, value, part: [_pairs(value, part), part(value.default_factory)],
        lambda cls, part, pairs, factory: cls(part(factory), _dict(pairs, part)),
    ),
}
COLLECTIONS: dict[str, type] = {
    "deque": deque, "Counter": Counter, "OrderedDict": OrderedDict, "defaultdict": defaultdict,
}  # fmt: skip
VIEWS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "dict_keys": (type({}.keys()), lambda items: dict.fromkeys(items).keys()),
    "dict_values": (type({}.values()), lambda items: dict(enumerate(items)).values()),
    "dict_items": (type({}.items()), lambda items: dict(items).items()),
}


def parts_of(value: Any, part: Part) -> list[Any] | None:
    """[tag, *parts] of a value of the standard library; None for other values."""
    for tag, kind in KINDS.items():
        cls = _class_in_use(tag, kind.module)
        if cls is not None and isinstance(value, cls):
            return [tag, *kind.parts(cls, value, part)]
    for tag, (view, _) in VIEWS.items():
        if type(value) is view:
            return [tag, [part(item) for item in value]]
    if isinstance(value, tuple) and isinstance(fields := getattr(type(value), "_fields", None), tuple):
        items = [part(item) for item in tuple.__iter__(value)]
        if len(items) == len(fields) and _are_fields(fields):
            return ["namedtuple", type(value).__name__, list(fields), items]
    if isinstance(value, type) and value.__name__ in KINDS:
        tag = value.__name__
        return ["standard type", tag] if _class_in_use(tag, KINDS[tag].module) is value else None
    return None


def rebuilt(tag: str, parts: list[Any], part: Part, named: "Callable[[str, tuple[str, ...]], Any]") -> Any:
    """Value of a tag and its parts; `named` returns the class of named tuples.

    Raises:
        Exception: of many types, for parts that `parts_of` does not write.
    """
    if tag == "standard type":
        (tag,) = parts
        return _class(tag, KINDS[tag].module)
    if tag == "namedtuple":
        name, fields, items = parts
        if len(fields) != len(items):
            raise ValueError(f"{len(items)} items for the fields {fields}")
        return tuple.__new__(named(str(name), tuple(map(str, fields))), [part(item) for item in items])
    if tag in VIEWS:
        return VIEWS[tag][1]([part(item) for item in parts[0]])
    kind = KINDS[tag]
    return kind.rebuild(_class(tag, kind.module), part, *parts)


@lru_cache(maxsize=256)
def named_tuple(name: str, fields: tuple[str, ...]) -> type:
    """Class of tuples whose items are attributes too, like a namedtuple's, which would compile code for it.

    Raises:
        ValueError: for fields that a namedtuple cannot have, among them all names with a leading underscore.
    """
    if not (name.isidentifier() and _are_fields(fields)):
        raise ValueError(f"{name!r} with fields {fields!r} is no named tuple")

    def represent(self: Any) -> str:
        return f"{name}({', '.join(f'{field}={item!r}' for field, item in zip(fields, self, strict=True))})"

    getters = {field: property(itemgetter(index)) for index, field in enumerate(fields)}
    as_dict: Callable[[Any], dict[str, Any]] = lambda self: dict(zip(fields, self, strict=True))  # noqa: E731
    return type(name, (tuple,), {**getters, "_fields": fields, "_asdict": as_dict, "__repr__": represent})


def _are_fields(fields: tuple[Any, ...]) -> bool:
    valid = all(isinstance(field, str) and field.isidentifier() and not iskeyword(field) for field in fields)
    return valid and len(set(fields)) == len(fields) and not any(field.startswith("_") for field in fields)


def _class(tag: str, module: str) -> Any:
    return COLLECTIONS.get(tag) or getattr(import_module(module), tag)


def _class_in_use(tag: str, module: str) -> Any:
    """The class if its module is imported; without it there is no value of it."""
    return COLLECTIONS.get(tag) or getattr(sys.modules.get(module), tag, None)
