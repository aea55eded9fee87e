import math

import pytest
import yaml

from data_schemas.errors import ConfigError
from flows.commands import experiment as command
from flows.commands.experiment import CellResult, compared, experiment_json, print_experiment, run_experiment
from flows.config.experiments import Cell, Experiment, cells, configs, read_experiment
from tests.flows.mini import Diary, mini_config, write_corpus

VALUES = {
    "settings": ["tokenize.vocabulary_size=300"],
    "baseline": "real",
    "seeds": [1, 2, 3],
    "seeded": ["pretrain.seed", "synthesize.seed"],
    "conditions": {"scarce": ["dedup.seed=7"], "plentiful": []},
    "variants": {"real": ["synthesize=null"], "more": ["synthesize={}"], "decay": ["pretrain.weight_decay=3"]},
}


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(VALUES, sort_keys=False))
    found = read_experiment(str(tmp_path / "experiment.yaml"))
    assert isinstance(found, Experiment)
    return found


def test_every_variant_has_its_config_for_each_seed_and_condition(experiment, tmp_path):
    assert [cell.label for cell in cells(experiment)][:4] == [
        "scarce, real", "scarce, more", "scarce, decay", "plentiful, real",
    ]  # fmt: skip
    config = mini_config(write_corpus(tmp_path / "texts"))
    made = dict(configs(config, experiment, Cell("scarce", "more")))
    assert list(made) == [1, 2, 3] and made[2].name == "mini, scarce, more, seed 2"
    assert made[2].stage_config("pretrain").seed == made[2].stage_config("synthesize").seed == 2
    assert made[2].stage_config("dedup").seed == 7 and made[2].stage_config("tokenize").vocabulary_size == 300
    [real, *_] = [changed for _, changed in configs(config, experiment, Cell("plentiful", "real"))]
    assert "synthesize" not in [stage.name for stage in real.stages], "a seed switches no stage on"


def test_differences_are_paired_by_seed_with_students_interval(experiment):
    scores = {
        Cell("scarce", "real"): {1: 2.0, 2: 3.0, 3: 4.0},
        Cell("scarce", "more"): {1: 1.8, 2: 2.9, 3: 3.7},
        Cell("scarce", "decay"): {1: 2.3, 2: 2.9, 3: 3.9},
        Cell("plentiful", "real"): {},
        Cell("plentiful", "more"): {1: 1.0},
        Cell("plentiful", "decay"): {},
    }
    results = [CellResult(cell, values, [], "" if values else "no") for cell, values in scores.items()]
    rows = {(row.condition, row.variant): row for row in compared(results, experiment)}
    assert rows["scarce", "real"].verdict == "baseline" and rows["scarce", "real"].score == 3.0
    more = rows["scarce", "more"]
    half = 4.302653 * 0.1 / math.sqrt(3)  # t(0.975, 2) x deviation of -0.2, -0.1, -0.3
    assert (more.difference, more.low, more.high) == pytest.approx((-0.2, -0.2 - half, -0.2 + half), abs=1e-6)
    assert more.verdict == "no clear difference" and rows["plentiful", "more"].verdict == "no baseline"
    print_experiment(results, experiment)


def test_a_refused_variant_is_named_and_the_others_run(experiment, tmp_path, monkeypatch, capsys):
    requests = []

    def execute(request, view):
        if request.config.stage_config("pretrain").weight_decay == 3:
            raise ConfigError("too strong")
        requests.append(request)
        return str(len(requests))

    monkeypatch.setattr("flows.pipeline.execute_request", execute)
    monkeypatch.setattr(command, "_score", lambda url, run_id, experiment: 1 / int(run_id))
    results = run_experiment(mini_config(write_corpus(tmp_path / "texts")), experiment, "memory://experiment", Diary())
    assert len(requests) == 12 and {request.last_stage for request in requests} == {"benchmark"}
    print_experiment(results, experiment)
    assert "refused: scarce, decay: too strong" in capsys.readouterr().out
    found = experiment_json(results, experiment)
    assert [row["verdict"] for row in found["comparisons"]] == [
        "baseline", "no clear difference", "baseline", "better",
    ]  # fmt: skip
    assert found["variants"][0]["scores"] == {"1": 1.0, "2": 0.5, "3": pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "none"}, "baseline is 'none'; the variants are real, more, decay"),
        ({"seeds": [1, 1]}, "seeds has duplicates"),
        ({"variants": {}}, "variants"),
        ({"wrong": 1}, "wrong: Extra inputs"),
    ],
)
def test_wrong_files_name_the_field(tmp_path, change, message):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(VALUES | change, sort_keys=False))
    with pytest.raises(ConfigError, match=message):
        read_experiment(str(tmp_path / "x.yaml"))


def test_files_of_recipes_are_no_experiments_and_those_of_the_repository_are_valid(tmp_path):
    assert read_experiment("configs/recipes/frontier.yaml") is None
    (tmp_path / "list.yaml").write_text("- 1")
    assert read_experiment(str(tmp_path / "list.yaml")) is None
    for name in ("synthetic", "synthetic-small"):
        found = read_experiment(f"configs/experiments/{name}.yaml")
        assert found is not None
        config = mini_config(write_corpus(tmp_path / name))
        shares = [
            sum(method.share for method in changed.stage_config("synthesize").methods)
            for cell in cells(found)
            for _, changed in configs(config, found, cell)
            if changed.synthesize  # type: ignore[attr-defined]
        ]
        assert [round(100 * share / (1 + share)) for share in shares] == [
            share for _ in range(2) for share in (10, 25, 50, 25, 50) for _ in range(3)
        ], "by condition, variant and seed"
