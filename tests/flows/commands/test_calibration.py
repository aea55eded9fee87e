import json
from datetime import UTC, datetime

import pytest

from data_schemas.manifest import Estimate, Volume, Work
from data_schemas.stage_costs import Measured, StageCosts
from flows.commands.calibration import calibration_json, print_calibration, read_calibration
from flows.console import console
from infra.rates.machine import machine_key
from infra.store.cost_records import CostRecords


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return str(tmp_path / "store")


def record(store, sequence: int, seconds: float | None, rate: float = 1e6, machine: str | None = None, **measured):
    """Costs of 10 MB through `clean`."""
    work = Work(kind="clean", amount=1e7, rate=rate, phases=("clean",))
    done = seconds and Measured(
        seconds=seconds, peak_memory_bytes=2 * 10**9, written_bytes=900, phases={"clean": seconds}, **measured
    )
    costs = StageCosts(
        run_id=f"run-{sequence}", config_name="c", stage="clean", key="k" * 64, sequence=sequence,
        machine=machine_key() if machine is None else machine, processor="A fine processor",
        started=datetime(2026, 11, 30, tzinfo=UTC),
        planned=Estimate.of_work(work, peak_memory_bytes=10**9, written_bytes=1_000, output=Volume()),
        measured=done or None,
    )  # fmt: skip
    CostRecords(store).register(costs)


def printed(store) -> str:
    with console.capture() as capture:
        print_calibration(read_calibration(store))
    return capture.get()


def test_errors_and_the_rate_that_would_have_been_right(store):
    record(store, 1, 40.0)
    record(store, 2, 20.0)
    record(store, 3, 5.0, incomplete=("an earlier try had begun it",))
    record(store, 4, None)
    record(store, 5, 99.0, machine="another")
    found = read_calibration(store)
    assert found.errors == {"clean": (3, 4.0)}, "2, 4 and 9.9 times the plan of 10 s"
    [rate] = found.rates
    # 10 MB in 40 and in 20 s: 250 and 500 kB/s, and half of the two is the median.
    assert (rate.kind, rate.planned, rate.right, rate.runs) == ("clean", 1e6, 375e3, 2)
    text = printed(store)
    for shown in (
        "did not end", "not compared: an earlier try had begun it", "another machine (A fine processor)",
        "clean: took 4.00 times its plan, the median of 3", "375 k/s",
    ):  # fmt: skip
        assert shown in text, shown
    assert [row["time_ratio"] for row in json.loads(json.dumps(calibration_json(found)))["stages"]] == [
        9.9, None, None, 2.0, 4.0,
    ]  # fmt: skip


def test_an_empty_store_and_one_that_taught_nothing(store):
    assert "headrace calibrate" in printed(store)
    record(store, 1, 30.0, machine="")
    assert "on a cluster" in printed(store) and "no rate is learned" in printed(store)


def test_old_executions_are_counted_not_printed(store):
    for number in range(1, 40):
        record(store, number, 10.0)
    assert "and 9 older executions" in printed(store)
