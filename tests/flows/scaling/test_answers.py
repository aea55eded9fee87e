import re

import numpy as np
import pytest

from data_schemas.errors import ConfigError
from flows.commands.scaling import answers_of, print_answers, print_scaling, scaling_json
from flows.config.run_config import load_run_config
from flows.report.scaling import scaling_page
from flows.scaling.answers import answer, budget_flops, parse_budget
from flows.scaling.fit import fit_folder, read_fit, write_fit
from flows.scaling.forecast import expected_bits_per_byte, stored_forecast, unknown
from flows.scaling.reach import Reach
from flows.scaling.rules import rule_of, shapes
from infra.rates.rates import Rate, Rates
from modeling.evaluation.config_counts import active_parameters, flops_per_token
from modeling.transformer_config import TransformerConfig
from tests.flows.report.page import Page
from tests.flows.scaling.grids import LAW, VALUES, exact_fit, experiment, grid_configs, made_fit, result_of, usual_fit


@pytest.fixture
def fit():
    return usual_fit()


@pytest.fixture
def exact():
    return exact_fit()


def largest_flops(fit):
    return max(run.flops for run in fit.runs)


def test_the_answer_is_what_the_known_law_says(exact):
    flops = 3 * largest_flops(exact)
    found = answer(exact, "x", flops)
    networks = [TransformerConfig(**shape, vocabulary_size=400) for shape in shapes(exact)]
    losses = [
        float(LAW.loss(active_parameters(network), flops / (3 * flops_per_token(network, 32)))) for network in networks
    ]
    best = networks[int(np.argmin(losses))]
    assert (found.shape["width"], found.shape["layers"]) == (best.width, best.layers)
    assert found.parameters == active_parameters(best) and found.expected.value == pytest.approx(min(losses), rel=2e-3)
    # All of the budget is spent, up to a batch.
    spent = 3 * flops_per_token(best, 32) * found.tokens
    assert abs(spent - flops) <= 3 * flops_per_token(best, 32) * found.batch_tokens
    assert found.expected.low <= found.expected.value <= found.expected.high
    assert found.least_parameters <= found.parameters <= found.most_parameters
    assert found.batch_tokens == 512 and found.learning_rate == 6e-4, "as all runs"


def test_more_budget_is_never_expected_to_be_worse(fit):
    reach = Reach.of(fit)
    budgets = np.geomspace(reach.least_flops, reach.most_flops, 7)
    values = [answer(fit, "x", flops).expected.value for flops in budgets]
    assert values == sorted(values, reverse=True)


def test_budgets_far_from_the_runs_are_refused(fit):
    largest = largest_flops(fit)
    with pytest.raises(ConfigError, match=r"20 times more than the largest run .* not carried further than 10 times"):
        answer(fit, "1e20", 20 * largest)
    with pytest.raises(ConfigError, match="times less than the smallest run"):
        answer(fit, "1", 1.0)
    answer(fit, "x", 9.9 * largest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e15", (1e15, "")), ("1_000", (1000, "")), (" 2.5e12 FLOPs", (2.5e12, "")), ("10h", (10, "h")),
     ("30 min", (30, "min")), ("2d", (2, "d"))],
)  # fmt: skip
def test_budgets_are_flops_or_time(text, expected):
    assert parse_budget(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "nan", "inf", "1e999", "ten hours", "5 tokens", "1e15 h h", "1e-3", "0h"]
)
def test_other_budgets_are_refused(text):
    with pytest.raises(ConfigError, match=r"--budget is .* expected FLOPs such as 1e15, or time"):
        parse_budget(text)


def test_time_counts_at_the_measured_rate_of_training_or_that_of_the_planner(fit):
    config = result_of(fit, experiment()).config
    (hour, rate), (minute, _) = (budget_flops(text, config, fit.vocabulary_size, Rates()) for text in ("1h", "1 min"))
    assert hour == 3_600 * rate and budget_flops("1e9", config, fit.vocabulary_size, Rates()) == (1e9, None)
    assert hour == pytest.approx(60 * minute) and 1e9 < minute / 60 < 1e16
    measured = Rates(learned=tuple(Rate(kind=f"train {one}", amount=1e12, per_second=7e9) for one in ("fp32", "bf16")))
    processes = max(1, config.stage_config("pretrain").workers)
    assert budget_flops("1h", config, fit.vocabulary_size, measured)[0] == pytest.approx(
        3_600 * 7e9 * processes, rel=0.05
    )


def test_tuned_rates_and_batches_are_carried_on_as_powers(exact):
    variants = {
        name: [*rows, f"pretrain.peak_learning_rate={6e-4 * 2.0**-number}"]
        for number, (name, rows) in enumerate(VALUES["variants"].items())
    }
    fit = made_fit(variants=variants)[0]
    rule = rule_of(fit, "peak_learning_rate")
    assert rule(1e6, 1e5) < rule(1e5, 1e5) < rule(1e4, 1e5)
    for run in fit.runs:
        assert rule(run.parameters, run.tokens) == pytest.approx(run.learning_rate, rel=0.4)
    assert rule_of(exact, "batch_tokens")(1e9, 1e9) == 512


def test_shapes_grow_by_heads_of_one_width_and_begin_with_the_runs_own(fit):
    found = {(shape["layers"], shape["width"], shape["heads"]) for shape in shapes(fit)}
    assert {(1, 16, 1), (1, 32, 2), (2, 48, 3), (2, 64, 4), (3, 96, 6)} <= found
    assert all(width == 16 * heads for _, width, heads in found)
    limit = 10 * max(run.parameters for run in fit.runs)
    sizes = [active_parameters(TransformerConfig(**shape, vocabulary_size=400)) for shape in shapes(fit)]
    assert sizes == sorted(sizes) and 0.8 * limit < sizes[-1] <= limit


def test_repetition_and_open_questions_are_said():
    scarce = made_fit(noise=0.003, unique=50_000)[0]
    notes = " ".join(answer(scarce, "x", 5 * largest_flops(scarce)).notes)
    assert re.search(r"[\d.]+ epochs of the 50,000 tokens of training text: repeated ones count clearly less", notes)
    assert "repeated" not in " ".join(answer(usual_fit(), "x", 1e10).notes)


def test_a_config_finds_the_fit_of_its_family_and_what_it_will_reach(fit, tmp_path):
    store = f"{tmp_path}/store"
    configs = grid_configs(experiment())
    config = list(configs.values())[-1][0][1]
    assert read_fit(store, config) is None
    write_fit(store, fit)
    found = read_fit(store, config)
    assert found is not None and found.law == fit.law
    run = fit.runs[-1]
    expected = expected_bits_per_byte(config, found)
    assert expected is not None and expected == fit.expected(run.parameters, run.tokens)
    assert expected.low < run.bits_per_byte < expected.high

    assert stored_forecast(store, config) == expected and stored_forecast(f"{tmp_path}/other", config) is None

    def changed(**fields):
        training = config.stage_config("pretrain").model_copy(update=fields)
        return config.model_copy(update={"pretrain": training})

    assert expected_bits_per_byte(changed(seed=9, precision="auto", workers=2, micro_batch=4), found) == expected
    assert read_fit(store, changed(weight_decay=0.3)) is None
    for other, why in (
        (changed(weight_decay=0.3), "way to train"),
        (changed(tokens=10**12), "the fit knows"),
        (changed(peak_learning_rate=6e-3), "peak_learning_rate is 0.006"),
        (changed(batch_tokens=8192), "batch_tokens is 8192"),
    ):
        assert why in unknown(other, found) and expected_bits_per_byte(other, found) is None


def test_a_damaged_fit_is_no_forecast(fit, tmp_path):
    store = f"{tmp_path}/store"
    write_fit(store, fit)
    fit_folder(store, fit.family).write("fit.json", b"{")
    assert stored_forecast(store, list(grid_configs(experiment()).values())[-1][0][1]) is None


def test_the_proposed_run_is_a_config_that_the_fit_knows(fit, tmp_path, capsys):
    result = result_of(fit, experiment())
    budget = f"{2 * largest_flops(fit):.3e}"
    answers = answers_of(result, [budget], f"{tmp_path}/store")
    [(proposed, location, _)] = answers
    config = load_run_config(location)
    assert expected_bits_per_byte(config, fit) == proposed.expected
    assert config.stage_config("pretrain").model.width == proposed.shape["width"]  # type: ignore[attr-defined]
    print_scaling(result)
    print_answers(answers)
    printed = capsys.readouterr().out
    assert "predicted from the other sizes" in printed and f"headrace run {location}" in printed
    # No constant without its interval.
    assert all(re.search(rf"  {name} \S+ \(\S+ to \S+\)", printed) for name in ("E", "A", "B", "alpha", "beta"))
    found = scaling_json(result, answers)
    assert found["answers"][0]["expected"]["low"] < found["answers"][0]["expected"]["value"]
    assert (
        len(found["fit"]["runs"]) == 20 and found["constants"]["alpha"]["low"] <= found["constants"]["alpha"]["value"]
    )


def test_the_page_stands_alone(fit):
    page = Page(scaling_page(fit))
    page.assert_self_contained()
    assert "3 x 96, predicted from the other sizes" in page.text and page.html.count("<svg") == 2
    assert scaling_page(fit) == page.html
