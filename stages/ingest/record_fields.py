"""Maps the fields of a file's records to a `Record`.

- `record_of`: record of a JSON object or a row of a table
- `described`: what a value is, for messages
- `iso_date`: date in free form as ISO 8601
"""

import datetime
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.ingest.config import FieldName, SourceConfig
from stages.ingest.records import Failure, Record, unix_line_ends

SHOWN_FIELDS = 12
_ISO_DATE = re.compile(r"\d{4}-\d\d(?:-\d\d)?")
_DATE_FORMS = (
    ("%B %d %Y", "%Y-%m-%d"), ("%d %B %Y", "%Y-%m-%d"), ("%d %b %Y", "%Y-%m-%d"), ("%b %d %Y", "%Y-%m-%d"),
    ("%B %Y", "%Y-%m"),
)  # fmt: skip


def record_of(values: Mapping[str, Any], position: int, source: SourceConfig) -> Record | Failure | None:
    """Record of a JSON object or a row of a table; None if `where` excludes it from this source.

    Missing and null fields are omitted; numbers, dates and nested values are converted to text.
    """
    if any(plain(field_value(values, name)) not in accepted for name, accepted in source.where.items()):
        return None
    names = source.fields
    text = field_value(values, names.text)
    if isinstance(text, bytes):  # a binary column of Parquet or Arrow
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            return Failure(position, "not_utf8", f"field {names.text!r}: {error.reason} at byte {error.start}")
    if not isinstance(text, str):
        problem = "missing" if _is_null(text) else f"{described(text)}, not a string"
        named = [name for name in values if isinstance(name, str)] or list(values)  # columns of CSV have numbers too
        fields = ", ".join(f"{name}{_container(values[name])}" for name in named[:SHOWN_FIELDS])
        return Failure(position, "no_text", f"field {names.text!r} is {problem}; the record has: {fields}")
    raw_date = plain(field_value(values, names.date))
    date = raw_date if raw_date and is_iso_date(raw_date) else None
    metadata = {name: plain(field_value(values, name)) for name in source.keep}
    metadata["title"] = plain(field_value(values, names.title))
    metadata["date"] = None if date else raw_date
    return Record(
        position,
        unix_line_ends(text),
        id=plain(field_value(values, names.id)),
        source=plain(field_value(values, names.source)),
        genre=plain(field_value(values, names.genre)),
        language=plain(field_value(values, names.language)),
        url=plain(field_value(values, names.url)),
        licence=plain(field_value(values, names.licence)),
        date=date,
        metadata={name: value for name, value in metadata.items() if value},
    )


def top_level_columns(names: Sequence[str], source: SourceConfig) -> list[str]:
    """Columns of a table that contain a configured field."""
    mapped = [name for name in source.fields.model_dump().values() if name is not None]
    fields = [str(name) for name in (*mapped, *source.keep, *source.where)]
    return [name for name in names if any(field == name or field.startswith(f"{name}.") for field in fields)]


def field_value(values: Any, name: FieldName | None) -> Any:
    """Value of a field; dots lead into nested objects if there is no field with the full name."""
    if name is None or not isinstance(values, Mapping):
        return None
    if name in values or "." not in str(name):
        return values.get(name)
    outer, inner = str(name).split(".", 1)
    return field_value(values.get(outer), inner)


def plain(value: Any) -> str | None:
    """Value as text: ISO 8601 for dates, JSON for nested values, bytes as UTF-8; None if empty or not a number."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if _is_null(value) or isinstance(value, str):
        return value or None
    if isinstance(value, datetime.date | datetime.datetime):
        return value.isoformat()
    if isinstance(value, Mapping | list | tuple | bool):
        return json.dumps(value, ensure_ascii=False, default=plain)
    return str(value)


def described(value: Any) -> str:
    """Kind of a JSON value or a table's cell: `a list of 3 objects`, `an object with the fields a, b`, `a number`."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return f"an object with the fields {', '.join(list(map(str, value))[:SHOWN_FIELDS])}"
    if isinstance(value, list | tuple):
        kinds = {_KINDS.get(type(element), "value") for element in value} or {"element"}
        plural = "" if len(value) == 1 else "s"
        return f"a list of {len(value):,} {kinds.pop() if len(kinds) == 1 else 'element'}{plural}"
    return f"a {_KINDS.get(type(value), type(value).__name__)}"


_KINDS = {dict: "object", list: "list", str: "string", int: "number", float: "number", bool: "boolean", bytes: "binary"}


def _container(value: Any) -> str:
    return f" ({described(value)})" if isinstance(value, Mapping | list) else ""


def _is_null(value: Any) -> bool:
    """Null, or the not-a-number that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_iso_date(text: str) -> bool:
    """True for ISO 8601: a date, a date with a time, a year, or a year and a month."""
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return re.fullmatch(r"\d{4}(-\d\d)?", text, re.ASCII) is not None
    return True


def iso_date(text: str) -> str | None:
    """Day or month of `2019-07-31 09:00:00`, `August 26, 2008 [EBook #1342]` or `13-Jun-2000`; None for other text."""
    if match := _ISO_DATE.match(text):
        return match[0]
    words = " ".join(re.sub(r"\[.*|[,-]", " ", text).split())
    for form, result in _DATE_FORMS:
        try:
            return datetime.datetime.strptime(words, form).strftime(result)
        except ValueError:
            continue
    return None
