import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.benchmark.tasks.squad.answers import (
    always_no_answer,
    most_similar_sentence,
    prompted_answers,
    squad_results,
)
from stages.benchmark.tasks.squad.data import SquadQuestion
from stages.benchmark.tasks.squad.prompt import INSTRUCTION, best_window, predicted_answer, prompt
from tests.stages.benchmark.tasks.squad.official_script import official_scores

FILLER = "Much else stands here. " * 30
PASSAGE = FILLER + "The mill at Arden was built by Ann Weir in 1802. " + FILLER
BUILT = SquadQuestion("q1", "Mills", PASSAGE, "Who built the mill at Arden?", ("Ann Weir",))
SOLD = SquadQuestion("q2", "Mills", PASSAGE, "Who sold the mill?", ())
GRINDS = SquadQuestion("q3", "Mills", "The mill grinds corn. It is old.", "What does the mill grind?", ("corn",))


def count(text: str) -> int:
    return len(text.split())


def test_a_prompt_that_fits_contains_the_whole_passage():
    assert prompt(GRINDS, count, 100) == (
        f"{INSTRUCTION}\n\nTitle: Mills\n\nBackground: The mill grinds corn. It is old.\n\n"
        "Question: What does the mill grind?\n\nAnswer:"
    )


@pytest.mark.parametrize("count_tokens", [count, len], ids=["words", "characters"])
def test_a_long_passage_is_truncated_to_the_relevant_window(count_tokens):
    limit = count_tokens(prompt(BUILT, count_tokens, 10**6)) // 4
    text = prompt(BUILT, count_tokens, limit)
    # Filled as far as whole words allow.
    assert limit - 10 <= count_tokens(text) <= limit
    assert "built by Ann Weir in 1802. Much" in text


def test_without_tokens_for_the_passage_the_question_remains():
    text = prompt(BUILT, count, 5)
    assert "Background: \n" in text
    assert text.endswith("Question: Who built the mill at Arden?\n\nAnswer:")


@given(
    st.lists(st.tuples(st.sampled_from(["mill", "Wheel,", "the", "race"]), st.integers(1, 4)), min_size=1, max_size=12),
    st.integers(1, 15),
)
def test_no_window_within_the_budget_shares_more_words(passage, budget):
    words, counts = zip(*passage, strict=True)

    def overlap(first: int, last: int) -> int:
        return len({word.strip(",").lower() for word in words[first:last]} & {"mill", "wheel"})

    first, last = best_window(words, counts, budget, "The mill wheel?")
    assert sum(counts[first:last]) <= budget
    runs = [(i, j) for i in range(len(words) + 1) for j in range(i, len(words) + 1) if sum(counts[i:j]) <= budget]
    assert overlap(first, last) == max(overlap(*run) for run in runs)


@pytest.mark.parametrize(
    ("generated", "answer"),
    [
        (" Ann Weir\nQuestion:", "Ann Weir"),
        (" Unanswerable.", ""),
        ("\nAnn", ""),
        ("unanswerable corn", "unanswerable corn"),
    ],
)
def test_the_answer_ends_with_the_line(generated, answer):
    assert predicted_answer(generated) == answer


def test_a_network_is_called_once_and_no_answer_scores_are_differences_of_likelihoods():
    requested = []

    def log_likelihood(pairs):
        requested.extend(pairs)
        return np.array([-9.0, -2.0, -1.0, -4.0])

    def generate(prompts):
        return [" Ann Weir\nmore", " unanswerable\n", " the old\n"]

    answers = prompted_answers([BUILT, SOLD, GRINDS], generate, log_likelihood, count, 60)
    assert [(answer.text, answer.no_answer_score) for answer in answers] == [("Ann Weir", -7), ("", 0), ("the old", 3)]
    continuations = [continuation for _, continuation in requested]
    assert continuations == [" unanswerable", " Ann Weir", " unanswerable", " the old"]
    assert requested[0][0] == answers[0].prompt == prompt(BUILT, count, 60)


def test_without_answers_no_likelihoods_are_computed():
    def log_likelihood(pairs):
        raise AssertionError(pairs)

    (answer,) = prompted_answers([SOLD], lambda prompts: ["\n"] * len(prompts), log_likelihood, count, 60)
    assert (answer.text, answer.no_answer_score) == ("", 0)


def test_results_are_the_official_scores_and_their_items_add_up_to_them():
    questions = [BUILT, SOLD, GRINDS]
    answers = most_similar_sentence(questions)
    assert answers[0].text == "The mill at Arden was built by Ann Weir in 1802."
    # The sentence contains all of the question's words but "who": who, built, mill, at, arden.
    assert answers[0].no_answer_score == pytest.approx(1 / 5)
    texts = {question.question_id: answer.text for question, answer in zip(questions, answers, strict=True)}
    no_answer_scores = {
        question.question_id: answer.no_answer_score for question, answer in zip(questions, answers, strict=True)
    }
    official = official_scores(questions, texts, no_answer_scores)
    results = squad_results("sentence", questions, answers, seed=0)
    assert [result.score["metric"] for result in results] == [
        "exact", "f1", "HasAns_f1", "NoAns_f1", "best_exact", "best_f1",
    ]  # fmt: skip
    for result in results:
        assert 100 * result.score["value"] == pytest.approx(official[result.score["metric"]])
        if result.items:
            assert sum(item["numerator"] for item in result.items) / len(result.items) == pytest.approx(
                result.score["value"]
            )
    assert [item["item"] for item in results[3].items] == ["q2"]
    assert json.loads(results[0].items[0]["output"])["accepted"] == ["Ann Weir"]


def test_no_answer_is_correct_for_unanswerable_questions():
    questions = [BUILT, SOLD, GRINDS]
    results = squad_results("no answer", questions, always_no_answer(questions), seed=0)
    values = {result.score["metric"]: result.score["value"] for result in results}
    assert (values["HasAns_f1"], values["NoAns_f1"], values["best_f1"]) == (0, 1, pytest.approx(1 / 3))
    only = squad_results("no answer", [BUILT], always_no_answer([BUILT]), seed=0)
    assert "NoAns_f1" not in [result.score["metric"] for result in only]
