"""Reading of run records and manifests, which other versions of Headrace may have written.

- `parse_record`: the record, or an error that names the version that wrote it
- `report_once`: the line about a record that a command skips
"""

import functools
import json
import logging
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from data_schemas.errors import UnreadableRecordError
from infra.store.provenance import headrace_version

logger = logging.getLogger(__name__)
Record = TypeVar("Record", bound=BaseModel)


def parse_record(kind: type[Record], data: bytes, location: str) -> Record:
    """Parse a record.

    Raises:
        UnreadableRecordError: if this version cannot read it; names the file, its writer and the first problem.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "json_invalid":
            damaged = UnreadableRecordError(f"{location} is damaged ({problem['msg']}); remove the file")
            damaged.is_damaged = True
            raise damaged from error
        field = ".".join(map(str, problem["loc"]))
        writer = written_by(readable_fields(data))
        raise UnreadableRecordError(
            f"{location} cannot be read by this version of Headrace ({headrace_version()}): it was written by "
            f"{writer}, {f'field {field}: ' if field else ''}{problem['msg']}; use that version, or remove the file"
        ) from error


def readable_fields(data: bytes) -> dict[str, Any]:
    """The fields of a record whose values may have any type; none if it is no JSON object."""
    try:
        fields = json.loads(data)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def written_by(fields: dict[str, Any]) -> str:
    """`Headrace 0.2.0`, or that the version is unknown."""
    packages = fields.get("packages")
    version = fields.get("headrace_version") or (packages.get("headrace") if isinstance(packages, dict) else None)
    return f"Headrace {version}" if version else "an unknown version"


@functools.cache
def report_once(message: str) -> None:
    """Log a line, the first time that this process has it."""
    logger.warning(message)
