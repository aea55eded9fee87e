import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.scaling import check_budgets
from flows.config.run_config import load_run_config
from tests.flows.mini import mini_values
from tests.flows.scaling.grids import VALUES, experiment, result_of, usual_fit


@pytest.fixture
def files(tmp_path, monkeypatch):
    """(config with an experiment, config without) without training: the grid of `tests.flows.scaling.grids`."""
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(mini_values("/none/*.jsonl.gz")))
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mini.yaml").write_text(yaml.safe_dump(VALUES, sort_keys=False))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(mini_values("/none/*.jsonl.gz")))
    fit = usual_fit()
    monkeypatch.setattr("flows.prefect_server.process.launch", lambda: None)
    monkeypatch.setattr("flows.commands.scaling.run_scaling", lambda *rest: result_of(fit, experiment()))
    return str(tmp_path / "mini.yaml"), str(tmp_path / "other.yaml")


def sweep(tmp_path, *arguments):
    return CliRunner().invoke(app, ["sweep", *arguments, "--store", f"{tmp_path}/store"])


def test_a_config_finds_the_experiment_beside_it_and_budgets_are_answered(files, tmp_path):
    done = sweep(tmp_path, files[0], "--budget", "5e11", "--json")
    assert done.exit_code == 0, done.output
    [answer] = json.loads(done.output.splitlines()[-1])["answers"]
    config = load_run_config(answer["config"])
    assert config.stage_config("pretrain").tokens == answer["tokens"]  # type: ignore[attr-defined]
    assert any(setting.startswith("pretrain.model.width=") for setting in answer["settings"])


@pytest.mark.parametrize("budget", ["3e13", "1e15", "1d", "1e8", "1"])
def test_a_budget_out_of_reach_is_refused_before_training_with_what_to_add(files, tmp_path, monkeypatch, budget):
    """The command names budgets that it answers, and the run with which the grid answers this one."""
    trained: list[object] = []
    monkeypatch.setattr("flows.commands.scaling.run_scaling", lambda *rest: trained.append(rest))
    done = sweep(tmp_path, files[0], "--budget", "5e11", "--budget", budget)
    said = " ".join(done.output.split())
    assert done.exit_code == 2 and not trained and "not carried further than 10 times" in said
    least, most = re.findall(r"\(([\d.e+]+) to ([\d.e+]+) FLOPs", said)[0]
    store, config = f"{tmp_path}/store", load_run_config(files[0])
    check_budgets(config, experiment(), [least, most], store)
    if found := re.search(r"the variant ([^:]+): \[(.*?)\] and the condition \[(.*?)\]", said):
        variants = VALUES["variants"] | {found[1]: found[2].split(", ")}
        larger = experiment(variants=variants, conditions=VALUES["conditions"] | {"longer": [found[3]]})
        check_budgets(config, larger, [budget], store)
    elif found := re.search(r"such as \[(.*?)\]", said):
        shorter = experiment(conditions=VALUES["conditions"] | {"shorter": [found[1]]})
        check_budgets(config, shorter, [budget], store)
    assert found or budget in ("1", "1d"), "the rate of this machine decides the FLOPs of a day"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{other}"], "sweep needs a file of recipes or an experiment"),
        (["{other}", "configs/recipes/frontier.yaml", "--budget", "1e15"], "has no section scaling"),
        (["{config}", "--budget", "much"], "--budget is 'much'; expected FLOPs"),
        (["{config}", "--budget", "1e30"], "law is not carried further than 10 times"),
        (["missing.yaml"], "there is no experiments/missing.yaml"),
    ],
)
def test_wrong_calls_are_one_sentence(files, tmp_path, arguments, message):
    done = sweep(tmp_path, *[argument.format(config=files[0], other=files[1]) for argument in arguments])
    assert done.exit_code == 2 and message in " ".join(done.output.split())
