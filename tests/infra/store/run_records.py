"""Run records for tests of the store."""

from datetime import UTC, datetime

from data_schemas.manifest import RunRecord


def run_record(run_id: str, hour: int = 0) -> RunRecord:
    """A record of a run that nobody works on."""
    return RunRecord(
        run_id=run_id, config_name="c", config={}, config_digest="d", status="running", host="", pid=0,
        process_started=0, started=datetime(2026, 11, 1, hour, tzinfo=UTC),
    )  # fmt: skip
