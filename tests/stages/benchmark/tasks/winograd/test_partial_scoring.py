import json
from collections import Counter

import numpy as np
import pytest

from data_schemas.errors import InputDataError
from modeling.evaluation.bits_per_byte import log_likelihoods
from stages.benchmark.task import TaskContext
from stages.benchmark.tasks.winograd.partial_scoring import OWN_ITEMS, WinogradItem, read_items, score, twin_pairs
from stages.benchmark.tasks.winograd.task import WinogradTask
from stages.benchmark.tasks.winograd.xml_format import read_xml
from tests.stages.benchmark.networks import evaluated

GOOD = {"qID": "a-1", "sentence": "The _ is here.", "option1": "cat", "option2": "dog", "answer": "1"}


def accuracy(results):
    return sum(result.correct for result in results) / len(results)


def pair_consistency(results, pairs):
    return sum(results[first].correct * results[second].correct for first, second in pairs) / len(pairs)


def knows(*true_sentences: str):
    """A model for which these sentences are more likely than any other."""

    def log_likelihood(requests):
        return np.array([0.0 if before + after in true_sentences else -1.0 for before, after in requests])

    return log_likelihood


def test_own_items_are_pairs_one_word_apart_with_opposite_answers():
    items = read_items(OWN_ITEMS)
    pairs = twin_pairs(items)
    assert len(items) == 40
    assert len(pairs) == 20
    assert Counter(item.answer for item in items) == {1: 20, 2: 20}
    assert Counter(items[first].answer for first, _ in pairs) == {1: 10, 2: 10}
    for first, second in ((items[i], items[j]) for i, j in pairs):
        ours, theirs = first.sentence.split(), second.sentence.split()
        different = [index for index, (word, other) in enumerate(zip(ours, theirs, strict=True)) if word != other]
        assert len(different) == 1
        # After the blank, in the words that partial scoring compares.
        assert different[0] > next(index for index, word in enumerate(ours) if "_" in word)
        assert first.options == second.options
        assert first.answer != second.answer
        assert all(option.casefold() in first.sentence.casefold() for option in first.options)


def test_partial_scoring_requests_the_same_words_after_either_option():
    requested = []

    def log_likelihood(requests):
        requested.extend(requests)
        return np.array([-3.0, -2.0])

    item = WinogradItem("x-1", "The trophy does not fit because _ is too large.", ("The trophy", "Ann's case"), 1)
    (result,) = score([item], log_likelihood)
    assert requested == [
        ("The trophy does not fit because the trophy", " is too large."),
        ("The trophy does not fit because Ann's case", " is too large."),
    ]
    assert (result.log_likelihoods, result.predicted, result.correct) == ((-3.0, -2.0), 2, 0.0)


def test_articles_stay_capitalized_at_the_start_of_a_sentence():
    item = WinogradItem("x-1", 'It rained. "_ is wet."', ("The dog", "A cat"), 1)
    assert item.completions()[0] == ('It rained. "The dog', ' is wet."')


def test_scores_and_pairs_by_hand():
    items = [
        WinogradItem("a-1", "The _ bit.", ("cat", "dog"), 1),
        WinogradItem("a-2", "The _ barked.", ("cat", "dog"), 2),
        WinogradItem("b-2", "The _ sank.", ("boat", "cork"), 1),
        WinogradItem("lonely", "The _ rose.", ("sun", "sea"), 1),
        WinogradItem("b-1", "The _ swam.", ("boat", "cork"), 2),
    ]
    model = knows("The cat bit.", "The dog barked.", "The boat sank.", "The boat swam.")
    results = score(items, model)
    assert [result.predicted for result in results] == [1, 2, 1, 0, 1]
    assert accuracy(results) == (3 + 0.5) / 5
    assert twin_pairs(items) == [(0, 1), (2, 4)]
    assert pair_consistency(results, twin_pairs(items)) == 0.5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[1]", "line 2 is a JSON list; expected is an object with qID, sentence, option1, option2, answer"),
        ({"option2": None}, "line 2: field 'option2' is missing; accepted is a non-empty string"),
        ({"option1": " "}, "line 2: field 'option1' is ' '"),
        ({"answer": 1}, "line 2: field 'answer' is 1; accepted is a non-empty string"),
        ({"answer": ""}, "the official test split has no public answers"),
        ({"answer": "3"}, "line 2: field 'answer' is '3'; accepted are \"1\" and \"2\""),
        ({"sentence": "No gap."}, "line 2: field 'sentence' has 0 blanks `_`; accepted is exactly one"),
        ({"sentence": "I see _ "}, "line 2: field 'sentence' ends at its blank"),
        ({"qID": "a-1"}, "line 2: field 'qID' is 'a-1', as on line 1"),
    ],
)
def test_errors_name_file_line_field_and_what_is_accepted(tmp_path, line, message):
    path = tmp_path / "items.jsonl"
    bad = line if isinstance(line, str) else json.dumps(GOOD | {"qID": "a-2"} | line)
    path.write_text(json.dumps(GOOD) + "\n" + bad + "\n")
    with pytest.raises(InputDataError) as caught:
        read_items(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_unreadable_and_empty_files_are_user_errors(tmp_path):
    with pytest.raises(InputDataError, match="cannot be read"):
        read_items(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputDataError, match="contains no items"):
        read_items(tmp_path / "empty.jsonl")


def test_the_real_files_are_read(shared_data):
    wsc = read_items(shared_data / "benchmarks" / "winograd" / "wsc273.jsonl")
    assert len(wsc) == 273
    assert all(wsc[first].sentence != wsc[second].sentence for first, second in twin_pairs(wsc))
    winogrande = read_items(shared_data / "benchmarks" / "winogrande" / "dev.jsonl")
    assert (len(winogrande), len(twin_pairs(winogrande))) == (1267, 284)


def test_the_xml_is_the_same_challenge_as_the_json_lines(shared_data):
    items = read_xml(shared_data / "benchmarks" / "winograd" / "WSCollection.xml")
    lines = read_items(shared_data / "benchmarks" / "winograd" / "wsc273.jsonl")
    assert len(items) == 285 and len(lines) == 273
    assert len(twin_pairs(items)) > 120
    first, second = items[0].completions()
    assert first == (
        "The city councilmen refused the demonstrators a permit because the city councilmen",
        " feared violence.",
    )
    assert items[0].answer == 1 and second[0].endswith("because the demonstrators")
    assert items[208].options == ("Emma's", "Emma's mother's") and items[216].options == ("Jim's", "the barman's")
    assert all(after.strip() for item in items for _, after in item.completions())


SCHEMA = """<?xml version="1.0"?><collection><schema><text><txt1>Ann thanked Eve, as</txt1><pron>she</pron>
<txt2>had helped.</txt2></text><answers><answer>Ann</answer><answer> Eve </answer></answers>
<correctAnswer> B. </correctAnswer></schema></collection>"""


def test_a_schema_of_the_xml(tmp_path):
    (tmp_path / "w.xml").write_text(SCHEMA)
    assert read_xml(tmp_path / "w.xml") == [
        WinogradItem("1", "Ann thanked Eve, as _ had helped.", ("Ann", "Eve"), 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<answer>Ann</answer>", "", "schema 1: <answers> contains 1 answers"),
        (" B. ", "C", "<correctAnswer> is 'C'; accepted are A and B"),
        ("had helped.", "", "<text/txt2> is missing or empty"),
        ("</collection>", "", "cannot be read as XML"),
    ],
)
def test_errors_name_the_schema(tmp_path, old, new, message):
    (tmp_path / "w.xml").write_text(SCHEMA.replace(old, new))
    with pytest.raises(InputDataError, match=message):
        read_xml(tmp_path / "w.xml")


def test_the_task_reports_partial_scores(tmp_path):
    model = evaluated(context_length=256)
    accuracy_row, pairs_row = (result.score for result in WinogradTask().measure(model, TaskContext(0)))
    tests = read_items(OWN_ITEMS)

    def log_likelihood(requests):
        tokens = [tuple(model.tokenizer.encode(text).ids for text in pair) for pair in requests]
        return log_likelihoods(model.network, tokens, 256, 500, model.end_of_text)

    results = score(tests, log_likelihood)
    assert accuracy_row["value"] == accuracy(results) and accuracy_row["items"] == 40
    assert pairs_row["value"] == pair_consistency(results, twin_pairs(tests)) and pairs_row["items"] == 20
    chances = [result.score["value"] for result in WinogradTask().baselines(TaskContext(0))]
    assert chances == [0.5, 0.25]
    absent = WinogradTask(path=f"{tmp_path}/no.jsonl")
    assert absent.measure(model, TaskContext(0)) == []
    assert absent.baselines(TaskContext(0))[0].score["note"].startswith("not run: no data at")


def test_letters_that_join_the_option_have_a_score(tmp_path):
    path = tmp_path / "joined.jsonl"
    path.write_text(json.dumps(GOOD | {"sentence": "The _es are here.", "option1": "fox", "option2": "dog"}))
    (result, *_) = WinogradTask(path=str(path)).measure(evaluated(context_length=256), TaskContext(0))
    assert np.isfinite(json.loads(result.items[0]["output"])["log_likelihoods"]).all()
