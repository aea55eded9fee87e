"""From a record's fields, as the file names them, to a `Record`."""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.ingest.config import FieldName, SourceConfig
from stages.ingest.records import Failure, Record

SHOWN_FIELDS = 12


def record_of(values: Mapping[str, Any], position: int, source: SourceConfig) -> Record | Failure | None:
    """The document that a JSON object or a row of a table holds; None where `where` leaves it to other sources.

    Fields that are missing or null are left out; numbers and dates become text, as do nested values that are kept.
    """
    if any(plain(field_value(values, name)) not in wanted for name, wanted in source.where.items()):
        return None
    names = source.fields
    text = field_value(values, names.text)
    if not isinstance(text, str):
        found = "missing" if text is None else f"a {type(text).__name__}"
        shown = ", ".join(list(map(str, values))[:SHOWN_FIELDS])
        return Failure(position, "no_text", f"field {names.text!r} is {found}; the record has: {shown}")
    found_date = plain(field_value(values, names.date))
    date = found_date if found_date and is_iso_date(found_date) else None
    more = {name: plain(field_value(values, name)) for name in source.keep}
    more["title"] = plain(field_value(values, names.title))
    more["date"] = None if date else found_date
    return Record(
        position,
        text,
        id=plain(field_value(values, names.id)),
        source=plain(field_value(values, names.source)),
        genre=plain(field_value(values, names.genre)),
        language=plain(field_value(values, names.language)),
        url=plain(field_value(values, names.url)),
        licence=plain(field_value(values, names.licence)),
        date=date,
        metadata={name: value for name, value in more.items() if value},
    )


def top_level_columns(names: Sequence[str], source: SourceConfig) -> list[str]:
    """Those of a table's columns that hold a wanted field."""
    mapped = [name for name in source.fields.model_dump().values() if name is not None]
    wanted = [str(name) for name in (*mapped, *source.keep, *source.where)]
    return [name for name in names if any(one == name or one.startswith(f"{name}.") for one in wanted)]


def field_value(values: Any, name: FieldName | None) -> Any:
    """The value of a field; dots lead into nested objects where there is no field of the whole name."""
    if name is None or not isinstance(values, Mapping):
        return None
    if name in values or "." not in str(name):
        return values.get(name)
    outer, inner = str(name).split(".", 1)
    return field_value(values.get(outer), inner)


def plain(value: Any) -> str | None:
    """A value as text: ISO 8601 for dates, JSON for nested values; None for what is empty."""
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, datetime.date | datetime.datetime):
        return value.isoformat()
    if isinstance(value, Mapping | list | tuple | bool):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def is_iso_date(text: str) -> bool:
    """Whether it is ISO 8601: a date, a date with a time, a year, or a year and a month."""
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return re.fullmatch(r"\d{4}(-\d\d)?", text, re.ASCII) is not None
    return True
