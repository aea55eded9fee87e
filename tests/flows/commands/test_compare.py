import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from data_schemas.artifact_kinds import RESULTS
from data_schemas.errors import ContractError, NotFoundError
from data_schemas.manifest import RunRecord, StageOutcome
from data_schemas.tables import ITEMS, SCORES
from flows.cli import app
from flows.commands.compare import compare
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from stages.benchmark.metrics import f1
from stages.benchmark.tasks.few_shot_images.episodes import OVER_EPISODES
from stages.common.statistics import paired_difference
from tests.stores import commit

MODELS = ("pretrained", "compressed")
BYTES = dict.fromkeys("abcdefgh", 100.0)


def results_of(bits: dict[str, dict[str, float]], sizes=BYTES, right: dict[str, dict[str, float]] | None = None):
    """Model -> item -> bits, and model -> item -> 1 for a right answer, as score and item rows."""
    scores, items = [], []

    def add(task, metric, model, values, weights, value=None, higher=False):
        value = sum(values.values()) / sum(weights[name] for name in values) if value is None else value
        scores.append((task, model, metric, value, None, None, len(values), higher))
        items.extend((task, metric, name, model, "{}", one, weights[name]) for name, one in values.items())

    for model, values in bits.items():
        add("held-out text", "bits per byte", model, values, sizes)
    for model, values in (right or {}).items():
        ones = dict.fromkeys(values, 1.0)
        add("winograd", "accuracy", model, values, ones, higher=True)
        add("cola", "Matthews correlation", model, values, ones, value=0.123, higher=True)
    return (
        pa.Table.from_pylist([dict(zip(SCORES.names, row, strict=False)) for row in scores], SCORES),
        pa.Table.from_pylist([dict(zip(ITEMS.names, row, strict=False)) for row in items], ITEMS),
    )


def save_run(url: str, run_id: str, tables=None, kind=RESULTS) -> RunRecord:
    """A run record; with tables, of a run that has benchmark results."""
    stages = {}
    if tables is not None:
        store = ArtifactStore(url)
        out = store.writer("benchmark", "b" * 64, run_id, kind)
        out.write_table("scores.parquet", tables[0])
        out.write_table("items.parquet", tables[1])
        out.write("samples.json", b"[]")
        artifact = commit(store, out, "benchmark", "b" * 64, kind)
        stages["benchmark"] = StageOutcome(action="run", why="", artifact=artifact.ref, seconds=1)
    record = RunRecord(
        run_id=run_id, config_name="mini", config={}, config_digest="", status="finished", host="", pid=1,
        process_started=0, started=datetime.now(UTC), stages=stages,
    )  # fmt: skip
    RunStore(url).save(record)
    return record


def bits(level: float, noise: int = 0) -> dict[str, float]:
    generator = np.random.default_rng(noise)
    return {name: 100 * level + float(generator.normal(0, 1)) for name in BYTES}


def test_differences_are_paired_by_item_and_told_apart_by_their_interval(tmp_path):
    url = str(tmp_path)
    before, after = bits(2.0), {name: value + 5 for name, value in bits(2.0, noise=1).items()}
    shuffled = dict(reversed(after.items()))
    right = dict(zip(BYTES, [1, 1, 1, 0, 0, 1, 0, 1.0], strict=True))
    one = save_run(url, "one", results_of({"pretrained": before, "compressed": shuffled}, right={"pretrained": right}))
    two = save_run(url, "two", results_of({"pretrained": before, "xz": before}, right={"pretrained": right}))
    differences, not_compared = compare(url, [one, two], MODELS)
    across = {row.metric: row for row in differences if row.second == "pretrained of two"}
    assert (across["bits per byte"].difference, across["bits per byte"].second_is) == (0, "no clear difference")
    assert across["accuracy"].first_value == 5 / 8
    (within,) = [row for row in differences if row.second == "compressed of one"]
    expected = paired_difference([after[name] for name in BYTES], list(before.values()), [100.0] * 8, 0)
    assert (within.difference, within.low, within.high) == pytest.approx(expected)
    # More bits are worse.
    assert (within.first, within.second_is, within.excludes_zero) == ("pretrained of one", "worse", True)
    reasons = {(row.metric, row.second): row.why for row in not_compared}
    assert reasons["Matthews correlation", "pretrained of two"] == "the score is not a mean over its items"
    assert reasons["accuracy", "compressed of one"] == "only pretrained of one has it"


def test_higher_is_better_where_the_score_says_so(tmp_path):
    url = str(tmp_path)
    answers = {"pretrained": dict.fromkeys(BYTES, 0.0), "compressed": dict.fromkeys(BYTES, 1.0)}
    differences, _ = compare(url, [save_run(url, "one", results_of({}, right=answers))], MODELS)
    assert [(row.metric, row.difference, row.second_is) for row in differences] == [("accuracy", 1, "better")]


@pytest.mark.parametrize(
    ("names", "sizes", "why"),
    [
        ("abcdefg", BYTES, "different items: 7 are in both, 1 in the first only, 0 in the second only"),
        ("abcdefgh", BYTES | {"c": 99.0}, "1 of 8 items differ in size"),
    ],
)
def test_scores_of_other_items_are_named_and_not_compared(tmp_path, names, sizes, why):
    url = str(tmp_path)
    one = save_run(url, "one", results_of({"pretrained": bits(2.0)}))
    two = save_run(url, "two", results_of({"pretrained": {name: bits(2.0)[name] for name in names}}, sizes))
    differences, (row,) = compare(url, [one, two], ["pretrained"])
    assert not differences
    assert (row.task, row.first, row.second) == ("held-out text", "pretrained of one", "pretrained of two")
    assert row.why.startswith(why)


def answered(task, right, protocol, label=None):
    """Item -> 1 for a right answer of the pretrained network, as the two tables."""
    output = "{}" if label is None else json.dumps({"label": label})
    score = (task, "pretrained", "accuracy", sum(right.values()) / len(right), None, None, len(right), True, protocol)
    items = [(task, "accuracy", name, "pretrained", output, one, 1.0) for name, one in right.items()]
    return (
        pa.Table.from_pylist([dict(zip(SCORES.names, score, strict=False))], SCORES),
        pa.Table.from_pylist([dict(zip(ITEMS.names, row, strict=False)) for row in items], ITEMS),
    )


@pytest.mark.parametrize(
    ("one", "two", "why"),
    [
        (
            ("likelihood, 0 examples", 1),
            ("likelihood, 5 examples", 1),
            "different protocols: likelihood, 0 examples",
        ),
        (("greedy", "12"), ("greedy", "13"), "8 of 8 items have different correct answers"),
    ],
)
def test_runs_that_asked_otherwise_or_other_items_are_not_compared(tmp_path, one, two, why):
    url, right = str(tmp_path), dict.fromkeys(BYTES, 1.0)
    runs = [save_run(url, name, answered("t", right, *fields)) for name, fields in (("one", one), ("two", two))]
    differences, (row,) = compare(url, runs, ["pretrained"])
    assert not differences and row.why.startswith(why)


def test_queries_of_an_episode_are_not_independent(tmp_path):
    """All queries of one episode in four are lost: surely worse by items, but not by episodes."""
    url, protocol = str(tmp_path), f"4-way; {OVER_EPISODES}"
    names = [f"{episode}/{query}" for episode in range(4) for query in range(20)]
    first = dict.fromkeys(names, 1.0)
    second = {name: float(not name.startswith("0/")) for name in names}
    runs = [save_run(url, name, answered("digits", right, protocol)) for name, right in (("a", first), ("b", second))]
    (row,), _ = compare(url, runs, ["pretrained"])
    assert (row.difference, row.second_is) == (-0.25, "no clear difference")
    assert (row.low, row.high) == pytest.approx((-0.25 - 3.182446 * 0.25, -0.25 + 3.182446 * 0.25))
    alone = [save_run(url, name, answered("digits", {"0/1": 1.0, "0/2": 0.0}, protocol)) for name in ("only", "again")]
    assert compare(url, alone, ["pretrained"])[1][0].why == "a single episode has no interval"


def test_refuses_runs_without_results_unknown_models_and_old_results(tmp_path):
    url = str(tmp_path)
    one = save_run(url, "one", results_of({"pretrained": bits(2.0)}))
    with pytest.raises(NotFoundError, match=r"run two has no benchmark results \(it has: no stage\); run its config"):
        compare(url, [one, save_run(url, "two")], MODELS[:1])
    with pytest.raises(NotFoundError, match=r"no scores of 'compressed' in one; available models: pretrained"):
        compare(url, [one], MODELS)
    with pytest.raises(NotFoundError, match="nothing to compare: name a second run, or a second model of one"):
        compare(url, [one], MODELS[:1])
    outdated = type(RESULTS)("results", 1, RESULTS.tables, RESULTS.files)
    old = save_run(url, "old", results_of({"pretrained": bits(2.0)}), outdated)
    with pytest.raises(ContractError, match=r"benchmark wrote results v1 .*, but compare reads results v3"):
        compare(url, [one, old], MODELS[:1])


def test_the_command_prints_the_table_and_one_json_object(tmp_path):
    url = str(tmp_path)
    save_run(url, "one", results_of({"pretrained": bits(2.0), "compressed": bits(2.5)}))
    save_run(url, "two", results_of({"pretrained": bits(1.5), "compressed": bits(2.0)}))
    done = CliRunner().invoke(app, ["compare", "one", "two", "--store", url, "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.output.strip().splitlines()[-1])
    assert [(row["first"], row["second"], row["second_is"]) for row in printed["differences"]] == [
        ("pretrained of one", "pretrained of two", "better"),
        ("compressed of one", "compressed of two", "better"),
        ("pretrained of one", "compressed of one", "worse"),
        ("pretrained of two", "compressed of two", "worse"),
    ]
    assert "compressed of two, against compressed of one" in done.output
    refused = CliRunner().invoke(app, ["compare", "one", "--models", "pretrained,xz", "--store", url])
    assert refused.exit_code == 2
    assert "no scores of 'xz'" in refused.output


def test_statistics_are_resampled_with_their_labels(tmp_path):
    labels = {name: float(name in "abcd") for name in BYTES}
    guesses = {"pretrained": labels | {"a": 0.0, "h": 1.0}, "compressed": dict.fromkeys(BYTES, 1.0)}
    values = {name: f1(np.array(list(labels.values())), np.array(list(one.values()))) for name, one in guesses.items()}
    scores, items = (table.schema for table in results_of({}))
    rows = [("mrpc", name, "F1", value, None, None, 8, True) for name, value in values.items()]
    of_items = [
        ("mrpc", "F1", item, name, json.dumps({"label": labels[item], "predicted": guess}), 0.5, 1.0)
        for name, one in guesses.items() for item, guess in one.items()
    ]  # fmt: skip
    tables = [
        pa.Table.from_pylist([dict(zip(schema.names, row, strict=False)) for row in rows_], schema)
        for schema, rows_ in ((scores, rows), (items, of_items))
    ]
    differences, not_compared = compare(str(tmp_path), [save_run(str(tmp_path), "one", tables)], MODELS)
    assert not not_compared and [row.metric for row in differences] == ["F1"]
    # 3 right of 4 and 1 false positive; then 4 of 4 and 4 false positives.
    assert (differences[0].first_value, differences[0].second_value) == (pytest.approx(6 / 8), pytest.approx(8 / 12))
    assert differences[0].difference == pytest.approx(8 / 12 - 6 / 8)
    assert differences[0].low < differences[0].difference < differences[0].high
