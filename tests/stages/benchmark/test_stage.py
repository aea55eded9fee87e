import subprocess
import sys

import pytest
from pydantic import ValidationError

from stages.benchmark.stage import BenchmarkConfig, BenchmarkStage


def test_a_plan_imports_neither_torch_nor_the_harness():
    script = (
        "import sys; from stages.benchmark.stage import BenchmarkConfig, BenchmarkStage as Stage; config = "
        "BenchmarkConfig(); assert Stage().sources(config) and sum(task.tokens() for task in config.tasks) > 0; "
        "print(sorted({'torch', 'lm_eval', 'datasets', 'sklearn', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_data_that_come_go_or_change_are_another_key(tmp_path):
    config = BenchmarkConfig(tasks=({"kind": "word_problems", "data": "svamp", "path": str(tmp_path)},))
    seen = [BenchmarkStage().sources(config)]
    for text in ("[]", "[{}]"):
        (tmp_path / "SVAMP.json").write_text(text)
        seen.append(BenchmarkStage().sources(config))
    (tmp_path / "SVAMP.json").unlink()
    assert len({str(one) for one in seen}) == 3 and BenchmarkStage().sources(config) == seen[0]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"kind": "glue"}, {"kind": "glue", "sets": ["RTE"], "examples": 5}], "'GLUE RTE' is measured twice"),
        ([{"kind": "winograd"}, {"kind": "winograd", "path": "dev.jsonl"}], "'winograd' is measured twice"),
        ([{"kind": "sudoku"}], "'glue', .*'winograd', 'word_problems'"),
    ],
)
def test_what_cannot_be_told_apart_or_is_unknown_is_refused(tasks, message):
    with pytest.raises(ValidationError, match=message):
        BenchmarkConfig(tasks=tasks)
