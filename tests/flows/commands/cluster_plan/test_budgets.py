import numpy as np
import pytest
from typer.testing import CliRunner

from data_schemas.errors import ConfigError
from flows.cli import app
from flows.commands.cluster_plan.budgets import cluster_answer
from flows.commands.cluster_plan.plan import software_of
from flows.commands.scaling import answers_of, print_answers, scaling_json
from flows.config.run_config import load_run_config
from flows.scaling.answers import answer
from flows.scaling.forecast import expected_bits_per_byte
from flows.scaling.reach import Reach
from flows.scaling.rules import shapes
from infra.planner.clusters import read_cluster
from infra.planner.networks import network_of
from infra.planner.run_costs import run_costs
from infra.planner.search import search
from modeling.transformer_config import TransformerConfig
from tests.flows.commands.test_scaling import files  # noqa: F401
from tests.flows.scaling.grids import experiment, result_of, usual_fit


@pytest.fixture
def result():
    return result_of(usual_fit(), experiment())


def trained(result, shape, batch, cluster, tokens):
    """Costs of a size in each layout that the planner's search finds for it."""
    network = network_of(TransformerConfig(**shape, vocabulary_size=400))
    software = software_of(result.config.stage_config("pretrain"))
    fitting, _ = search(network, cluster, software, batch // network.context)
    return [
        run_costs(network, cluster, candidate.layout.devices, candidate.step_seconds, batch, tokens)
        for candidate in fitting
    ]


@pytest.mark.parametrize(("budget", "most", "unit"), [("2s", 2.0, "seconds"), ("$0.002", 0.002, "dollars")])
def test_a_proposal_takes_the_budget_in_its_best_layout_and_no_other_size_is_expected_to_be_better(
    result, budget, most, unit
):
    cluster = read_cluster("8xH100")
    proposed, placement = cluster_answer(result.fit, result.config, cluster, budget)
    spent = getattr(placement.costs, unit)
    step = spent / placement.costs.steps
    assert abs(spent - most) <= step
    layouts = trained(result, proposed.shape, proposed.batch_tokens, cluster, proposed.tokens)
    assert spent == pytest.approx(min(getattr(costs, unit) for costs in layouts))
    assert placement.candidate.memory_bytes <= cluster.memory_bytes
    for shape in list(shapes(result.fit))[::4]:
        costs = trained(result, shape, 512, cluster, 512 * 1_000)
        tokens = 512 * 1_000 * most / min(getattr(row, unit) for row in costs)
        network = network_of(TransformerConfig(**shape, vocabulary_size=400))
        reach = Reach.of(result.fit)
        if reach.least_flops <= tokens * network.training_flops <= reach.most_flops:
            expected = result.fit.expected(network.active_parameters, tokens).value
            assert expected >= proposed.expected.value * (1 - 1e-3)


def test_flops_on_a_cluster_are_answered_as_anywhere_with_a_layout(result, tmp_path, capsys):
    budget = f"{2 * max(run.flops for run in result.fit.runs):.3e}"
    [proposal] = answers_of(result, [budget], f"{tmp_path}/store", read_cluster("67xH100"))
    plain = answer(result.fit, budget, float(budget))
    near = np.log(proposal.answer.parameters / plain.parameters)
    assert abs(near) < 0.1 and proposal.answer.expected.value == pytest.approx(plain.expected.value, rel=1e-3)
    config = load_run_config(proposal.location)
    training = config.stage_config("pretrain")
    assert training.workers == proposal.placement.candidate.layout.devices  # type: ignore[attr-defined, union-attr]
    assert expected_bits_per_byte(config, result.fit) == proposal.answer.expected, "a layout changes no result"
    print_answers([proposal])
    printed = " ".join(capsys.readouterr().out.split())
    assert "on 67 x H100: " in printed and "devices have no part in it: a batch of 512 tokens" in printed
    found = scaling_json(result, [proposal])["answers"][0]["cluster"]
    assert found["devices"] == training.workers and found["steps"] > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("budget", "cluster", "message"),
    [
        ("24h", "512xH100", r"24h on 512 x H100 is .* FLOPs, .* more than the largest run .* FLOPs, 0.0s to [\d.]+s\)"),
        ("$500", "8xH100", r"\$500 on 8 x H100 .*not carried further than 10 times .* to \$0\.0\d+\): add"),
        ("$500", "{{device: H100, devices: 8, price_per_hour: 0}}", "price_per_hour of cluster is 0; set it"),
        (
            "1s",
            "{{device: H100, devices: 8, memory_bytes: 1.0e+8}}",
            "even the smallest size of the grid, 1 x 16, fits",
        ),
        ("24 parsecs", "8xH100", "--budget is '24 parsecs'; expected FLOPs .* with --cluster time or money"),
        ("24h", "8xFoo", "no accelerator is called 'Foo'"),
        ("24h", "{{device: H100}}", "devices missing"),
        ("$500", None, "is money; add --cluster"),
        (None, "8xH100", "--cluster is where a budget is spent; add --budget"),
    ],
)
def test_budgets_on_a_cluster_that_have_no_answer_are_refused_before_training(
    files, tmp_path, monkeypatch, budget, cluster, message  # noqa: F811
):  # fmt: skip
    monkeypatch.setattr("flows.commands.scaling.run_scaling", lambda *rest: pytest.fail("trained"))
    if cluster and cluster.startswith("{"):
        (tmp_path / "cluster.yaml").write_text(cluster.format())
        cluster = f"{tmp_path}/cluster.yaml"
    options = [*(["--budget", budget] if budget else []), *(["--cluster", cluster] if cluster else [])]
    done = CliRunner().invoke(app, ["sweep", files[0], *options, "--store", f"{tmp_path}/store"])
    assert done.exit_code == 2
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(" ".join(done.output.split()))


def test_sizes_that_do_not_fit_are_named(result, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("{device: H100, devices: 1, memory_bytes: 1.045e+9}")
    proposed, placement = cluster_answer(result.fit, result.config, read_cluster(str(path)), "1e12")
    assert placement.candidate.memory_bytes <= 1.045e9
    assert any("do not fit on the cluster" in sentence for sentence in proposed.notes)
