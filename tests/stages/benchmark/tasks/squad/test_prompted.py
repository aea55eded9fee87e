import json
import math

import pytest

from data_schemas.errors import InputDataError
from stages.benchmark.task import TaskContext
from stages.benchmark.tasks.squad.data import read_questions
from stages.benchmark.tasks.squad.prompted import PROTOCOL, SquadTask
from tests.stages.benchmark.networks import evaluated
from tests.stages.benchmark.tasks.squad.official_script import official_scores


def test_scores_are_the_official_ones_of_the_answers_in_the_items():
    task = SquadTask(max_new_tokens=6)
    model = evaluated(context_length=512)
    results = task.measure(model, TaskContext(0))
    scores = {result.score["metric"]: result.score for result in results}
    outputs = {item["item"]: json.loads(item["output"]) for item in results[0].items}
    official = official_scores(
        read_questions(task.file),
        {name: output["predicted"] for name, output in outputs.items()},
        {name: output["no_answer_score"] for name, output in outputs.items()},
        threshold=math.inf,
    )
    assert len(outputs) == 20 and scores["exact"]["protocol"] == PROTOCOL
    for metric in ("exact", "f1", "HasAns_f1", "NoAns_f1", "best_exact", "best_f1"):
        assert 100 * scores[metric]["value"] == pytest.approx(official[metric])
    prompt = results[0].items[0]["prompt"]
    assert prompt.endswith("Question: Who built the mill at Harrow Ford?\n\nAnswer:")
    assert len(model.tokenizer.encode(prompt).ids) <= 512 - 6


def test_a_baseline_without_answers_has_half_of_our_questions():
    results = SquadTask().baselines(TaskContext(0))
    rows = {(result.score["model"], result.score["metric"]): result.score["value"] for result in results}
    assert rows[("no answer", "exact")] == 8 / 20
    assert rows[("no answer", "NoAns_f1")] == 1


def test_a_missing_file_is_reported_and_an_invalid_one_refused(tmp_path):
    task = SquadTask(path=str(tmp_path / "dev-v2.0.json"))
    assert task.measure(evaluated(), TaskContext(0)) == []
    row = task.baselines(TaskContext(0))[0].score
    assert row["value"] is None and "dev-v2.0.json; get it with: curl" in row["note"]
    (tmp_path / "dev-v2.0.json").write_text('{"data": [3]}')
    with pytest.raises(InputDataError, match=r"dev-v2\.0\.json, article 0 is 3"):
        task.baselines(TaskContext(0))
