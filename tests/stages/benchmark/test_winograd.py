import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_schemas.errors import InputDataError
from stages.benchmark.winograd import OWN_ITEMS, WinogradItem, accuracy, pair_consistency, read_items, score, twins

SHARED = Path(__file__).parents[4] / "shared" / "data" / "benchmarks"
GOOD = {"qID": "a-1", "sentence": "The _ is here.", "option1": "cat", "option2": "dog", "answer": "1"}


@pytest.fixture
def shared_winograd() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the shared benchmark data are not there")
    return SHARED


def encode(text: str) -> list[int]:
    return list(text.encode())


def knows(*true_sentences: str):
    """A model that finds these sentences likelier than any other."""

    def log_likelihood(requests):
        return np.array([0.0 if bytes(prefix + rest).decode() in true_sentences else -1.0 for prefix, rest in requests])

    return log_likelihood


def test_own_items_are_pairs_one_word_apart_with_opposite_answers():
    items = read_items(OWN_ITEMS)
    pairs = twins(items)
    assert len(items) == 40
    assert len(pairs) == 20
    assert Counter(item.answer for item in items) == {1: 20, 2: 20}
    assert Counter(items[first].answer for first, _ in pairs) == {1: 10, 2: 10}
    for first, second in ((items[one], items[other]) for one, other in pairs):
        ours, theirs = first.sentence.split(), second.sentence.split()
        different = [place for place, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other]
        assert len(different) == 1
        # Behind the blank, where partial scoring looks.
        assert different[0] > next(place for place, word in enumerate(ours) if "_" in word)
        assert first.options == second.options
        assert first.answer != second.answer
        assert all(option.casefold() in first.sentence.casefold() for option in first.options)


def test_partial_scoring_asks_for_the_same_words_after_either_option():
    asked = []

    def log_likelihood(requests):
        asked.extend((bytes(prefix).decode(), bytes(rest).decode()) for prefix, rest in requests)
        return np.array([-3.0, -2.0])

    item = WinogradItem("x-1", "The trophy does not fit because _ is too large.", ("The trophy", "Ann's case"), 1)
    (result,) = score([item], encode, log_likelihood)
    assert asked == [
        ("The trophy does not fit because the trophy", " is too large."),
        ("The trophy does not fit because Ann's case", " is too large."),
    ]
    assert (result.log_likelihoods, result.predicted, result.correct) == ((-3.0, -2.0), 2, 0.0)


def test_articles_keep_their_capital_where_a_sentence_starts():
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
    results = score(items, encode, model)
    assert [result.predicted for result in results] == [1, 2, 1, 0, 1]
    assert accuracy(results) == (3 + 0.5) / 5
    assert twins(items) == [(0, 1), (2, 4)]
    assert pair_consistency(results, twins(items)) == 0.5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 is a JSON list; expected an object with qID, sentence, option1, option2, answer"),
        ({"option2": None}, "line 2: field 'option2' is missing; accepted is a string"),
        ({"option1": " "}, "line 2: field 'option1' is ' '"),
        ({"answer": 1}, "line 2: field 'answer' is 1; accepted is a string"),
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
    with pytest.raises(InputDataError, match="holds no items"):
        read_items(tmp_path / "empty.jsonl")


def test_the_real_files_are_read(shared_winograd):
    wsc = read_items(shared_winograd / "winograd" / "wsc273.jsonl")
    assert len(wsc) == 273
    assert all(wsc[one].sentence != wsc[other].sentence for one, other in twins(wsc))
    winogrande = read_items(shared_winograd / "winogrande" / "dev.jsonl")
    assert (len(winogrande), len(twins(winogrande))) == (1267, 284)
