"""Limit of broken records, above which a run stops, and the error.

A record is broken if it should contain a document but cannot be read. Records without text by design (a redirect, a
page without running text) are rejects too, but do not count as broken.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from data_schemas.errors import InputDataError
from stages.ingest.config import IngestConfig

NOT_BROKEN = frozenset({"empty_text", "redirect"})
SHOWN_REASONS = 3


def is_broken(reason: str) -> bool:
    """Whether a reject with this reason counts as broken."""
    return reason not in NOT_BROKEN


def is_exceeded(config: IngestConfig, *, records: int, broken: int, share_read: float) -> bool:
    """Whether the share of broken records exceeds the limit even if all unread records are good.

    Args:
        config: the stage's settings.
        records: number of records read.
        broken: number of broken records among them.
        share_read: share of the source bytes that were read, from which the total number of records is estimated; 1
            makes the result exact.
    """
    if records < config.reject_share_after or not share_read:
        return False
    return broken > config.max_reject_share * records / min(1.0, share_read)


class BrokenRecords:
    """Counts of broken records by reason, and the first of each."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self._first: dict[str, Mapping[str, Any]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of the rejects table, in reading order."""
        if is_broken(row["reason"]):
            self.reasons[row["reason"]] += 1
            self._first.setdefault(row["reason"], row)

    def error(self, config: IngestConfig, records: int) -> InputDataError:
        """The error that stops the run after this many records."""
        broken = self.reasons.total()
        examples = [
            f"{count:,} {reason}, first {_location(self._first[reason])}"
            for reason, count in self.reasons.most_common(SHOWN_REASONS)
        ]
        return InputDataError(
            f"{broken:,} of {records:,} records read so far are broken, more than ingest.max_reject_share "
            f"({config.max_reject_share:g}) of all records: {'; '.join(examples)}. Repair or exclude these files, "
            "correct ingest.fields or ingest.format, or raise the limit: "
            f"--set ingest.max_reject_share={min(1.0, 1.5 * broken / records):.2g}"
        )


def _location(row: Mapping[str, Any]) -> str:
    detail = f" ({row['detail']})" if row["detail"] else ""
    return f"{row['path']}, record {row['position']}{detail}"
