"""Texts in the middle of training, without a trace in it."""

import pytest
import torch

from modeling.attention import tiled_attention as tiled_attention
from modeling.training.optimizer import build_adamw
from modeling.training.step import training_step
from stages.pretrain.progress.samples import sample_texts
from stages.tokenize import byte_level_bpe
from tests.modeling.networks import SMALL, random_tokens, small_network

TEXTS = ["the cat sat on the mat, and the dog sat on the log"] * 20
PROMPTS = ["the cat", "", "the dog sat on the log and the cat sat on the mat " * 3]
VOCABULARY = 270


@pytest.fixture(scope="module")
def tokenizer_json():
    return byte_level_bpe.to_json(byte_level_bpe.train(TEXTS, VOCABULARY))


def trained(tokenizer_json, sampling, **changes):
    """Weights and random numbers after four steps, with samples before each or without."""
    tiled_attention._cached_mask.cache_clear()  # masks that sampling makes must serve training
    model = small_network(vocabulary_size=VOCABULARY, **changes).train()
    optimizer = build_adamw(model, 1e-3, (0.9, 0.95), 0.1)
    drawn = []
    for step in range(4):
        if sampling:
            sample_texts(model, tokenizer_json, PROMPTS, tokens=2 * SMALL.context_length, seed=step)
            assert all(module.training for module in model.modules())
        training_step(model, optimizer, [random_tokens(2, SMALL.context_length + 1, seed=step)], 1e-3, 1.0, "fp32")
        drawn.append(torch.rand(3))
    return [*model.state_dict().values(), *drawn]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": {"kind": "window", "window": 5}},
        {"experts": {"experts": 4, "active": 2}},
    ],
    ids=["full", "window", "experts"],
)
def test_training_is_bit_for_bit_the_same(tokenizer_json, changes):
    plain, sampled = (trained(tokenizer_json, sampling, **changes) for sampling in (False, True))
    assert all(torch.equal(*pair) for pair in zip(plain, sampled, strict=True))


def test_modes_are_put_back_as_they_were_also_after_an_error(tokenizer_json):
    model = small_network(vocabulary_size=VOCABULARY).train()
    model.layers[1].eval()
    before = [module.training for module in model.modules()]
    model.head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sample_texts(model, tokenizer_json, PROMPTS, tokens=3, seed=0)
    assert [module.training for module in model.modules()] == before


def test_texts_begin_with_their_prompts_and_depend_on_the_seed_alone(tokenizer_json):
    model = small_network(vocabulary_size=VOCABULARY).train()
    first, again, other = (sample_texts(model, tokenizer_json, PROMPTS, 12, seed) for seed in (1, 1, 9))
    assert first == again != other
    assert all(text.startswith(prompt) for text, prompt in zip(first, PROMPTS, strict=True))
    assert first[0] != PROMPTS[0]


def test_a_compiled_network_is_sampled_without_compiling_again(tokenizer_json):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model = small_network(vocabulary_size=VOCABULARY).train()
    for layer in model.layers:
        layer.compile(backend=backend)
    assert sample_texts(model, tokenizer_json, PROMPTS, 4, seed=0)
    assert not compiled
