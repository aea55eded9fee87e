"""Limit of broken records, above which a run stops, and the error.

A record is broken if it should contain a document but cannot be read. Records without text by design (a redirect, a
page without running text) are rejects too, but do not count as broken. If a file cannot be read from some byte on, its
unread bytes count as their share of the corpus; a file that ends early counts whole, as its former size is unknown.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from data_schemas.errors import InputDataError
from stages.ingest.config import IngestConfig

NOT_BROKEN = frozenset({"empty_text", "no_record", "not_wikitext", "redirect"})
SHOWN_REASONS = 3


def is_broken(reason: str) -> bool:
    """Whether a reject with this reason counts as broken."""
    return reason not in NOT_BROKEN


def is_exceeded(config: IngestConfig, *, records: int, broken: int, share_read: float, share_lost: float = 0.0) -> bool:
    """Whether the share of broken records exceeds the limit even if all unread records are good.

    Args:
        config: the stage's settings.
        records: number of records read.
        broken: number of broken records among them.
        share_read: share of the source bytes that were read, from which the total number of records is estimated; 1
            makes the result exact.
        share_lost: share of the source bytes in files, or ends of files, that could not be read.
    """
    share_read = min(1.0, share_read)
    if not share_read or records * (1 + share_lost / share_read) < config.reject_share_after:
        return False
    return broken + share_lost * records / share_read > config.max_reject_share * records / share_read


class BrokenRecords:
    """Counts of broken records by reason, and the first of each."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        """Begin with the state of an earlier attempt, or with none."""
        state = state or {}
        self.reasons: Counter[str] = Counter(state.get("reasons"))
        self.lost_bytes: int = state.get("lost_bytes", 0)
        self._first: dict[str, Mapping[str, Any]] = dict(state.get("first", {}))

    def state(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {"reasons": dict(self.reasons), "lost_bytes": self.lost_bytes, "first": dict(self._first)}

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of the rejects table, in reading order."""
        if is_broken(row["reason"]):
            self.reasons[row["reason"]] += 1
            self.lost_bytes += row["bytes"]
            self._first.setdefault(row["reason"], row)

    def error(self, config: IngestConfig, records: int, all_bytes: int) -> InputDataError:
        """The error that stops the run after this many records of sources with `all_bytes`."""
        broken = self.reasons.total()
        examples = [
            f"{count:,} {reason}, first {_location(self._first[reason])}"
            for reason, count in self.reasons.most_common(SHOWN_REASONS)
        ]
        lost = f" and {self.lost_bytes:,} bytes of files were lost" if self.lost_bytes else ""
        needed = 1.5 * broken / records + (1.5 * self.lost_bytes / all_bytes if all_bytes else 0)
        return InputDataError(
            f"{broken:,} of {records:,} records read so far are broken{lost}, more than ingest.max_reject_share "
            f"({config.max_reject_share:g}) of all records: {'; '.join(examples)}. Repair or exclude these files, "
            "correct ingest.fields or ingest.format, or raise the limit: "
            f"--set ingest.max_reject_share={min(1.0, needed):.2g}"
        )


def _location(row: Mapping[str, Any]) -> str:
    detail = f" ({row['detail']})" if row["detail"] else ""
    return f"{row['path']}, record {row['position']}{detail}"
