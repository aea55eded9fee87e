import json

import pytest

from data_schemas.errors import InputDataError
from infra.store.filesystem import Folder
from stages.benchmark.data_files import OWN_DATA, find_file
from stages.benchmark.harness.run_task import load_task, run_task
from stages.benchmark.task import TaskContext
from stages.benchmark.tasks.word_problems.data import READERS, final_answer
from stages.benchmark.tasks.word_problems.task import WordProblemTask, votes
from tests.stages.benchmark.networks import evaluated

PROBLEMS = {
    "gsm8k": {"id": "0", "question": "?", "answer": "Half of 144 is 72.\n#### 72"},
    "svamp": {"id": "0", "question": "?", "answer": "145"},
    "aqua": {"id": "0", "question": "?", "options": "(a) 1 (b) 2 (c) 3 (d) 4 (e) 5", "answer": "c"},
}
GOLDEN = [
    # data, what the model wrote, right by the strict rule, right by the flexible one
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
    """Writes given texts, one after the other."""

    def __init__(self, texts):
        self.texts = texts

    def generate_until(self, requests):
        assert len(requests) == len(self.texts)
        return self.texts


@pytest.mark.parametrize("data", PROBLEMS)
def test_answers_are_read_by_each_set_s_rules(data):
    cases = [case for case in GOLDEN if case[0] == data]
    asked = run_task(data, [PROBLEMS[data]] * len(cases), [], Writer([text for _, text, _, _ in cases]))
    for (_, text, strict, flexible), one in zip(cases, asked, strict=True):
        found = tuple(one.metrics[rule]["exact_match"] for rule in ("strict", "flexible"))
        assert found == (strict, flexible), (text, one.extracted)


@pytest.mark.parametrize(("data", "shared", "rows"), [
    ("gsm8k", "math/gsm8k", 500), ("svamp", "math/svamp", 1_000), ("aqua", "math/aqua", 254),
])  # fmt: skip
def test_the_real_files_are_read_whole(shared_data, data, shared, rows):
    of = READERS[data]
    problems = of.read(find_file(shared_data / "benchmarks" / shared, *of.files))
    assert len(problems) == rows == len({problem["id"] for problem in problems})
    assert all(len(final_answer(problem)) <= 12 for problem in problems)


@pytest.mark.parametrize("data", READERS)
def test_own_problems_and_examples_agree_with_the_rules(data):
    """Each worked example, given as the answer to its own question, is right by the strict rule."""
    of = READERS[data]
    problems = of.read(find_file(OWN_DATA / data, *of.files))
    assert len(problems) == 20
    examples = of.read_examples(find_file(OWN_DATA / data, *of.examples) if of.examples else None)
    assert len(examples) >= 4
    task = load_task(data, problems[:1], examples[:2])
    task.build_all_requests(rank=0, world_size=1)
    prompt, settings = task.instances[0].args
    assert prompt.count("\n\n") == 2 and prompt.endswith(("Answer:", "A:"))
    assert not any(stop in one["answer"] for one in examples for stop in settings["until"])
    asked = run_task(data, [{**problems[0], "answer": final_answer(one)} for one in examples], [],
                Writer([one["answer"] for one in examples]))  # fmt: skip
    extracted = [one.extracted["strict"] for one in asked]
    assert "[invalid]" not in extracted
    if data != "svamp":  # whose examples are others' and have no answer beside their steps
        assert data == "aqua" or all(one.metrics["strict"]["exact_match"] for one in asked)


def test_a_vote_is_of_answers_that_could_be_read(monkeypatch):
    assert votes([["7", "[invalid]", "8", "8"], ["[invalid]"] * 2, ["5", "6"]], None) == [["8"], ["[invalid]"], ["5"]]
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
def test_answers_that_the_rules_take_for_equal_vote_together(monkeypatch, data, texts, answer):
    task = WordProblemTask(data=data, examples=0, votes=5, limit=1)
    monkeypatch.setattr("stages.benchmark.harness.run_task.harness_model", lambda model, context: Writer(texts))
    flexible = task.measure(evaluated(), TaskContext(0))[1]
    assert json.loads(flexible.items[0]["output"])["extracted"]["flexible"] == answer


@pytest.mark.parametrize(
    ("data", "row", "message"),
    [
        ("gsm8k", {"question": "?", "answer": 72}, "field 'answer' is 72; accepted is text"),
        ("svamp", {"ID": "1", "Body": 3, "Question": "?", "Answer": 1}, "field 'Body' is 3; accepted is text"),
        ("svamp", {"ID": "1", "Body": "", "Question": "?", "Answer": "nan"}, "field 'Answer' is 'nan'; accepted is a"),
        ("aqua", {"question": "?", "options": [1, 2, 3, 4, 5], "correct": "A"}, "0 options and the answer 'A'"),
        ("aqua", {"question": "?", "options": 5, "correct": "A"}, "0 options and the answer 'A'"),
    ],
)
def test_what_is_no_problem_is_named(tmp_path, data, row, message):
    (tmp_path / "items.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputDataError, match=message):
        READERS[data].read(tmp_path / "items.jsonl")


@pytest.mark.parametrize(("number", "answer"), [(1234567.0, "1234567"), (145.0, "145"), ("0.125", "0.125"), (0, "0")])
def test_numbers_keep_all_their_digits(tmp_path, number, answer):
    row = {"ID": "1", "Body": "b", "Question": "q", "Answer": number}
    (tmp_path / "items.jsonl").write_text(json.dumps(row))
    assert READERS["svamp"].read(tmp_path / "items.jsonl")[0]["answer"] == answer


def test_a_network_s_answers_are_kept_with_their_prompts(tmp_path):
    task = WordProblemTask(data="svamp", examples=1, limit=3, max_new_tokens=6)
    model, context = evaluated(), TaskContext(0, Folder(str(tmp_path)))
    results = task.measure(model, context)
    assert [one.score["metric"] for one in results] == ["accuracy, strict", "accuracy, flexible"]
    assert [one.score["items"] for one in results] == [3, 3]
    assert results[0].items[0]["prompt"].startswith("Q: There are 15 trees in the grove.")
    model.network.head = None
    assert task.measure(model, context) == results


def test_what_is_absent_is_said(tmp_path):
    def rows(**fields):
        return [one.score for one in WordProblemTask(path=str(tmp_path), **fields).baselines(TaskContext(0))]

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
