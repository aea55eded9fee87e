import json

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from data_schemas.errors import InputDataError
from infra.store.filesystem import Folder
from stages.benchmark.config import BenchmarkConfig
from stages.benchmark.data_files import OWN_DATA, find_file
from stages.benchmark.metrics import METRICS
from stages.benchmark.task import TaskContext
from stages.benchmark.tasks.glue.data import SETS_BY_NAME, read_examples, sentences
from stages.benchmark.tasks.glue.fine_tuned import FineTunedGlueTask
from stages.benchmark.tasks.glue.tf_idf import NAME, REGRESSION_NAME, tf_idf_predictions
from stages.benchmark.tasks.glue.training import sentence_row
from tests.modeling.compressed_networks import COMPRESSIONS
from tests.stages.benchmark.networks import evaluated

SHORT = {"epochs": 1, "batch_size": 8}
WORDS = ("12", "True", "False", "don't", "foxes", "question", "and", "or", "return", "the", "dog")


def write_toy(folder, rows, name="RTE", labels=("entailment", "not_entailment"), files=("train.tsv", "dev.tsv")):
    """Pairs of sentences with the word `yes` in those of the first label."""
    generator = np.random.default_rng(0)
    (folder / name).mkdir(parents=True, exist_ok=True)
    for file in files:
        lines = ["index\tsentence1\tsentence2\tlabel"]
        for number in range(rows):
            label = int(generator.integers(2))
            first, second = (list(generator.choice(WORDS, size=4)) for _ in range(2))
            if label == 0:
                second[generator.integers(4)] = "yes"
            lines.append(f"{number}\t{' '.join(first)}\t{' '.join(second)}\t{labels[label]}")
        (folder / name / file).write_text("\n".join(lines) + "\n")


def own_as_training(folder, *names):
    """The own development files as training files and development files."""
    for name in names:
        dataset = SETS_BY_NAME[name]
        (folder / dataset.folder).mkdir(exist_ok=True)
        data = find_file(OWN_DATA / "glue" / dataset.folder, *dataset.files).read_bytes()
        for file in (dataset.files[0], *dataset.train[:1]):
            (folder / dataset.folder / file).write_bytes(data)


@pytest.mark.usefixtures("fast_bf16")
def test_a_keyword_is_learned_and_scored_with_baselines(tmp_path):
    write_toy(tmp_path, 240)
    task = FineTunedGlueTask(
        path=str(tmp_path), sets=("RTE",), learning_rate=8e-3, epochs=6, batch_size=16, seeds=1, limit=60
    )
    score, average = (result.score for result in task.measure(evaluated(), TaskContext(0)))
    rows = {
        row["model"]: row
        for row in (result.score for result in task.baselines(TaskContext(0)))
        if row["task"] == score["task"]
    }
    assert score["task"] == "GLUE RTE, fine-tuned" and score["items"] == 60
    assert score["value"] > 0.95 and rows["majority class"]["value"] < 0.7 and rows[NAME]["value"] > 0.9
    assert score["note"] == f"trained on 240 items of train.tsv; seed 0: {score['value']:.4f}"
    assert "one seed" in score["protocol"] and average["metric"] == "mean of 1 tasks"


@pytest.mark.usefixtures("fast_bf16")
def test_scores_and_items_are_those_of_the_median_seeds(tmp_path):
    own_as_training(tmp_path, "MRPC", "STS-B")
    task = FineTunedGlueTask(path=str(tmp_path), sets=("MRPC", "STS-B"), seeds=3, learning_rate=5e-3, **SHORT)
    context = TaskContext(4, Folder(str(tmp_path / "work")))
    results = task.measure(evaluated(), context)
    assert [result.score["metric"] for result in results] == [
        "accuracy", "F1", "Pearson correlation", "Spearman correlation", "mean of 2 tasks",
    ]  # fmt: skip
    for result in results[:4]:
        seed_values = [float(part.split(": ")[1]) for part in result.score["note"].partition("; ")[2].split(", ")]
        assert result.score["value"] == pytest.approx(sorted(seed_values)[1], abs=1e-4)
        count = len(result.items)
        assert result.score["note"].startswith(f"trained on {count} items of train.tsv; seed 4: ")
        outputs = [json.loads(item["output"]) for item in result.items]
        columns = (np.array([output[key] for output in outputs]) for key in ("label", "predicted"))
        assert METRICS[result.score["metric"]](*columns) == pytest.approx(result.score["value"])
    assert results[0].items[0]["prompt"].count("\n") == 2
    model = evaluated()
    model.network.embedding = None
    assert [result.score for result in task.measure(model, context)] == [result.score for result in results]


@pytest.mark.usefixtures("fast_bf16")
def test_mnli_is_trained_once_for_all_its_scored_sets(tmp_path, monkeypatch):
    own_as_training(tmp_path, "MNLI matched", "MNLI mismatched")
    (tmp_path / "AX").mkdir()
    for file in ("diagnostic-full.tsv",):
        (tmp_path / "AX" / file).write_bytes((OWN_DATA / "glue" / "AX" / file).read_bytes())
    (tmp_path / "MNLI" / "train.tsv").rename(tmp_path / "MNLI" / "train.kshot.tsv")
    from stages.benchmark.fine_tuning import workers as fine_tuning_workers

    trained = []
    original = fine_tuning_workers.fine_tune
    monkeypatch.setattr(fine_tuning_workers, "fine_tune", lambda *all: trained.append(1) or original(*all))
    task = FineTunedGlueTask(path=str(tmp_path), sets=("MNLI matched", "AX", "MNLI mismatched"), seeds=2, **SHORT)
    results = [result.score for result in task.measure(evaluated(), TaskContext(0))]
    assert [row["task"] for row in results] == [
        "GLUE MNLI matched, fine-tuned", "GLUE MNLI mismatched, fine-tuned", "GLUE AX, fine-tuned",
        "GLUE average, fine-tuned",
    ]  # fmt: skip
    assert len(trained) == 2 and "items of train.kshot.tsv; seed 0" in results[2]["note"]


@pytest.mark.usefixtures("fast_bf16")
def test_notes_describe_the_training_of_compressed_networks(tmp_path):
    write_toy(tmp_path, 16)
    task = FineTunedGlueTask(path=str(tmp_path), sets=("RTE",), seeds=1, **SHORT)
    model = evaluated()
    for name, words in (("int4", "float32 again"), ("prune", "its zero weights (50.0% of the matrices")):
        changed = type(model)(name, COMPRESSIONS[name](model.network), model.tokenizer, model.end_of_text, name * 16)
        assert words in task.measure(changed, TaskContext(0))[0].score["note"]


@pytest.mark.usefixtures("fast_bf16")
def test_a_training_that_diverges_is_a_row_without_score(tmp_path):
    write_toy(tmp_path, 16)
    task = FineTunedGlueTask(path=str(tmp_path), sets=("RTE",), seeds=1, learning_rate=1e20, **SHORT)
    (row,) = (result.score for result in task.measure(evaluated(), TaskContext(0)))
    assert (row["model"], row["value"]) == ("pretrained", None) and "diverged at step" in row["note"]


def test_missing_data_are_reported_with_the_file(tmp_path):
    write_toy(tmp_path, 8, files=("dev.tsv",))
    task = FineTunedGlueTask(path=str(tmp_path), sets=("RTE", "CoLA"))
    assert task.measure(evaluated(), TaskContext(0)) == [] and task.tokens() == 0
    notes = [result.score["note"] for result in task.baselines(TaskContext(0))]
    assert notes[0].startswith(f"not run: no data at {tmp_path}/CoLA/dev.tsv; get it with: ")
    assert notes[1].startswith(f"not run: no data at {tmp_path}/RTE/train.tsv or {tmp_path}/RTE/train.kshot.tsv; get")
    assert {tmp_path / "RTE" / "train.tsv", tmp_path / "CoLA" / "dev.tsv.gz"} <= set(task.data_files())


def test_rows_end_alike_and_truncate_the_first_sentence_s_beginning():
    model = evaluated(context_length=16)

    def encode(text):
        return model.tokenizer.encode(text).ids

    end, separator = model.end_of_text, encode("\n")
    short = sentence_row(["the fox", "the dog"], model)
    assert short == [end, *encode("the fox"), *separator, *encode("the dog"), *separator]
    row = sentence_row(["yes " * 30 + "no", "the dog"], model)
    assert (
        len(row) == 16 and row[0] == end and row[-len(encode("the dog")) - 1 :] == short[-len(encode("the dog")) - 1 :]
    )
    assert row[1:].count(encode(" no")[0]) >= 1
    assert len(sentence_row(["fox", "yes " * 40], model)) == 16 == len(sentence_row(["yes " * 40], model))


@pytest.mark.parametrize("name", ["CoLA", "MRPC", "STS-B"])
def test_tf_idf_is_scikit_learn_s(name):
    dataset = SETS_BY_NAME[name]
    items = read_examples(find_file(OWN_DATA / "glue" / dataset.folder, *dataset.files), dataset).items
    texts, labels = [sentences(item) for item in items], np.array([item["label"] for item in items], dtype=float)
    predictions = tf_idf_predictions(texts[:12], labels[:12], texts[12:], not dataset.labels)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(
        [text for item_texts in texts[:12] for text in item_texts]
    )
    parts = [vectorizer.transform(column) for column in zip(*texts, strict=True)]
    if len(parts) == 2:
        dense = [part.toarray() for part in parts]
        parts += [abs(dense[0] - dense[1]), dense[0] * dense[1]]
    features = hstack(parts).tocsr()
    model = LogisticRegression(C=1, max_iter=1000) if dataset.labels else Ridge()
    expected = model.fit(features[:12], labels[:12]).predict(features[12:])
    np.testing.assert_allclose(predictions, expected, rtol=1e-5)


def test_texts_without_words_and_labels_of_one_class():
    with pytest.raises(InputDataError, match="contain no words of two letters or more"):
        tf_idf_predictions([["?"], ["!"]], np.array([0.0, 1.0]), [["?"]], False)
    assert tf_idf_predictions([["fox"]], np.array([1.0]), [["?"], ["fox"]], False).tolist() == [1, 1]


def test_both_protocols_of_glue_can_be_in_one_config():
    tasks = [{"kind": "glue"}, {"kind": "glue_fine_tuned", "path": "glue"}]
    names = [name for task in BenchmarkConfig(tasks=tasks).tasks for name in task.names()]
    assert "GLUE CoLA" in names and "GLUE CoLA, fine-tuned" in names and NAME != REGRESSION_NAME
    with pytest.raises(ValidationError, match="'Cola' is not a set of GLUE"):
        FineTunedGlueTask(path="glue", sets=("Cola",))
