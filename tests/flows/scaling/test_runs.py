import numpy as np
import pytest
import yaml

from data_schemas.errors import ConfigError
from flows.config.experiments import Experiment, cells, configs, experiment_beside, read_experiment
from flows.config.run_config import load_run_config
from flows.scaling.runs import check_grid, fit_runs
from tests.flows.scaling.grids import (
    LAW,
    VALUES,
    exact_fit,
    experiment,
    grid_configs,
    made_fit,
    result_of,
    token_counts,
    usual_fit,
)  # fmt: skip


@pytest.fixture
def fit():
    return usual_fit()


def test_the_held_out_size_is_predicted_from_the_others(fit):
    assert fit.held_out == "3 x 96" and len(fit.predicted) == 4
    assert all(abs(row.error) < 0.02 and row.low < row.expected < row.high for row in fit.predicted)
    assert sum(row.is_inside for row in fit.predicted) >= 3
    for run in fit.runs:
        assert fit.expected(run.parameters, run.tokens).value == pytest.approx(run.bits_per_byte, rel=0.012)


def test_what_the_held_out_runs_measured_does_not_change_what_is_predicted():
    exact = exact_fit()
    worse = [
        run.model_copy(update={"bits_per_byte": 1.1 * run.bits_per_byte}) if run.variant == "3 x 96" else run
        for run in exact.runs
    ]
    grid = experiment()
    found = fit_runs(result_of(exact, grid).config, grid, worse, token_counts())
    assert [row.expected for row in found.predicted] == [row.expected for row in exact.predicted]
    assert not any(row.is_inside for row in found.predicted)


def test_the_grid_of_the_test_and_that_of_the_repository_are_accepted():
    check_grid(experiment(), grid_configs(experiment()))
    found = read_experiment(experiment_beside("configs/scaling.yaml"))
    assert isinstance(found, Experiment)
    base = load_run_config("configs/scaling.yaml")
    rows = {cell: list(configs(base, found, cell)) for cell in cells(found)}
    check_grid(found, rows)
    assert len(rows) == 20 and len(found.seeds) == 1
    models = [runs[0][1].stage_config("pretrain").model for runs in rows.values()]
    assert all(model.feed_forward_width == 4 * model.width == 64 * model.heads for model in models)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"conditions": {"a": ["pretrain.tokens=1024"], "b": ["pretrain.tokens=2048"]}},
            "without 3 x 96, .* 2 numbers of tokens",
        ),
        ({"variants": dict(list(VALUES["variants"].items())[:3])}, "without 2 x 48, .* 2 sizes"),
        (
            {"variants": VALUES["variants"] | {"decay": ["pretrain.weight_decay=3"]}},
            r"pretrain.weight_decay is 0.1 for .* and 3.* for '102400 tokens, decay, seed 0'",
        ),
        (
            {"conditions": VALUES["conditions"] | {"other": ["tokenize.vocabulary_size=500"]}},
            "tokenize.vocabulary_size is 400 for",
        ),
        (
            {"variants": {name: [*rows, "pretrain.model.rotary_base=500"] if name == "2 x 64" else rows
                          for name, rows in VALUES["variants"].items()}},
            "model.rotary_base is",
        ),
    ],
)  # fmt: skip
def test_grids_that_determine_no_law_are_refused_before_training(changes, message):
    grid = experiment(**changes)
    with pytest.raises(ConfigError, match=message):
        check_grid(grid, grid_configs(grid))


def test_rates_batches_precision_and_seeds_may_differ():
    variants = {
        name: [*rows, f"pretrain.peak_learning_rate={1e-3 / (number + 1)}", f"pretrain.batch_tokens={512 * 2**number}"]
        for number, (name, rows) in enumerate(VALUES["variants"].items())
    }
    grid = experiment(variants=variants, seeds=[0, 1])
    check_grid(grid, grid_configs(grid))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scaling": {"held_out": "9 x 9"}}, "scaling.held_out is '9 x 9'; the variants are 1 x 16"),
        ({"baseline": "1 x 16"}, "baseline and scaling exclude each other"),
        ({"scaling": {"resamples": 3}}, "scaling.resamples: .*greater than or equal to 40"),
        ({"scaling": {"max_extrapolation": 0.5}}, "scaling.max_extrapolation"),
        ({"scaling": {"holdout": "1 x 16"}}, "scaling.holdout: Extra inputs"),
        ({"scaling": 3}, "scaling: "),
        ({"scaling": None}, "baseline is missing"),
        ({"metric": "accuracy"}, "a scaling law is fitted to bits per byte only"),
    ],
)
def test_wrong_sections_name_the_field(tmp_path, change, message):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(VALUES | change, sort_keys=False))
    with pytest.raises(ConfigError, match=message):
        read_experiment(str(tmp_path / "x.yaml"))


def test_repeated_text_counts_for_less_than_fresh_text():
    scarce = made_fit(noise=0, unique=100_000)[0]
    # Fitted by what the tokens are worth, so that the constants are those of fresh text.
    assert scarce.bootstrap.law.token_exponent == pytest.approx(LAW.token_exponent, abs=0.02)
    assert scarce.worth(100_000) == 100_000 and 370_000 < scarce.worth(400_000) < 400_000
    assert np.isclose(scarce.worth(1e12), 100_000 * 16.39)
