import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import InputDataError
from stages.benchmark.tasks.squad.data import SquadQuestion, read_questions
from stages.benchmark.tasks.squad.official_scores import (
    best_threshold,
    exact_match,
    f1_score,
    normalize_answer,
    question_scores,
)
from tests.stages.benchmark.tasks.squad.official_script import official_scores, with_threshold

words = st.lists(st.sampled_from(["the", "A", "mill", "Mill,", "wheel", "an-", "42", "!"]), max_size=6).map(" ".join)


def question(name: str, *answers: str) -> SquadQuestion:
    return SquadQuestion(name, "Mills", "The mill has a wheel.", "What has it?", answers)


def document(**changes) -> dict:
    """A file in the official layout, with changes to its second question."""
    second = {"id": "q2", "question": "Who built it?", "answers": [], "is_impossible": True, "plausible_answers": []}
    first = {"id": "q1", "question": "What?", "answers": [{"text": "wheel", "answer_start": 15}]}
    changed = {name: value for name, value in (second | changes).items() if value is not ...}
    paragraph = {"context": "The mill has a wheel.", "qas": [first, changed]}
    return {"version": "v2.0", "data": [{"title": "Mills", "paragraphs": [paragraph]}]}


@pytest.mark.parametrize("name", ["dev.json", "dev.json.gz"])
def test_reads_the_official_layout(tmp_path, name):
    data = json.dumps(document()).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    first, second = read_questions(tmp_path / name)
    assert first == SquadQuestion("q1", "Mills", "The mill has a wheel.", "What?", ("wheel",), (15,))
    assert (second.answers, second.has_answer) == ((), False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "dev.json cannot be read as JSON"),
        ([], 'dev.json is a JSON list; expected is {"version"'),
        ({"data": []}, "dev.json contains no questions"),
        ({"data": [{"paragraphs": []}]}, "dev.json, article 0: field 'title' is missing; accepted is a string"),
        ({"data": ["Mills"]}, "dev.json, article 0 is \"Mills\"; accepted is an object with 'title'"),
        (
            {"data": [{"title": "Mills", "paragraphs": [{"context": 3}]}]},
            "article 0 ('Mills'), paragraph 0: field 'context' is 3; accepted is a string that is not empty",
        ),
        (document(id=7), "article 0 ('Mills'), paragraph 0, question 1: field 'id' is 7; accepted is a string"),
        (document(id="q1"), "question 'q1': field 'id' equals that of an earlier question"),
        (document(question=" "), "paragraph 0, question 'q2': field 'question' is \" \""),
        (
            document(answers=...),
            "question 'q2': field 'answers' is missing; accepted is a list (the answers of the official test",
        ),
        (document(answers=[{"text": None}]), "question 'q2', answer 0: field 'text' is null"),
        (document(answers=[{"text": "wheel"}]), "field 'is_impossible' is true with 1 answers"),
        (
            document(answers=[{"text": "wheel", "answer_start": 14}], is_impossible=False),
            "answer 0: field 'answer_start' is 14, where the context has ' whee'; accepted is the number of characters",
        ),
        (
            document(answers=[{"text": "wheel", "answer_start": -6}], is_impossible=False),
            "is -6, where the context has no",
        ),
        (document(answers=[{"text": "wheel", "answer_start": "15"}], is_impossible=False), "'answer_start' is \"15\""),
        (
            document(answers=[{"text": "wheel", "answer_start": 15}, {"text": "mill"}], is_impossible=False),
            "question 'q2': 1 of 2 answers have a field 'answer_start'; accepted are all or none",
        ),
        (document(is_impossible=...), "field 'is_impossible' is false with 0 answers"),
        (document(is_impossible="yes"), "field 'is_impossible' is \"yes\"; accepted is true or false"),
    ],
)
def test_errors_name_file_article_question_and_field(tmp_path, content, message):
    path = tmp_path / "dev.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputDataError) as caught:
        read_questions(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Mill's\twheel.", "mills wheel"),
        ("a theory an' anthem", "theory anthem"),
        ("the-a", "thea"),
        ("Un étang", "un étang"),
        ("“quoted”", "“quoted”"),
        ("The.", ""),
    ],
)
def test_normalized_as_the_script_does(text, normal):
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("gold", "prediction", "exact", "f1"),
    [
        ("the mill wheel", "Mill wheel!", 1, 1),
        ("mill wheel", "old mill", 0, 0.5),
        # One of two "mill"s matches: precision 1/2, recall 1/3.
        ("mill stone race", "mill mill", 0, 0.4),
        ("mill", "race", 0, 0),
        ("", "", 1, 1),
        ("", "the", 1, 1),
        ("", "mill", 0, 0),
        ("mill", "", 0, 0),
    ],
)
def test_scores_by_hand(gold, prediction, exact, f1):
    assert exact_match(gold, prediction) == exact
    assert f1_score(gold, prediction) == pytest.approx(f1)


def test_the_best_marked_answer_counts_and_answers_without_words_do_not():
    assert question_scores(question("q", "water wheel", "wheel"), "the wheel") == (1, 1)
    assert question_scores(question("q", "wheel", "the"), "") == (0, 0)
    # Nothing but an article: scored as no answer, for a question that has one.
    assert question_scores(question("q", "the"), "") == (1, 1)


QUESTIONS = [question("a", "mill wheel"), question("b", "water"), question("c"), question("d"), question("e", "race")]
PREDICTIONS = {"a": "the mill wheel", "b": "cold water", "c": "", "d": "mill", "e": ""}


def test_the_whole_table_by_hand():
    # f1 of b: precision 1/2, recall 1, so 2/3; a, c right; d, e wrong.
    results = official_scores(QUESTIONS, PREDICTIONS)
    assert results == pytest.approx({
        "exact": 40, "f1": 100 * (1 + 2 / 3 + 1) / 5, "total": 5,
        "HasAns_exact": 100 / 3, "HasAns_f1": 100 * (1 + 2 / 3) / 3, "HasAns_total": 3,
        "NoAns_exact": 50, "NoAns_f1": 50, "NoAns_total": 2,
    })  # fmt: skip
    no_answer_scores = {"a": -2.0, "b": 0.5, "c": 0.1, "d": 0.7, "e": 3.0}
    results = official_scores(QUESTIONS, PREDICTIONS, no_answer_scores, threshold=0.6)
    # d counts as no answer, which is correct; e too, which changes nothing.
    assert (results["exact"], results["NoAns_exact"]) == (60, 100)
    # Starts with 2 correct of 5; a makes 3; b adds 2/3 of f1 and nothing of exact; d would subtract 1.
    assert (results["best_exact"], results["best_exact_thresh"]) == (60, -2.0)
    assert (results["best_f1"], results["best_f1_thresh"]) == (pytest.approx(100 * (3 + 2 / 3) / 5), 0.5)


def test_questions_of_one_kind_have_no_scores_of_the_other():
    assert not [name for name in official_scores(QUESTIONS[:2], PREDICTIONS) if name.startswith("NoAns")]


@given(words, words)
def test_f1_is_symmetric_bounded_and_one_for_the_same_words(gold, prediction):
    f1 = f1_score(gold, prediction)
    assert f1 == pytest.approx(f1_score(prediction, gold))
    assert exact_match(gold, prediction) <= f1 <= 1
    assert (f1 == 1) == (sorted(normalize_answer(gold).split()) == sorted(normalize_answer(prediction).split()))
    assert normalize_answer(normalize_answer(gold)) == normalize_answer(gold)


rows = st.lists(st.tuples(st.sampled_from([(), ("mill wheel",), ("a", "race")]), words), min_size=1, max_size=8)


@given(rows, st.data())
def test_best_threshold_is_the_best_of_all_thresholds(drawn, data):
    questions = [question(str(index), *answers) for index, (answers, _) in enumerate(drawn)]
    predictions = [prediction for _, prediction in drawn]
    # Distinct scores: with equal ones, the script counts cuts that no threshold makes.
    no_answer_scores = data.draw(st.permutations([float(score) for score in range(1, len(drawn) + 1)]))
    scores = [question_scores(item, text).f1 for item, text in zip(questions, predictions, strict=True)]

    def mean(threshold: float) -> float:
        kept = [with_threshold(*row, threshold) for row in zip(questions, scores, no_answer_scores, strict=True)]
        return 100 * sum(kept) / len(kept)

    results = best_threshold(questions, scores, predictions, no_answer_scores)
    # The script counts any text as a wrong answer to an unanswerable question, "the" too, whose own score is 1.
    if not any(text and not normalize_answer(text) for text in predictions):
        assert results.score == pytest.approx(max(mean(threshold) for threshold in (0.0, *no_answer_scores)))
        assert results.score == pytest.approx(mean(results.threshold))
    assert results.score >= 100 * sum(not item.has_answer for item in questions) / len(questions)


def test_a_broken_gzip_file_is_named(tmp_path):
    data = bytearray(gzip.compress(b'{"data": []}' * 500))
    data[14:30] = b"\xff" * 16
    (tmp_path / "dev.json.gz").write_bytes(data)
    with pytest.raises(InputDataError, match=r"dev\.json\.gz cannot be read as JSON"):
        read_questions(tmp_path / "dev.json.gz")
