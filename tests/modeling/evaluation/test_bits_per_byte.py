import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.evaluation.bits_per_byte import document_bits, log_likelihoods, top_predictions

VOCABULARY = 11
END = 10


class CausalToy(torch.nn.Module):
    """A random causal decoder whose logits depend on every token before and on their order."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(VOCABULARY, 8, generator=generator)
        self.head = torch.nn.Linear(8, VOCABULARY, bias=False)
        torch.nn.init.normal_(self.head.weight, generator=generator)
        self.positions_seen: list[torch.Tensor] = []

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden_states(tokens)).detach()

    def hidden_states(self, tokens: torch.Tensor) -> torch.Tensor:
        assert tokens.dtype == torch.int64
        self.positions_seen.append(tokens)
        state = torch.zeros(len(tokens), 8)
        states = []
        for position in range(tokens.shape[1]):
            state = torch.tanh(0.9 * state + self.table[tokens[:, position]])
            states.append(state)
        return torch.stack(states, dim=1)


class Uniform(torch.nn.Module):
    """All 16 tokens are equally likely, always."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(2, 16, bias=False)
        torch.nn.init.zeros_(self.head.weight)

    def hidden_states(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.ones(*tokens.shape, 2)


def one_token(model: CausalToy, history: list[int], token: int) -> float:
    return -torch.log_softmax(model(torch.tensor([history]))[0, -1].double(), 0)[token].item()


def reference_bits(model: CausalToy, tokens: list[int], context: int) -> float:
    """One token at a time; histories as the module's docstring describes them."""
    sequence = [END, *tokens]
    nats = 0.0
    for target in range(1, len(sequence)):
        stride = max(1, context // 2)
        window = max(0, math.ceil((target - context) / stride)) * stride
        nats += one_token(model, sequence[window:target], sequence[target])
    return nats / math.log(2)


token_lists = st.lists(st.lists(st.integers(0, END - 1), max_size=40), max_size=8)


@settings(max_examples=40, deadline=None)
@given(token_lists, st.integers(1, 16), st.integers(1, 100))
def test_agrees_with_one_token_at_a_time(documents, context, batch_tokens):
    model = CausalToy()
    expected = [reference_bits(model, tokens, context) for tokens in documents]
    arrays = [np.array(tokens, dtype=np.uint16) for tokens in documents]
    np.testing.assert_allclose(document_bits(model, arrays, context, batch_tokens, END), expected, rtol=1e-4)


def test_batches_keep_to_their_size_and_every_history_is_at_least_half_a_context():
    model = CausalToy()
    documents = [list(np.random.default_rng(n).integers(0, END, n)) for n in (0, 3, 50, 8, 21)]
    document_bits(model, documents, context_length=8, batch_tokens=32, end_of_text=END)
    assert max(tokens.numel() for tokens in model.positions_seen) <= 32
    assert max(tokens.shape[1] for tokens in model.positions_seen) == 8
    # 82 tokens to predict; windows that overlap by half at most double the work.
    assert sum(tokens.numel() for tokens in model.positions_seen) <= 2 * 82


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary():
    bits = document_bits(Uniform(), [[1, 2, 3], [], [4] * 100], 8, 64, 0)
    np.testing.assert_allclose(bits, [12, 0, 400], rtol=1e-6)


def test_continuations_are_scored_behind_their_prefix_only():
    model = CausalToy()
    requests = [([1, 2], [3, 4, 5]), ([1, 2, 3], [4]), ([], [7]), ([9] * 30, [1, 2]), ([1], [])]
    scores = log_likelihoods(model, requests, 12, 64, END)
    long_history = [9] * 11  # the last 12 inputs are these and the continuation's first token
    expected = [
        -sum(one_token(model, [END, 1, 2, 3, 4, 5][:n], [1, 2, 3, 4, 5][n - 1]) for n in (3, 4, 5)),
        -one_token(model, [END, 1, 2, 3], 4),
        -one_token(model, [END], 7),
        -one_token(model, long_history, 1) - one_token(model, [*long_history, 1], 2),
        0,
    ]
    assert scores == pytest.approx(expected, rel=1e-5)


def test_a_continuation_longer_than_the_context_is_scored_whole():
    model = CausalToy()
    tokens = list(np.random.default_rng(0).integers(0, END, 40))
    whole = document_bits(model, [tokens], 1000, 64, END)[0]
    head = document_bits(model, [tokens[:5]], 1000, 64, END)[0]
    scored = log_likelihoods(model, [(tokens[:5], tokens[5:])], 30, 64, END)[0]
    # tanh forgets: 15 tokens of history say nearly as much as all.
    assert -scored / math.log(2) == pytest.approx(whole - head, rel=0.02)


def test_the_likeliest_tokens_are_those_of_the_logits():
    model = CausalToy()
    documents = [[1, 2, 3], [], list(np.random.default_rng(0).integers(0, END, 30)), [4]]
    actual = top_predictions(model, documents, context_length=8, batch_tokens=24, end_of_text=END)
    assert np.bincount(actual.sequence, minlength=4).tolist() == [3, 0, 30, 1]
    probabilities = model(torch.tensor([[END, 1, 2]]))[0].double().softmax(-1)
    mine = actual.sequence == 0
    np.testing.assert_allclose(actual.confidence[mine], probabilities.max(-1).values, rtol=1e-5)
    assert actual.right[mine].tolist() == (probabilities.argmax(-1) == torch.tensor([1, 2, 3])).tolist()
    assert top_predictions(model, [], 8, 24, END).confidence.shape == (0,)
