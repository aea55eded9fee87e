import json
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from data_schemas.errors import InputDataError
from infra.store.filesystem import Folder
from stages.benchmark.data_files import OWN_DATA, find_file
from stages.benchmark.harness.run_task import load_task, run_task
from stages.benchmark.task import TaskContext
from stages.benchmark.tasks.glue.data import SETS, SETS_BY_NAME, read_examples, sentences
from stages.benchmark.tasks.glue.prompted import GlueTask
from stages.benchmark.tasks.glue.scores import score, score_result
from tests.stages.benchmark.networks import evaluated

SHARED_ROWS = {
    "CoLA": 1_043, "SST-2": 872, "MRPC": 408, "QQP": 2_000, "STS-B": 1_500, "MNLI matched": 9_815, "QNLI": 5_463,
    "RTE": 277, "WNLI": 71,
}  # fmt: skip


def read_set(root, name):
    path = find_file(root / SETS_BY_NAME[name].folder, *SETS_BY_NAME[name].files)
    return read_examples(path, SETS_BY_NAME[name])


@pytest.mark.parametrize("name", SETS_BY_NAME)
def test_own_items_are_in_the_official_layout(name):
    examples = read_set(OWN_DATA / "glue", name)
    assert len(examples.items) >= 15 and not examples.skipped_rows
    if SETS_BY_NAME[name].labels:
        counts = Counter(item["label"] for item in examples.items)
        assert set(counts) == set(range(len(SETS_BY_NAME[name].labels))) and min(counts.values()) >= 3
    texts = [value for item in examples.items for value in item.values() if isinstance(value, str)]
    assert all(texts) and not any("\t" in text for text in texts)


@pytest.mark.parametrize("name", SHARED_ROWS)
def test_the_real_files_are_read_whole(shared_data, name):
    examples = read_set(shared_data / "benchmarks" / "glue", name)
    assert len(examples.items) + examples.skipped_rows == SHARED_ROWS[name] and examples.skipped_rows <= 1


def test_the_malformed_row_of_qqp_is_skipped_and_counted(shared_data):
    path = find_file(shared_data / "benchmarks" / "glue" / "QQP", "train.tsv")
    examples = read_examples(path, SETS_BY_NAME["QQP"])
    assert (len(examples.items), examples.skipped_rows) == (9_999, 1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("RTE", "index\tsentence1\tsentence2\n0\ta\tb\n", "column 'label' is missing.*the test sets have no labels"),
        (
            "RTE",
            "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n",
            r"line 2: the label is 'maybe'; accepted for RTE",
        ),
        ("STS-B", "index\tsentence1\tsentence2\tscore\n0\ta\tb\thigh\n", r"a number from 0 to 5"),
        ("STS-B", "index\tsentence1\tsentence2\tscore\n0\ta\tb\tnan\n", r"'nan'; .* a number from 0 to 5"),
        ("STS-B", "index\tsentence1\tsentence2\tscore\n0\ta\tb\t5.1\n", r"'5.1'; .* a number from 0 to 5"),
        ("RTE", "", "column 'sentence1' is missing"),
    ],
)
def test_errors_name_the_location(tmp_path, name, text, message):
    (tmp_path / "dev.tsv").write_text(text)
    with pytest.raises(InputDataError, match=message):
        read_examples(tmp_path / "dev.tsv", SETS_BY_NAME[name])


def test_prompts_are_the_harness_own():
    cases = {
        "CoLA": ({"sentence": "It is."}, "It is.\nQuestion: Does this sentence make sense?\nAnswer:", [" no", " yes"]),
        "MNLI matched": (
            {"premise": "A.", "hypothesis": "B"}, "A.\nQuestion: B. True, False or Neither?\nAnswer:",
            [" True", " Neither", " False"],
        ),
        "MNLI mismatched": (
            {"premise": "A. ", "hypothesis": " B. "}, "A. \nQuestion: B. True, False or Neither?\nAnswer:",
            [" True", " Neither", " False"],
        ),
        "QNLI": (
            {"question": "Who?", "sentence": "He."},
            "Who?\nHe.\nQuestion: Does this response answer the question?\nAnswer:", [" yes", " no"],
        ),
    }  # fmt: skip
    for name, (item, prompt, choices) in cases.items():
        document = {"id": "0", **item, "label": 1}
        task = load_task(SETS_BY_NAME[name].harness_task, [document], [document])
        task.build_all_requests(rank=0, world_size=1)
        assert [instance.args for instance in task.instances] == [
            (f"{prompt}{choices[1]}\n\n{prompt}", choice) for choice in choices
        ]


def test_texts_are_not_stripped_in_prompts(tmp_path):
    """As by the harness: all of SST-2's sentences end in a space."""
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\ngood fun . \t1\n")
    (item,) = read_examples(tmp_path / "dev.tsv", SETS_BY_NAME["SST-2"]).items
    assert item["sentence"] == "good fun . " and sentences(item) == ["good fun ."]


class Oracle:
    """Log-likelihoods by a rule (document, index of the answer) -> log-likelihood."""

    def __init__(self, likelihood):
        self.likelihood = likelihood

    def loglikelihood(self, requests):
        return [(self.likelihood(request.doc, request.idx), False) for request in requests]


@pytest.mark.parametrize("dataset", SETS, ids=lambda dataset: dataset.name)
def test_an_oracle_has_the_full_score(monkeypatch, dataset):
    oracle = Oracle(lambda document, index: -10 * abs(document["label"] - index))
    monkeypatch.setattr("stages.benchmark.harness.run_task.harness_model", lambda model, context: oracle)
    results = GlueTask(sets=(dataset.name,)).measure(evaluated(), TaskContext(0))
    own = [result for result in results if result.score["task"] == f"GLUE {dataset.name}"]
    assert [result.score["metric"] for result in own] == list(dataset.metrics)
    assert all(result.score["value"] == pytest.approx(1, abs=0.02) for result in own)
    assert len(own[0].items) == own[0].score["items"] and all(item["numerator"] == 1 for item in own[0].items)


def test_a_network_s_scores_average_and_items(tmp_path):
    task = GlueTask(limit=3)
    model, context = evaluated(), TaskContext(0, Folder(f"{tmp_path}"))
    results = task.measure(model, context)
    average = results[-1].score
    assert (average["task"], average["metric"], average["note"]) == ("GLUE average", "mean of nine tasks", None)
    by_set: dict = {}
    for result in results[:-1]:
        by_set.setdefault(result.score["task"].removeprefix("GLUE "), []).append(result.score["value"])
    mnli = np.mean([*by_set.pop("MNLI matched"), *by_set.pop("MNLI mismatched")])
    by_set.pop("AX")
    assert average["value"] == pytest.approx(np.mean([mnli, *(np.mean(values) for values in by_set.values())]))
    assert average["low"] <= average["value"] <= average["high"]
    item = next(item for result in results for item in result.items if item["task"] == "GLUE RTE")
    output = json.loads(item["output"])
    assert item["prompt"].endswith("True or False?\nAnswer:") and output["choices"] == [" True", " False"]
    assert output["predicted"] == np.argmax(output["log_likelihoods"])
    # All answers are stored: a second measurement does not run the network.
    model.network.head = None
    assert [result.score for result in task.measure(model, context)] == [result.score for result in results]


def test_missing_data_are_reported_without_score(tmp_path):
    task = GlueTask(path=str(tmp_path), sets=("CoLA", "MRPC"), examples=2)
    (tmp_path / "CoLA").mkdir()
    for split in ("dev", "train"):
        (tmp_path / "CoLA" / f"{split}.tsv").write_bytes((OWN_DATA / "glue" / "CoLA" / "dev.tsv").read_bytes())
    measured = [result.score for result in task.measure(evaluated(), TaskContext(0))]
    assert [(row["task"], row["metric"]) for row in measured] == [
        ("GLUE CoLA", "Matthews correlation"), ("GLUE average", "mean of 1 tasks"),
    ]  # fmt: skip
    assert "no GLUE score, which needs all nine tasks: SST-2, MRPC" in measured[1]["note"]
    rows = [result.score for result in task.baselines(TaskContext(0))]
    absent = [row for row in rows if row["value"] is None]
    assert {row["metric"] for row in absent} == {"accuracy", "F1"}
    assert absent[0]["note"].startswith(f"not run: no data at {tmp_path}/MRPC/dev.tsv; get it with: ")
    for name in ("GLUE CoLA", "GLUE average"):
        guesses = {row["model"]: row["value"] for row in rows if row["task"] == name}
        assert guesses == {"majority class": 0, "random choice": 0}


def test_baselines_by_hand():
    rows = [result.score for result in GlueTask(sets=("MRPC",)).baselines(TaskContext(0))]
    values = {(row["model"], row["metric"]): row["value"] for row in rows}
    assert values["majority class", "accuracy"] == 11 / 21
    assert values["majority class", "F1"] == pytest.approx(2 * 11 / (11 + 21))
    assert (values["random choice", "accuracy"], values["random choice", "F1"]) == (0.5, pytest.approx(22 / 43))


def test_the_harness_aggregates_our_predictions_to_our_scores():
    """Its own Matthews correlation and F1, over its own logged predictions."""
    from lm_eval.api.registry import get_aggregation

    generator = np.random.default_rng(3)
    guess = Oracle(lambda document, index: float(generator.normal()))
    for name, key, aggregation, metric in (
        ("CoLA", "mcc", "matthews_corrcoef", "Matthews correlation"), ("MRPC", "f1", "f1", "F1"),
    ):  # fmt: skip
        items = read_set(OWN_DATA / "glue", name).items
        responses = run_task(SETS_BY_NAME[name].harness_task, items, [], guess)
        pairs = [item.metrics["none"][key] for item in responses]
        from stages.benchmark.metrics import METRICS
        from stages.benchmark.tasks.glue.prompted import predictions

        labels = np.array([item["label"] for item in items], dtype=float)
        ours = METRICS[metric](labels, predictions(SETS_BY_NAME[name], responses))
        assert ours == pytest.approx(get_aggregation(aggregation)(pairs))


def test_few_shot_examples_are_part_of_the_key(tmp_path):
    """The diagnostic set's examples are MNLI's."""
    task, plain = (GlueTask(path=str(tmp_path), sets=["AX"], examples=examples) for examples in (2, 0))
    before = task.fingerprint(), plain.fingerprint()
    (tmp_path / "MNLI").mkdir()
    (tmp_path / "MNLI" / "train.tsv").write_text("sentence1\tsentence2\tgold_label\na\tb\tneutral\n")
    assert task.fingerprint() != before[0] and plain.fingerprint() == before[1]


@pytest.mark.parametrize(("predicted", "expected"), [(1.0, (0.5655, 1.0)), (0.0, (0.0, 0.4345))])
def test_equal_items_have_an_interval(predicted, expected):
    result = score(SETS_BY_NAME["RTE"], "accuracy", np.ones(5), np.full(5, predicted), 0)
    row = score_result("GLUE RTE", "pretrained", result, None, None, []).score
    assert (row["low"], row["high"]) == pytest.approx(expected, abs=1e-4)  # Wilson's


def test_an_unknown_set_is_refused():
    with pytest.raises(ValidationError, match="'Cola' is not a set of GLUE; accepted are CoLA, SST-2"):
        GlueTask(sets=("Cola",))
