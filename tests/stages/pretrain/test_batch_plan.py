import pytest
from pydantic import ValidationError

from data_schemas.errors import ConfigError
from modeling.experts.config import ExpertsConfig
from modeling.transformer_config import TransformerShape
from stages.pretrain.batch_plan import elastic_plans, plan_batches
from stages.pretrain.config import PretrainConfig
from stages.pretrain.parallel.layout import ParallelLayout

SHAPE = TransformerShape(layers=4, width=16, heads=2, context_length=100)


def config(**fields):
    return PretrainConfig(**{"model": SHAPE, "workers": 2, "batch_tokens": 2_400, "micro_batch": 3} | fields)


def test_accumulation_and_steps_follow_from_the_token_budget():
    plan = plan_batches(config(tokens=10_001, warmup_share=0.4))
    assert (plan.rows_of(1), plan.accumulation) == (24, 4)
    assert plan.steps == 5, "ceil(10001 / 2400)"
    assert plan.warmup_steps == 2
    alone = plan_batches(config(workers=0, tokens=10_001))
    assert (alone.layout.world_size, alone.accumulation, alone.steps) == (1, 8, 5)


@pytest.mark.parametrize(("fast_bf16", "automatic"), [(True, "bf16"), (False, "fp32")])
def test_automatic_precision_depends_on_the_processor_and_others_do_not(monkeypatch, fast_bf16, automatic):
    monkeypatch.setattr("infra.hardware.has_fast_bf16", lambda: fast_bf16)
    assert plan_batches(config()).precision == automatic
    for precision in ("bf16", "fp16", "fp32"):
        assert plan_batches(config(precision=precision)).precision == precision


def test_a_batch_that_does_not_divide_names_the_sizes_that_do():
    with pytest.raises(ConfigError, match=r"= 600 tokens; use 2400 or 3000"):
        plan_batches(config(batch_tokens=2_500))
    with pytest.raises(ConfigError, match=r"use 600$"):
        plan_batches(config(batch_tokens=100))


def test_a_ramp_doubles_the_batch_over_equal_shares_of_tokens():
    """2 doublings from 600: 6,000 tokens each, then 2,400 a step for what is left of 60,000."""
    plan = plan_batches(config(first_batch_tokens=600, tokens=60_000, ramp_share=0.2))
    assert [(size.steps, size.rows) for size in plan.sizes] == [(10, 6), (5, 12), (20, 24)]
    assert plan.tokens == 60_000
    assert [plan.rows_of(step) for step in (1, 10, 11, 15, 16, 35)] == [6, 6, 12, 12, 24, 24]
    assert plan.rows_before(16) == 120
    with pytest.raises(ConfigError, match=r"does not double up to batch_tokens 2400; use 1200, 600"):
        plan_batches(config(first_batch_tokens=1_800, workers=0))


def elastic_counts(**fields):
    plans = elastic_plans(config(**fields))
    assert all(plan.layout.world_size == workers for workers, plan in plans.items())
    return list(plans)


@pytest.mark.parametrize(("workers", "counts"), [(8, [8, 4, 2, 1]), (4, [4, 2, 1]), (1, [1]), (0, [1])])
def test_a_batch_of_a_power_of_two_is_elastic_over_the_powers_of_two(workers, counts):
    batch = {"batch_tokens": 2_400 * 8 // 3, "micro_batch": 4}  # 64 rows, 16 micro-batches
    assert elastic_counts(workers=workers, min_workers=1, **batch) == counts
    plans = elastic_plans(config(workers=workers, min_workers=1, **batch))
    assert {plan.rows_of(1) for plan in plans.values()} == {64}, "the batch is the same for every number of workers"
    with pytest.raises(ConfigError, match=r"^pretrain.min_workers is 3, .* use 1, 2, 4 or 8$"):
        elastic_plans(config(workers=8, min_workers=3, **batch))
    with pytest.raises(ConfigError, match=r"6 workers with different rows = 2400 tokens"):
        elastic_plans(config(workers=6, min_workers=2, **batch))


EXPERTS = SHAPE.model_copy(update={"experts": ExpertsConfig(experts=4)})


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"workers": 4, "min_workers": 2, "micro_batch": 1}, [4, 3, 2]),
        ({"workers": 8, "min_workers": 2, "layout": {"tensor": 2}}, [8, 4, 2]),
        ({"workers": 8, "min_workers": 4, "layout": {"shard": 2, "tensor": 2}}, [8, 4]),
        ({"workers": 8, "min_workers": 2, "layout": {"pipeline": 2}}, [8, 4, 2]),
        ({"workers": 8, "min_workers": 2, "layout": {"expert": 2}, "model": EXPERTS}, [8, 4, 2]),
        ({"workers": 8, "min_workers": 4, "layout": {"pipeline": 2}, "micro_batch": 6}, [4]),
    ],
)
def test_a_layout_is_elastic_over_the_numbers_that_it_and_the_batch_divide_among(fields, counts):
    fields = fields | {"layout": ParallelLayout(**fields.get("layout", {}))}
    if fields["workers"] in counts:
        assert elastic_counts(**fields) == counts
    else:
        with pytest.raises(ConfigError, match="micro-batches per step"):
            elastic_counts(**fields)
    unit = fields["layout"].model_workers * fields["layout"].shard
    if unit > 1:
        with pytest.raises(ConfigError, match=r"min_workers is 1, among which pretrain.layout, .* do not divide; use "):
            elastic_counts(**fields | {"workers": counts[0], "min_workers": 1})


def test_more_workers_at_least_than_at_most_are_refused():
    with pytest.raises(ConfigError, match=r"min_workers is 3, more than pretrain.workers 2"):
        elastic_plans(config(min_workers=3))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"layout": {"tensor": 3}, "workers": 3},
            r"tensor is 3, which does not divide pretrain.model.heads 2; use 1, 2",
        ),
        ({"layout": {"pipeline": 3}, "workers": 3}, r"does not divide pretrain.model.layers 4; use 1, 2, 4"),
        (
            {"layout": {"shard": 2}, "workers": 3},
            r"workers is 3, not a multiple of shard 2 = 2; use a multiple of 2",
        ),
        ({"layout": {"context": 3}, "workers": 3}, r"context is 3, .*context_length 100; use 1, 2, 4, 5"),
        ({"layout": {"expert": 2}}, r"expert is 2, but pretrain.model.experts is not set"),
        (
            {"layout": {"pipeline": 2}, "micro_batch": 24},
            r"gives each worker 1 micro-batches .* at least 2: use at least 4800",
        ),
        (
            {"layout": {"pipeline": 2, "schedule": "interleaved"}, "micro_batch": 8},
            r"3 micro-batches .* needs a multiple of 2",
        ),
        ({"layout": {"pipeline": 2}, "first_batch_tokens": 1_200}, r"makes a ramp, but a pipeline"),
        (
            {"model": SHAPE.model_copy(update={"experts": ExpertsConfig(experts=3)}), "layout": {"expert": 2}},
            r"expert is 2, which does not divide pretrain.model.experts.experts 3; use 1, 3",
        ),
    ],
)
def test_a_layout_that_does_not_fit_names_what_would(fields, message):
    with pytest.raises(ConfigError, match=message):
        plan_batches(config(**{**fields, "layout": ParallelLayout(**fields["layout"])}))


def test_checkpoints_fall_on_log_rows():
    with pytest.raises(ValidationError, match="multiple of log_every_steps"):
        PretrainConfig(log_every_steps=30, checkpoint_every_steps=100)
