"""JSON values as records.

- `DECODER`: the decoder of the json module, which marks objects whose names repeat
- `records_in`: the objects of a value that are records: itself, its elements, or those of a list inside it
- `record`: record of an object
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stages.ingest.config import SourceConfig
from stages.ingest.record_fields import described, field_value, record_of
from stages.ingest.records import Failure, Record


class Ambiguous(dict[str, Any]):
    """An object with a name that occurs twice, with different values."""

    name: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    repeated = [name for name, value in pairs if values[name] != value]
    if not repeated:
        return values
    ambiguous = Ambiguous(values)
    ambiguous.name = repeated[0]
    return ambiguous


def _integer(digits: str) -> int | str:
    """Number; its digits if they are more than Python converts."""
    try:
        return int(digits)
    except ValueError:
        return digits


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def records_in(value: Any, source: SourceConfig) -> list[Any]:
    """The elements of a list with objects; of an object without text, those of all lists of objects with text in it,
    as in `{"data": [...]}`; else the value itself."""
    if isinstance(value, list):
        return value if any(isinstance(element, Mapping) for element in value) else [value]
    if not isinstance(value, Mapping) or isinstance(field_value(value, source.fields.text), str):
        return [value]
    return [element for elements in _lists(value, source) for element in elements] or [value]


def record(value: Any, position: int, source: SourceConfig) -> Record | Failure | None:
    """Record of an object; a failure for other values, or if a name of it occurs twice with different values."""
    if not isinstance(value, Mapping):
        return Failure(position, "not_an_object", f"{described(value)}, not an object")
    if isinstance(value, Ambiguous):
        return Failure(position, "repeated_field", f"field {value.name!r} occurs twice, with different values")
    return record_of(value, position, source)


def _lists(value: Mapping[str, Any], source: SourceConfig) -> Iterator[list[Any]]:
    for inner in value.values():
        if isinstance(inner, Mapping):
            yield from _lists(inner, source)
        elif isinstance(inner, list) and inner and isinstance(field_value(inner[0], source.fields.text), str):
            yield inner
