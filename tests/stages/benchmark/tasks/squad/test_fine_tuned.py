import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_schemas.errors import InputDataError
from infra.store.filesystem import Folder
from stages.benchmark.task import TaskContext
from stages.benchmark.tasks.squad.answers import SquadAnswer, squad_results
from stages.benchmark.tasks.squad.data import SquadQuestion, read_questions
from stages.benchmark.tasks.squad.fine_tuned import FineTunedSquadTask
from stages.benchmark.tasks.squad.spans import (
    RowSettings,
    SpanRow,
    best_answer,
    best_span,
    span_rows,
    span_targets,
    windows,
)
from tests.stages.benchmark.networks import evaluated

WHOLE = RowSettings(stride=10, max_question_tokens=6)
NAMES = ["fox", "dog", "foxes", "question"]


def make_question(context, text=None, name="q1"):
    if text is None:
        return SquadQuestion(name, "Mills", context, "the fox", ())
    return SquadQuestion(name, "Mills", context, "the fox", (text,), (context.index(text),))


def write_toy(path, articles=4, questions=40):
    """Which animal is true; in half of the passages none is."""
    generator, data, number = np.random.default_rng(0), [], 0
    for article in range(articles):
        paragraphs = []
        for _ in range(questions):
            first, second = generator.choice(NAMES, size=2, replace=False)
            known = bool(generator.integers(2))
            context = f"{number} the {first} is {'True' if known else 'False'} and the {second} is False"
            answers = [{"text": f"{first} is True", "answer_start": context.index(first)}] if known else []
            entry = {"id": f"{number}", "question": "or is it True", "answers": answers, "is_impossible": not known}
            paragraphs.append({"context": context, "qas": [entry]})
            number += 1
        data.append({"title": f"Article {article}", "paragraphs": paragraphs})
    path.write_text(json.dumps({"version": "v2.0", "data": data}))
    return str(path)


@given(st.integers(1, 300), st.integers(1, 80), st.integers(1, 120))
def test_windows_fit_and_cover_every_token(tokens, size, stride):
    bounds = windows(tokens, size, stride)
    assert all(0 < last - first <= size for first, last in bounds)
    assert sorted({index for first, last in bounds for index in range(first, last)}) == list(range(tokens))
    assert len({first for first, _ in bounds}) == len(bounds)


def test_every_row_fits_and_its_characters_are_the_passage_s():
    model = evaluated(context_length=24)
    question = make_question("the dog and 12 foxes don't return " * 5, "foxes don't return")
    rows = span_rows([question, make_question("yes")], model, WHOLE)
    assert len(rows) > 3 and {len(row.tokens) for row in rows[:-2]} == {24} and rows[-1].question == 1
    for row in rows:
        assert row.tokens[0] == model.end_of_text and row.tokens[-1] == row.tokens[row.first - 1]
        context = (question.context, "yes")[row.question]
        text = model.tokenizer.decode(row.tokens[row.first : -1])
        assert text == context[row.characters[0][0] : row.characters[-1][1]]


def test_a_target_is_the_answer_if_the_window_contains_it_and_otherwise_the_last_token():
    model = evaluated(context_length=24)
    question = make_question("the dog and 12 foxes don't return " * 5, "foxes don't return")
    rows = span_rows([question], model, WHOLE)
    complete = 0
    for row, (first, start, end) in zip(rows, span_targets(rows, [question]).tolist(), strict=True):
        assert first == row.first
        if start == len(row.tokens) - 1:
            assert end == start
            assert (
                row.characters[0][0] > question.answer_starts[0]
                or row.characters[-1][1] < question.answer_starts[0] + 18
            )
        else:
            begin, last = row.characters[start - first][0], row.characters[end - first][1]
            assert question.context[begin:last].strip() == "foxes don't return" and begin < 24
            complete += 1
    assert 0 < complete < len(rows)
    unanswerable = span_rows([make_question("yes")], model, WHOLE)
    assert span_targets(unanswerable, [make_question("yes")]).tolist() == [
        [unanswerable[0].first, *[len(unanswerable[0].tokens) - 1] * 2]
    ]


def test_the_best_span_does_not_end_before_its_start_and_is_not_too_long():
    start, end = np.array([1.0, 5.0, 0.0, 2.0]), np.array([9.0, 0.0, 1.0, 3.0])
    assert best_span(start, end, 30) == (10.0, 0, 0)
    assert best_span(start[1:], end[1:], 30) == (8.0, 0, 2)  # 5 + 3, and not 5 + 9, which ends before it begins
    assert best_span(start[1:], end[1:], 2) == (6.0, 0, 1)
    assert best_span(np.zeros(3), np.zeros(3), 2) == (0.0, 0, 0)


def test_an_answer_by_hand():
    question = make_question("foxes don't return")
    characters = [(0, 5), (5, 11), (11, 18)]
    rows = [SpanRow(0, [0, 1, 2, 3], 1, characters[:2]), SpanRow(0, [0, 1, 4, 3], 1, characters[1:])]
    # (start, end) of a token before the passage, two of the passage, and the last one.
    unsure = np.array([[99, 99], [1, 0], [2, 1], [1.5, 2.0]])
    sure = np.array([[99, 99], [2, 0], [0, 3], [3, 2.5]])
    answer = best_answer(question, rows, [unsure, sure], 30)
    assert (answer.text, answer.best_text) == ("don't return", "don't return")
    assert answer.no_answer_score == 3.5 - 5  # the lower of 3.5 and 5.5, less 2 + 3
    assert answer.evidence["characters"] == [5, 18]
    no_answer = best_answer(question, rows[:1], [unsure], 30)
    assert (no_answer.text, no_answer.best_text, no_answer.no_answer_score) == ("", "don't", 0.5)
    assert best_answer(question, rows, [unsure, sure], 1).best_text in ("don't", "return")


def test_the_best_threshold_uses_answers_below_the_no_answer_score():
    question = make_question("foxes don't return", "foxes")
    answers = [SquadAnswer("", 0.5, {}, best_text="foxes")]
    values = {
        result.score["metric"]: result.score["value"] for result in squad_results("m", [question], answers, 0, "other")
    }
    assert (values["exact"], values["best_exact"], values["best_f1"]) == (0, 1, 1)


@pytest.mark.usefixtures("fast_bf16")
def test_spans_and_their_absence_are_learned(tmp_path):
    path = write_toy(tmp_path / "toy.json")
    task = FineTunedSquadTask(
        path=path, train_articles=3, learning_rate=8e-3, epochs=10, batch_size=16, seeds=1, max_answer_tokens=12
    )
    context = TaskContext(0, Folder(str(tmp_path / "work")))
    results = task.measure(evaluated(context_length=48), context)
    values = {result.score["metric"]: result.score["value"] for result in results}
    baselines = {
        row["model"]: row["value"]
        for row in (result.score for result in task.baselines(context)) if row["metric"] == "exact"
    }  # fmt: skip
    assert values["exact"] > 0.9 > 0.7 > baselines["no answer"] and values["NoAns_f1"] > 0.8 < values["HasAns_f1"]
    assert baselines["most similar sentence"] == 0
    score, item = results[0].score, json.loads(results[0].items[0]["output"])
    assert (score["task"], score["items"]) == ("SQuAD 2.0, fine-tuned", 40)
    assert "trained on the first 3 articles of the file" in score["protocol"]
    assert score["note"].startswith("trained on 120 questions; F1 of seed 0: ")
    assert (item["predicted"] == "") == (item["no_span_score"] > item["span_score"])
    broken = evaluated(context_length=48)
    broken.network.embedding = None
    assert task.measure(broken, context) == results


def test_training_on_what_is_scored_is_refused(tmp_path):
    path = write_toy(tmp_path / "toy.json", questions=2)
    with pytest.raises(
        ValidationError, match="scored on its training questions; set another training file, or train_art"
    ):
        FineTunedSquadTask(path=path, train_path=path)
    with pytest.raises(ValidationError, match="remove one of the two"):
        FineTunedSquadTask(path=path, train_path="other.json", train_articles=1)
    copy = tmp_path / "copy.json"
    copy.write_text((tmp_path / "toy.json").read_text())
    with pytest.raises(InputDataError, match="the passages of 8 training questions, such as '0', are also scored"):
        FineTunedSquadTask(path=path, train_path=str(copy)).baselines(TaskContext(0))
    with pytest.raises(InputDataError, match=r"train_articles is 4 and .* has 4 articles; accepted is up to 3"):
        FineTunedSquadTask(path=path, train_path=path, train_articles=4).baselines(TaskContext(0))


def test_training_answers_need_offsets(tmp_path):
    path, bare = write_toy(tmp_path / "toy.json", questions=2), tmp_path / "train.json"
    document = json.loads((tmp_path / "toy.json").read_text().replace("the", "a"))
    answers = [a for article in document["data"] for p in article["paragraphs"] for q in p["qas"] for a in q["answers"]]
    for answer in answers:
        del answer["answer_start"]
    bare.write_text(json.dumps(document))
    assert not read_questions(bare)[0].answer_starts
    with pytest.raises(InputDataError, match=r"train.json, question '\d': its answers have no field 'answer_start'"):
        FineTunedSquadTask(path=path, train_path=str(bare)).baselines(TaskContext(0))


def test_missing_data_are_reported(tmp_path):
    def note(**fields):
        task = FineTunedSquadTask(path=str(tmp_path / "dev.json"), **fields)
        assert task.measure(evaluated(), TaskContext(0)) == [] and task.tokens() == 0
        return task.baselines(TaskContext(0))[0].score["note"]

    assert note().startswith(f"not run: no data at {tmp_path}/dev.json; get it with: curl -LO https://rajpurkar")
    write_toy(tmp_path / "dev.json", questions=2)
    assert note().startswith("not run: train_path is not set; get a training file with: curl -LO")
    assert note(train_path=str(tmp_path / "train.json")).startswith(f"not run: no data at {tmp_path}/train.json; get")
    task = FineTunedSquadTask(path=str(tmp_path / "dev.json"), train_articles=1)
    assert task.tokens() > 0 and task.data_files() == [tmp_path / "dev.json"]
