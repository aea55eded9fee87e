"""How many broken records a run bears before it stops, and what it says then.

A record is broken where the file promises a document that cannot be read. What a format leaves out on purpose
(a redirect, a page without running text) is a reject too, but says nothing against the file.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from data_schemas.errors import InputDataError
from stages.ingest.config import IngestConfig

LEFT_OUT_ON_PURPOSE = frozenset({"empty_text", "redirect"})
SHOWN_REASONS = 3


def is_broken(reason: str) -> bool:
    """Whether a reject of this reason counts against the limit."""
    return reason not in LEFT_OUT_ON_PURPOSE


def is_passed(config: IngestConfig, *, records: int, broken: int, share_read: float) -> bool:
    """Whether more of all records are broken than may be, even if all that is still unread were good.

    Args:
        config: the stage's settings.
        records: how many were read.
        broken: how many of them are broken.
        share_read: of all source bytes; foretells how many records there are in all. 1 makes the answer exact.
    """
    if records < config.reject_share_after or not share_read:
        return False
    return broken > config.max_reject_share * records / min(1.0, share_read)


class BrokenRecords:
    """How many records broke, and the first of each reason."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self._first: dict[str, Mapping[str, Any]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in a row of the rejects table; in the order of reading."""
        if is_broken(row["reason"]):
            self.reasons[row["reason"]] += 1
            self._first.setdefault(row["reason"], row)

    def error(self, config: IngestConfig, records: int) -> InputDataError:
        """The error that stops the run after this many records."""
        broken = self.reasons.total()
        told = [
            f"{times:,} {reason}, first {_place(self._first[reason])}"
            for reason, times in self.reasons.most_common(SHOWN_REASONS)
        ]
        return InputDataError(
            f"{broken:,} of {records:,} records read so far are broken, and ingest.max_reject_share "
            f"({config.max_reject_share:g}) of all records is passed: {'; '.join(told)}. Mend or leave out these "
            "files, correct ingest.fields or ingest.format, or bear more: "
            f"--set ingest.max_reject_share={min(1.0, 1.5 * broken / records):.2g}"
        )


def _place(row: Mapping[str, Any]) -> str:
    detail = f" ({row['detail']})" if row["detail"] else ""
    return f"{row['path']}, record {row['position']}{detail}"
