import pytest
from pydantic import ValidationError

from data_schemas.errors import ConfigError
from modeling.transformer_config import TransformerShape
from stages.pretrain.batch_plan import plan_batches
from stages.pretrain.stage import PretrainConfig

SHAPE = TransformerShape(layers=1, width=16, heads=2, context_length=100)


def test_accumulation_and_steps_follow_from_the_token_budget():
    plan = plan_batches(
        PretrainConfig(model=SHAPE, workers=2, tokens=10_001, batch_tokens=2_400, micro_batch=3, warmup_share=0.4)
    )
    assert (plan.batch_rows, plan.rows_per_rank, plan.accumulation) == (24, 12, 4)
    assert plan.steps == 5, "ceil(10001 / 2400)"
    assert plan.warmup_steps == 2
    alone = plan_batches(PretrainConfig(model=SHAPE, workers=0, tokens=10_001, batch_tokens=2_400, micro_batch=3))
    assert (alone.ranks, alone.accumulation, alone.steps) == (1, 8, 5)


def test_a_batch_that_does_not_divide_names_the_sizes_that_do():
    config = PretrainConfig(model=SHAPE, workers=2, batch_tokens=2_500, micro_batch=3)
    with pytest.raises(ConfigError, match=r"= 600 tokens does not divide; use 2400 or 3000"):
        plan_batches(config)
    with pytest.raises(ConfigError, match=r"use 600$"):
        plan_batches(PretrainConfig(model=SHAPE, workers=2, batch_tokens=100, micro_batch=3))


def test_checkpoints_fall_on_log_rows():
    with pytest.raises(ValidationError, match="multiple of log_every_steps"):
        PretrainConfig(log_every_steps=30, checkpoint_every_steps=100)
