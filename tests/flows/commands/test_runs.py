import pytest

from data_schemas.errors import NotFoundError
from flows.commands.pin import pin_run, unpin_run
from flows.commands.show import print_runs, run_json, run_page, runs_json
from flows.commands.summary import print_summary
from infra.store.runs import RunStore, close
from tests.infra.store.run_records import run_record


@pytest.fixture
def runs(any_store):
    """A store with seven runs."""
    runs = RunStore(any_store)
    for number in range(1, 8):
        runs.save(close(run_record(f"run-{number}").model_copy(update={"sequence": number}), "finished"))
    return any_store


def listed(store: str, limit: int | None, before: str | None) -> tuple[list[str], int]:
    rows = runs_json(run_page(store, limit, before))
    return [row["run_id"] for row in rows["runs"]], rows["older"]


def test_runs_are_listed_page_by_page(runs, capsys):
    assert listed(runs, 3, None) == (["run-7", "run-6", "run-5"], 4)
    assert listed(runs, 3, "run-5") == (["run-4", "run-3", "run-2"], 1)
    assert listed(runs, 3, "run-2") == (["run-1"], 0)
    assert listed(runs, 3, "run-1") == ([], 0)
    assert listed(runs, None, None) == ([f"run-{number}" for number in range(7, 0, -1)], 0)
    print_runs(run_page(runs, 3, None))
    assert "3 of 7 runs; older: headrace runs --before run-5" in capsys.readouterr().out
    print_runs(run_page(runs, 7, None))
    assert "older" not in capsys.readouterr().out
    with pytest.raises(NotFoundError, match="no run 'run-9'"):
        run_page(runs, 3, "run-9")


def test_a_pinned_run_is_shown_as_pinned(runs, capsys):
    pin_run(runs, "latest")
    pin_run(runs, "run-7")
    assert capsys.readouterr().out.count("pinned run-7 (c): ") == 2
    assert [row["pinned"] for row in runs_json(run_page(runs, 2, None))["runs"]] == [True, False]
    record = RunStore(runs).get("run-7")
    assert run_json(runs, record)["pinned"]
    print_runs(run_page(runs, 2, None))
    print_summary(runs, record)
    assert capsys.readouterr().out.count(", pinned") == 2
    unpin_run(runs, "run-7")
    unpin_run(runs, "run-6")
    assert capsys.readouterr().out.split("\n")[:2] == ["unpinned run-7", "was not pinned: run-6"]
    assert not run_json(runs, record)["pinned"]
    with pytest.raises(NotFoundError, match="no run 'x'"):
        pin_run(runs, "x")


def test_of_what_a_run_is_a_rerun(tmp_path, capsys):
    store = RunStore(str(tmp_path))
    for name, base, forced in (("swept", "first", None), ("rerun", "first", "compress")):
        store.save(close(run_record(name).model_copy(update={"base_run": base, "forced": forced}), "finished"))
    print_runs(run_page(str(tmp_path), None, None))
    lines = capsys.readouterr().out.splitlines()
    ends = {words[0]: words[-1] for line in lines[1:] if (words := line.split())}
    assert ends == {"swept": "first", "rerun": "first:compress"}


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path, capsys):
    store = RunStore(str(tmp_path))
    names = ["[/red]", "[bold]x[/bold]", ":fire:", "a [v2]", "[link=http://x]y"]
    for number, name in enumerate(names, 1):
        record = run_record(f"run-{number}").model_copy(update={"sequence": number, "config_name": name})
        store.save(close(record, "failed", "[/no] :fire:"))
    print_runs(run_page(str(tmp_path), None, None))
    output = capsys.readouterr().out
    assert all(name in output for name in names)
    print_summary(str(tmp_path), store.get("run-1"))
    assert "[/no] :fire:" in capsys.readouterr().out


def test_of_many_records_that_cannot_be_read_some_are_named(runs, capsys):
    for number in range(30):
        RunStore(runs).folder.write(f"damaged-{number:02d}.json", b"{")
    print_runs(run_page(runs, 2, None))
    output = capsys.readouterr().out
    assert output.count("unreadable: ") == 10 and "and 20 more records that cannot be read" in output
    assert sum(row["status"] == "unreadable" for row in runs_json(run_page(runs, 2, None))["runs"]) == 30
