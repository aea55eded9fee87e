import json

import pytest

from data_schemas.errors import InputDataError
from infra.store.filesystem import Folder
from stages.benchmark.data_files import OWN_DATA, find_file
from stages.benchmark.harness.run_task import load_task, run_task
from stages.benchmark.task import TaskContext
from stages.benchmark.tasks.word_problems.data import WORD_PROBLEM_SETS, final_answer
from stages.benchmark.tasks.word_problems.task import WordProblemTask, majority_votes
from tests.stages.benchmark.networks import evaluated

PROBLEMS = {
    "gsm8k": {"id": "0", "question": "?", "answer": "Half of 144 is 72.\n#### 72"},
    "svamp": {"id": "0", "question": "?", "answer": "145"},
    "aqua": {"id": "0", "question": "?", "options": "(a) 1 (b) 2 (c) 3 (d) 4 (e) 5", "answer": "c"},
}
GOLDEN = [
    # data, generated text, correct by the strict rule, correct by the flexible rule
    ("gsm8k", "48 + 24 = 72\n#### 72", 1, 1),
    ("gsm8k", "It is 72.", 0, 1),
    ("gsm8k", "#### 72 and then 5 more", 1, 0),
    ("gsm8k", "#### $72", 0, 1),
    ("gsm8k", "So 72,000 / 1000\n#### 72.", 1, 1),
    ("gsm8k", "#### 1,072", 0, 0),
    ("gsm8k", "#### -72", 0, 0),
    ("gsm8k", "no number at all", 0, 0),
    ("gsm8k", "", 0, 0),
    ("svamp", " 100 + 45 = 145. The answer is 145.", 1, 1),
    ("svamp", " The answer is 145.0.", 1, 1),
    ("svamp", " The answer is 1,45.", 1, 1),  # commas do not count, as in the harness
    ("svamp", " It is $145", 0, 1),
    ("svamp", " The answer is 14.", 0, 0),
    ("svamp", " The answer is 145.5.", 0, 0),
    ("aqua", " 1 + 2 = 3. The answer is (c).", 1, 1),
    ("aqua", " The answer is C.", 1, 1),
    ("aqua", " The answer is: (C)", 1, 1),
    ("aqua", " It must be (c)", 0, 1),
    ("aqua", " (a) is wrong, so C", 0, 1),
    ("aqua", " The answer is (d), not (c)", 0, 1),
    ("aqua", " A train is late", 0, 0),
    ("aqua", " The answer is clear.", 0, 0),
]


class Writer:
    """Generates the given texts in order."""

    def __init__(self, texts):
        self.texts = texts

    def generate_until(self, requests):
        assert len(requests) == len(self.texts)
        return self.texts


@pytest.mark.parametrize("data", PROBLEMS)
def test_answers_are_extracted_by_each_set_s_rules(data):
    cases = [case for case in GOLDEN if case[0] == data]
    items = run_task(data, [PROBLEMS[data]] * len(cases), [], Writer([text for _, text, _, _ in cases]))
    for (_, text, strict, flexible), item in zip(cases, items, strict=True):
        correct = tuple(item.metrics[rule]["exact_match"] for rule in ("strict", "flexible"))
        assert correct == (strict, flexible), (text, item.extracted)


@pytest.mark.parametrize(("data", "shared", "rows"), [
    ("gsm8k", "math/gsm8k", 500), ("svamp", "math/svamp", 1_000), ("aqua", "math/aqua", 254),
])  # fmt: skip
def test_the_real_files_are_read_whole(shared_data, data, shared, rows):
    problem_set = WORD_PROBLEM_SETS[data]
    problems = problem_set.read(find_file(shared_data / "benchmarks" / shared, *problem_set.files))
    assert len(problems) == rows == len({problem["id"] for problem in problems})
    assert all(len(final_answer(problem)) <= 12 for problem in problems)


@pytest.mark.parametrize("data", WORD_PROBLEM_SETS)
def test_own_problems_and_examples_agree_with_the_rules(data):
    """Each few-shot example, as the answer to its own question, is correct by the strict rule."""
    problem_set = WORD_PROBLEM_SETS[data]
    problems = problem_set.read(find_file(OWN_DATA / data, *problem_set.files))
    assert len(problems) == 20
    examples = problem_set.read_examples(
        find_file(OWN_DATA / data, *problem_set.examples) if problem_set.examples else None
    )
    assert len(examples) >= 4
    task = load_task(data, problems[:1], examples[:2])
    task.build_all_requests(rank=0, world_size=1)
    prompt, settings = task.instances[0].args
    assert prompt.count("\n\n") == 2 and prompt.endswith(("Answer:", "A:"))
    assert not any(stop in example["answer"] for example in examples for stop in settings["until"])
    documents = [{**problems[0], "answer": final_answer(example)} for example in examples]
    items = run_task(data, documents, [], Writer([example["answer"] for example in examples]))
    extracted = [item.extracted["strict"] for item in items]
    assert "[invalid]" not in extracted
    if data != "svamp":  # whose examples are from elsewhere and have no separate answer
        assert data == "aqua" or all(item.metrics["strict"]["exact_match"] for item in items)


def test_only_extracted_answers_vote(monkeypatch):
    assert majority_votes([["7", "[invalid]", "8", "8"], ["[invalid]"] * 2, ["5", "6"]], None) == [
        ["8"],
        ["[invalid]"],
        ["5"],
    ]
    task = WordProblemTask(data="gsm8k", examples=0, votes=3, limit=2)
    texts = ["#### 1", "#### 39", "#### 39", "no", "no", "#### 14"]
    monkeypatch.setattr("stages.benchmark.harness.run_task.harness_model", lambda model, context: Writer(texts))
    monkeypatch.setattr(
        "stages.benchmark.tasks.word_problems.task.sample_items", lambda items, limit, seed: list(items[:2])
    )
    strict, flexible = task.measure(evaluated(), TaskContext(0))
    assert strict.score["value"] == 1 and "vote of 3 at temperature 0.7" in strict.score["protocol"]
    assert json.loads(strict.items[0]["output"])["responses"] == texts[:3] and len(flexible.items) == 2


@pytest.mark.parametrize(
    ("data", "texts", "answer"),
    [
        ("gsm8k", ["It is 39.", "39", "is $39", "so 8", "= 8"], "39."),
        ("svamp", ["1,000", "1000.0", "$1000.", "= 8", "is 8"], "1,000"),
        ("aqua", ["It is (b)", "(C)", "so (c)", "(d)", "is (e)"], "C"),
    ],
)
def test_answers_that_are_equal_by_the_rules_vote_together(monkeypatch, data, texts, answer):
    task = WordProblemTask(data=data, examples=0, votes=5, limit=1)
    monkeypatch.setattr("stages.benchmark.harness.run_task.harness_model", lambda model, context: Writer(texts))
    flexible = task.measure(evaluated(), TaskContext(0))[1]
    assert json.loads(flexible.items[0]["output"])["extracted"]["flexible"] == answer


@pytest.mark.parametrize(
    ("data", "row", "message"),
    [
        ("gsm8k", {"question": "?", "answer": 72}, "field 'answer' is 72; accepted is text"),
        ("svamp", {"ID": "1", "Body": 3, "Question": "?", "Answer": 1}, "field 'Body' is 3; accepted is text"),
        (
            "svamp",
            {"ID": "1", "Body": "", "Question": "?", "Answer": "nan"},
            "field 'Answer' is 'nan'; accepted is a finite",
        ),
        ("aqua", {"question": "?", "options": [1, 2, 3, 4, 5], "correct": "A"}, "0 options as text and the answer 'A'"),
        ("aqua", {"question": "?", "options": 5, "correct": "A"}, "0 options as text and the answer 'A'"),
    ],
)
def test_errors_name_the_field(tmp_path, data, row, message):
    (tmp_path / "items.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputDataError, match=message):
        WORD_PROBLEM_SETS[data].read(tmp_path / "items.jsonl")


@pytest.mark.parametrize(("number", "answer"), [(1234567.0, "1234567"), (145.0, "145"), ("0.125", "0.125"), (0, "0")])
def test_numbers_keep_all_their_digits(tmp_path, number, answer):
    row = {"ID": "1", "Body": "b", "Question": "q", "Answer": number}
    (tmp_path / "items.jsonl").write_text(json.dumps(row))
    assert WORD_PROBLEM_SETS["svamp"].read(tmp_path / "items.jsonl")[0]["answer"] == answer


def test_answers_of_a_network_are_stored_with_their_prompts(tmp_path):
    task = WordProblemTask(data="svamp", examples=1, limit=3, max_new_tokens=6)
    model, context = evaluated(), TaskContext(0, Folder(str(tmp_path)))
    results = task.measure(model, context)
    assert [result.score["metric"] for result in results] == ["accuracy, strict", "accuracy, flexible"]
    assert [result.score["items"] for result in results] == [3, 3]
    assert results[0].items[0]["prompt"].startswith("Q: There are 15 trees in the grove.")
    model.network.head = None
    assert task.measure(model, context) == results


def test_missing_data_are_reported(tmp_path):
    def rows(**fields):
        return [result.score for result in WordProblemTask(path=str(tmp_path), **fields).baselines(TaskContext(0))]

    assert WordProblemTask(data="aqua", path=str(tmp_path)).measure(evaluated(), TaskContext(0)) == []
    absent = rows(data="aqua")
    assert [row["value"] for row in absent] == [None, None]
    assert absent[0]["note"].startswith(f"not run: no data at {tmp_path}/test.json or {tmp_path}/dev.json; get it with")
    (tmp_path / "test.jsonl").write_bytes((OWN_DATA / "gsm8k" / "test.jsonl").read_bytes())
    assert rows(data="gsm8k")[0]["note"].endswith("; or set examples: 0")
    values = {row["model"]: row["value"] for row in rows(data="gsm8k", examples=0)}
    assert values == {"majority class": 2 / 20}
    (tmp_path / "test.jsonl").write_text('{"question": "?", "answer": "72"}\n')
    with pytest.raises(InputDataError, match="line 1: field 'answer' has no '####'"):
        rows(data="gsm8k", examples=0)
