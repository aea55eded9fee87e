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
from stages.benchmark.tasks.glue.data import BY_NAME, read_examples, sentences
from stages.benchmark.tasks.glue.fine_tuned import FineTunedGlueTask
from stages.benchmark.tasks.glue.tf_idf import NAME, NAME_OF_SCALE, tf_idf_predictions
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
        of = BY_NAME[name]
        (folder / of.folder).mkdir(exist_ok=True)
        data = find_file(OWN_DATA / "glue" / of.folder, *of.files).read_bytes()
        for file in (of.files[0], *of.train[:1]):
            (folder / of.folder / file).write_bytes(data)


@pytest.mark.usefixtures("fast_bf16")
def test_a_keyword_is_learnt_and_stands_beside_baselines(tmp_path):
    write_toy(tmp_path, 240)
    task = FineTunedGlueTask(
        path=str(tmp_path), sets=("RTE",), learning_rate=8e-3, epochs=6, batch_size=16, seeds=1, limit=60
    )
    score, average = (one.score for one in task.measure(evaluated(), TaskContext(0)))
    rows = {
        row["model"]: row
        for row in (one.score for one in task.baselines(TaskContext(0)))
        if row["task"] == score["task"]
    }
    assert score["task"] == "GLUE RTE, fine-tuned" and score["items"] == 60
    assert score["value"] > 0.95 and rows["majority class"]["value"] < 0.7 and rows[NAME]["value"] > 0.9
    assert score["note"] == f"trained on 240 items of train.tsv; seed 0: {score['value']:.4f}"
    assert "one seed" in score["protocol"] and average["metric"] == "mean of 1 tasks"


@pytest.mark.usefixtures("fast_bf16")
def test_scores_are_of_the_median_seeds_and_their_items_say_how(tmp_path):
    own_as_training(tmp_path, "MRPC", "STS-B")
    task = FineTunedGlueTask(path=str(tmp_path), sets=("MRPC", "STS-B"), seeds=3, learning_rate=5e-3, **SHORT)
    context = TaskContext(4, Folder(str(tmp_path / "work")))
    results = task.measure(evaluated(), context)
    assert [one.score["metric"] for one in results] == [
        "accuracy", "F1", "Pearson correlation", "Spearman correlation", "mean of 2 tasks",
    ]  # fmt: skip
    for result in results[:4]:
        of_seeds = [float(one.split(": ")[1]) for one in result.score["note"].partition("; ")[2].split(", ")]
        assert result.score["value"] == pytest.approx(sorted(of_seeds)[1], abs=1e-4)
        count = len(result.items)
        assert result.score["note"].startswith(f"trained on {count} items of train.tsv; seed 4: ")
        outputs = [json.loads(item["output"]) for item in result.items]
        columns = (np.array([one[key] for one in outputs]) for key in ("label", "predicted"))
        assert METRICS[result.score["metric"]](*columns) == pytest.approx(result.score["value"])
    assert results[0].items[0]["prompt"].count("\n") == 2
    model = evaluated()
    model.network.embedding = None
    assert [one.score for one in task.measure(model, context)] == [one.score for one in results]


@pytest.mark.usefixtures("fast_bf16")
def test_mnli_is_trained_once_for_all_that_is_asked_of_it(tmp_path, monkeypatch):
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
    results = [one.score for one in task.measure(evaluated(), TaskContext(0))]
    assert [row["task"] for row in results] == [
        "GLUE MNLI matched, fine-tuned", "GLUE MNLI mismatched, fine-tuned", "GLUE AX, fine-tuned",
        "GLUE average, fine-tuned",
    ]  # fmt: skip
    assert len(trained) == 2 and "items of train.kshot.tsv; seed 0" in results[2]["note"]


@pytest.mark.usefixtures("fast_bf16")
def test_networks_of_integers_and_zeros_say_what_became_of_them(tmp_path):
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
    (row,) = (one.score for one in task.measure(evaluated(), TaskContext(0)))
    assert (row["model"], row["value"]) == ("pretrained", None) and "diverged at step" in row["note"]


def test_what_is_absent_is_said_with_the_file_that_lacks(tmp_path):
    write_toy(tmp_path, 8, files=("dev.tsv",))
    task = FineTunedGlueTask(path=str(tmp_path), sets=("RTE", "CoLA"))
    assert task.measure(evaluated(), TaskContext(0)) == [] and task.tokens() == 0
    notes = [one.score["note"] for one in task.baselines(TaskContext(0))]
    assert notes[0].startswith(f"not run: no data at {tmp_path}/CoLA/dev.tsv; get it with: ")
    assert notes[1].startswith(f"not run: no data at {tmp_path}/RTE/train.tsv or {tmp_path}/RTE/train.kshot.tsv; get")
    assert {tmp_path / "RTE" / "train.tsv", tmp_path / "CoLA" / "dev.tsv.gz"} <= set(task.data_files())


def test_rows_end_alike_and_lose_the_first_sentence_s_beginning():
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
    of = BY_NAME[name]
    items = read_examples(find_file(OWN_DATA / "glue" / of.folder, *of.files), of).items
    known, labels = [sentences(item) for item in items], np.array([item["label"] for item in items], dtype=float)
    found = tf_idf_predictions(known[:12], labels[:12], known[12:], not of.labels)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(
        [text for one in known[:12] for text in one]
    )
    parts = [vectorizer.transform(column) for column in zip(*known, strict=True)]
    if len(parts) == 2:
        dense = [part.toarray() for part in parts]
        parts += [abs(dense[0] - dense[1]), dense[0] * dense[1]]
    features = hstack(parts).tocsr()
    model = LogisticRegression(C=1, max_iter=1000) if of.labels else Ridge()
    expected = model.fit(features[:12], labels[:12]).predict(features[12:])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_texts_without_words_and_labels_of_one_class():
    with pytest.raises(InputDataError, match="hold no words of two letters or more"):
        tf_idf_predictions([["?"], ["!"]], np.array([0.0, 1.0]), [["?"]], False)
    assert tf_idf_predictions([["fox"]], np.array([1.0]), [["?"], ["fox"]], False).tolist() == [1, 1]


def test_both_protocols_of_glue_stand_in_one_config():
    tasks = [{"kind": "glue"}, {"kind": "glue_fine_tuned", "path": "glue"}]
    names = [name for task in BenchmarkConfig(tasks=tasks).tasks for name in task.names()]
    assert "GLUE CoLA" in names and "GLUE CoLA, fine-tuned" in names and NAME != NAME_OF_SCALE
    with pytest.raises(ValidationError, match="'Cola' is no set of GLUE"):
        FineTunedGlueTask(path="glue", sets=("Cola",))
