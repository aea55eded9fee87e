from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from data_schemas.manifest import Estimate, Volume
from data_schemas.stage_costs import Measured, RunPlan, StageCosts
from infra.store.cost_records import CostRecords
from infra.store.filesystem import Folder


def costs(sequence: int = 1, seconds: float = 5.0, stage: str = "clean") -> StageCosts:
    return StageCosts(
        run_id=f"run-{sequence}", config_name="c", stage=stage, key="ab" * 32, sequence=sequence, machine="m",
        processor="p", started=datetime(2026, 11, 30, tzinfo=UTC),
        planned=Estimate(seconds=seconds, peak_memory_bytes=1, output=Volume()),
    )  # fmt: skip


def test_the_first_plan_stays_until_it_is_completed(any_store):
    records = CostRecords(any_store)
    assert list(records.newest()) == []
    assert records.register(costs()) is None
    assert records.register(costs(seconds=9.0)).planned.seconds == 5.0
    done = costs().model_copy(
        update={"measured": Measured(seconds=6.0, peak_memory_bytes=1, written_bytes=1, phases={})}
    )
    records.complete(done)
    assert list(records.newest()) == [done]


def test_a_plan_that_was_cut_off_counts_as_begun_and_is_replaced(any_store):
    records = CostRecords(any_store)
    records.folder.write(costs().name, b'{"run_id": ')
    assert records.register(costs(seconds=9.0)).planned.seconds == 9.0
    assert [row.planned.seconds for row in records.newest()] == [9.0]


def test_the_newest_runs_come_first_and_the_limit_holds(any_store):
    records = CostRecords(any_store)
    for sequence in (2, 100_000_001, 11, 1):
        records.register(costs(sequence))
    assert [row.sequence for row in records.newest(2)] == [100_000_001, 11]
    assert [row.sequence for row in records.newest()] == [100_000_001, 11, 2, 1]


def test_the_first_plan_of_a_run_stays(any_store):
    records = CostRecords(any_store)
    assert records.run_plan("run-1") is None
    for seconds in (5.0, 9.0):
        records.register_run(RunPlan(run_id="run-1", planned={"clean": costs(seconds=seconds).planned}))
    assert records.run_plan("run-1").planned["clean"].seconds == 5.0
    Folder(any_store).child("runs/run-2").write("plan.json", b"[]")
    assert records.run_plan("run-2") is None


@given(st.integers(0, 10**8 - 1), st.sampled_from(["clean", "pretrain"]), st.integers(0, 10**8 - 1))
def test_names_sort_by_the_number_of_the_run(sequence, stage, other):
    names = {number: costs(number, stage=stage).name for number in (sequence, other)}
    assert (names[sequence] < names[other]) == (sequence < other)
