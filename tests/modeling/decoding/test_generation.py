import pytest
import torch

from data_schemas.errors import ConfigError
from modeling.compression.integers import quantize_int8
from modeling.decoding import generation
from modeling.decoding.generation import decode_speed, generate, generate_batch, prefill_speed
from tests.modeling.networks import SMALL, small_network

CONTEXT = SMALL.context_length


@torch.no_grad()
def greedy_without_cache(model, tokens, count):
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[-count:]


def test_greedy_equals_full_forwards_up_to_the_context():
    model = small_network().double()
    tokens = generate(model, [3, 1, 4], CONTEXT - 3, temperature=0, top_k=0, seed=0)
    assert tokens == greedy_without_cache(model, [3, 1, 4], CONTEXT - 3)


def test_beyond_the_context_the_newest_half_is_kept():
    model = small_network().double()
    prompt = list(range(CONTEXT + 5))
    tokens = generate(model, prompt, 6, temperature=0, top_k=0, seed=0)
    first = greedy_without_cache(model, prompt[-CONTEXT:], 1)
    half = (prompt + first)[-CONTEXT // 2 :]
    assert tokens == first + greedy_without_cache(model, half, 5)
    assert len(generate(model, prompt, 3 * CONTEXT, temperature=1, top_k=0, seed=0)) == 3 * CONTEXT


@pytest.mark.parametrize(
    "attention",
    [
        {"kind": "full"},
        {"kind": "window", "window": 5},
        {"kind": "pooled", "window": 4, "levels": [{"stride": 2, "entries": 2}, {"stride": 4}]},
    ],
)
def test_prompts_of_any_lengths_are_each_continued_as_if_alone(attention):
    model = small_network(attention=attention).double()
    prompts = [[3, 1, 4], [5], list(range(1, CONTEXT + 5)), list(range(20, 2, -1))]
    alone = [
        generate(model, prompt, 2 * CONTEXT, temperature=0.7, top_k=0, seed=9 + number, stop_token=7)
        for number, prompt in enumerate(prompts)
    ]
    assert generate_batch(model, prompts, 2 * CONTEXT, temperature=0.7, top_k=0, seed=9, stop_token=7) == alone
    assert len({len(tokens) for tokens in alone}) > 1


@pytest.mark.parametrize(
    "attention",
    [
        {"kind": "full"},
        {"kind": "pooled", "window": 4, "levels": [{"stride": 2, "entries": 2}, {"stride": 4}]},
    ],
)
def test_a_common_beginning_is_read_once_and_changes_nothing(monkeypatch, attention):
    """One prompt is no more than the beginning; the others go on for different lengths."""
    monkeypatch.setattr(generation, "MIN_COMMON_TOKENS", 5)
    model = small_network(attention=attention).double()
    beginning = [3, 1, 4, 1, 5, 9]
    prompts = [[*beginning, *end] for end in ([2, 6, 5, 3], [], [8], [8, 9, 7, 9, 3, 2, 3])]
    settings = {"temperature": 0.7, "top_k": 0, "stop_token": 7}
    alone = [generate(model, prompt, 2 * CONTEXT, seed=4 + number, **settings) for number, prompt in enumerate(prompts)]
    read = []
    forward = model.hidden_states
    monkeypatch.setattr(
        model, "hidden_states", lambda tokens, *rest: read.append(tokens.shape) or forward(tokens, *rest)
    )
    assert generate_batch(model, prompts, 2 * CONTEXT, seed=4, **settings) == alone
    assert [tuple(shape) for shape in read[:2]] == [(1, 5), (4, 8)], (
        "the last token of the shortest is read with the rest"
    )


def test_separate_documents_do_not_look_back_past_their_start():
    model = small_network(separate_documents=True).double()
    after, alone = ([6, 7, 8, 0, 5, 4], [0, 5, 4])
    greedy = {"temperature": 0, "top_k": 0, "seed": 0}
    assert generate(model, after, 8, **greedy) == generate(model, alone, 8, **greedy)
    with torch.no_grad():
        model.head.weight[0] = 0
        model.final_norm.bias[0] += 100
        model.head.weight[0, 0] = 1  # the end of text is most likely: every token begins a document
    assert generate(model, after, 30, **greedy) == [0] * 30


@pytest.mark.parametrize("quantize", [lambda model: model, quantize_int8])
def test_a_seed_repeats_and_another_differs(quantize):
    model = quantize(small_network())
    first, again, other = (generate(model, [5], 20, temperature=1.0, top_k=0, seed=seed) for seed in (7, 7, 8))
    assert first == again != other


def test_top_1_is_greedy_and_low_temperature_nearly():
    model = small_network()
    greedy = generate(model, [5], 15, temperature=0, top_k=0, seed=0)
    assert generate(model, [5], 15, temperature=1.5, top_k=1, seed=3) == greedy
    assert generate(model, [5], 15, temperature=1e-4, top_k=0, seed=3) == greedy


def test_sampled_frequencies_are_the_softmax():
    model = small_network()
    with torch.no_grad():
        top, tokens = (model(torch.tensor([[5]]))[0, -1] / 2).topk(3)
    drawn = [generate(model, [5], 1, temperature=2.0, top_k=3, seed=seed)[0] for seed in range(1000)]
    for token, probability in zip(tokens.tolist(), top.softmax(-1).tolist(), strict=True):
        assert drawn.count(token) / 1000 == pytest.approx(probability, abs=0.06)


def test_stops_before_the_stop_token():
    model = small_network()
    free = generate(model, [5], 20, temperature=1.0, top_k=0, seed=1)
    stopped = generate(model, [5], 20, temperature=1.0, top_k=0, seed=1, stop_token=free[9])
    assert stopped == free[: free.index(free[9])]


@pytest.mark.parametrize(("prompt", "temperature", "top_k"), [([], 1.0, 0), ([1], -1.0, 0), ([1], 1.0, -1)])
def test_invalid_settings_are_refused(prompt, temperature, top_k):
    with pytest.raises(ConfigError, match="prompts of at least 1 token"):
        generate(small_network(), prompt, 3, temperature=temperature, top_k=top_k, seed=0)


@pytest.mark.parametrize("quantize", [lambda model: model, quantize_int8])
@pytest.mark.parametrize("context_length", [1, 24])
def test_speeds_are_measured(quantize, context_length):
    model = quantize(small_network(context_length=context_length))
    assert prefill_speed(model, repeats=1) > 0
    assert decode_speed(model, repeats=1) > 0 or context_length == 1
