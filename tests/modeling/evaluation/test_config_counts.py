import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from modeling.attention.kinds import FullAttention, PooledAttention, PoolLevel, WindowAttention
from modeling.evaluation.config_counts import (
    active_parameters,
    embedding_parameters,
    flops_per_token,
    forward_flops,
    parameters,
)
from modeling.experts.config import ExpertsConfig
from modeling.loss.cross_entropy import next_token_loss
from modeling.transformer import Transformer
from modeling.transformer_config import EmbeddingBand, TransformerConfig

POOLED = PooledAttention(window=16, levels=(PoolLevel(stride=4, entries=3), PoolLevel(stride=8)), strided=True)
LEARNT = PooledAttention(window=8, levels=(PoolLevel(stride=4),), pooling="learnt")
KINDS = {"full": FullAttention(), "window": WindowAttention(window=16), "pooled": POOLED, "learnt": LEARNT}
EXPERTS = ExpertsConfig(experts=4, active=2, expert_width=12, shared_width=6, every=2)
BANDS = {
    "plain": (),
    "factorized": (EmbeddingBand(width=8),),
    "adaptive": (EmbeddingBand(entries=10, width=24), EmbeddingBand(entries=20, width=10), EmbeddingBand(width=4)),
}


def config(**changes):
    return TransformerConfig(
        **{"layers": 2, "width": 24, "heads": 3, "feed_forward_width": 50, "vocabulary_size": 70, **changes}
    )


@settings(max_examples=40, deadline=None)
@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 4),
    half_head=st.integers(1, 5),
    feed_forward_width=st.integers(2, 40),
    vocabulary_size=st.integers(40, 60),
    tied=st.booleans(),
    kind=st.sampled_from(list(KINDS.values())),
    experts=st.sampled_from([None, EXPERTS.model_copy(update={"every": 1}), ExpertsConfig(experts=3, active=1)]),
    bands=st.sampled_from(list(BANDS.values())),
)
def test_parameters_are_those_of_the_network(
    layers, heads, half_head, feed_forward_width, vocabulary_size, tied, kind, experts, bands
):
    shape = config(
        layers=layers,
        width=2 * half_head * heads,
        heads=heads,
        feed_forward_width=feed_forward_width,
        vocabulary_size=vocabulary_size,
        tied_embeddings=tied,
        attention=kind,
        experts=experts,
        embedding_bands=bands,
    )
    with torch.device("meta"):
        model = Transformer(shape)
    assert parameters(shape) == sum(parameter.numel() for parameter in model.parameters())
    outside = {name: p.numel() for name, p in model.named_parameters() if name.startswith(("embedding.", "head."))}
    assert embedding_parameters(shape) == sum(outside.values())
    idle = 0 if experts is None else layers * (experts.experts - experts.active)
    neurons = feed_forward_width if experts is None else experts.expert_width or feed_forward_width
    assert parameters(shape) - active_parameters(shape) == idle * (2 * shape.width * neurons + neurons + shape.width)


def counted(work) -> int:
    # Torch counts attention's products where they are products; its CPU flash kernel is not in its table.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("context", [1, 7, 50, 203])
@pytest.mark.parametrize("kind", KINDS)
def test_flops_are_torchs_for_every_kind_of_attention(kind, context):
    shape = config(attention=(KINDS[kind], FullAttention()), context_length=256)
    model = Transformer(shape)
    tokens = torch.randint(70, (2, context))
    assert counted(lambda: model(tokens)) == 2 * forward_flops(shape, context)
    assert flops_per_token(shape, context) == forward_flops(shape, context) / context


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("experts", [None, EXPERTS, ExpertsConfig(experts=3, active=1)])
def test_flops_are_torchs_for_experts_and_bands(bands, experts):
    shape = config(experts=experts, embedding_bands=BANDS[bands])
    model = Transformer(shape).eval()
    tokens = torch.randint(10, (2, 32))  # tokens of the first band, as counted
    assert counted(lambda: model(tokens)) == 2 * forward_flops(shape, 32)


@pytest.mark.parametrize("context", [1, 7, 32])
def test_a_training_step_takes_three_times_as_many(context):
    shape = config()
    model = Transformer(shape)
    tokens = torch.randint(70, (2, context + 1))
    assert counted(lambda: next_token_loss(model, tokens).total.backward()) == 3 * 2 * forward_flops(shape, context)
