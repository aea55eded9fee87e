import math

import pytest
import torch

from modeling.compression.integers import quantize_int8
from modeling.decoding.continuations import MIN_COMMON_TOKENS, Request, score_continuations, split_request
from modeling.evaluation.bits_per_byte import document_bits
from tests.modeling.networks import random_tokens, small_network

CONTEXT = 90


def scores(model, requests, batch_tokens=200):
    results = {}
    for batch in score_continuations(model, requests, batch_tokens):
        assert not results.keys() & dict(batch).keys()
        results |= batch
    return [results[index] for index in range(len(requests))]


@torch.no_grad()
def scores_without_cache(model, requests):
    results = []
    for prefix, continuation in requests:
        tokens = [*prefix, *continuation][-(CONTEXT + 1) :]
        logits = model(torch.tensor([tokens[:-1]]))[0, -len(continuation) :].double().log_softmax(-1)
        targets = torch.tensor(continuation)
        results.append((logits.gather(1, targets[:, None]).sum().item(), bool((logits.argmax(-1) == targets).all())))
    return results


def random_sequence(generator, low, high):
    length = int(torch.randint(low, high, (), generator=generator))
    return tuple(torch.randint(1, 61, (length,), generator=generator).tolist())


def requests_of_all_sorts(model):
    """Several continuations of one or more tokens after prefixes that begin alike, repeated, and beyond the context."""
    generator = torch.Generator().manual_seed(0)
    shots = random_sequence(generator, MIN_COMMON_TOKENS + 5, MIN_COMMON_TOKENS + 6)
    requests = []
    for shared in ((), shots):
        for choices in (1, 2, 5):
            prefix = shared + random_sequence(generator, 1, 30)
            requests += [Request(prefix, random_sequence(generator, 1, 5)) for _ in range(choices)]
    requests += [Request(shots + requests[0].prefix, (end,)) for end in (3, 4)]
    requests += [
        Request(shots + random_sequence(generator, 80, 90), random_sequence(generator, 3, 9)) for _ in range(2)
    ]
    with torch.no_grad():
        most_likely = int(model(torch.tensor([requests[3].prefix]))[0, -1].argmax())
    requests += [
        Request(requests[3].prefix, (most_likely,)),
        requests[0],
        Request((0,), random_sequence(generator, 90, 91)),
    ]
    return requests


KINDS = [
    {"attention": {"kind": "full"}},
    {"attention": {"kind": "window", "window": 9}},
    {"attention": {"kind": "pooled", "window": 4, "levels": [{"stride": 2, "entries": 2}, {"stride": 4}]}},
    {"separate_documents": True},
]


@pytest.mark.parametrize("batch_tokens", [1, 700])
@pytest.mark.parametrize("changes", KINDS)
def test_shared_prefixes_change_no_score(changes, batch_tokens):
    model = small_network(context_length=CONTEXT, **changes).double()
    requests = requests_of_all_sorts(model)
    requests.append(Request((5, 6, 0, 7), (8, 9)))  # the end of a text in the middle
    expected = scores_without_cache(model, requests)
    results = scores(model, requests, batch_tokens)
    assert [score.log_likelihood for score in results] == pytest.approx([value for value, _ in expected], abs=1e-9)
    assert [score.is_greedy for score in results] == [greedy for _, greedy in expected]
    assert {greedy for _, greedy in expected} == {True, False}


def test_shared_tokens_are_read_once(monkeypatch):
    model = small_network(context_length=CONTEXT)
    read = []
    inner = model.hidden_states

    def counted(tokens, *rest):
        read.append(tokens.numel())
        return inner(tokens, *rest)

    monkeypatch.setattr(model, "hidden_states", counted)
    shots = tuple(range(1, 57))
    requests = [Request((*shots, item), (choice, 3)) for item in (7, 8, 9) for choice in (4, 5)]
    scores(model, requests + requests, batch_tokens=1_000)
    assert read == [56, 3, 6], "the examples once, then each item's own token, then the first token of each choice"


def test_a_compressed_network_is_scored_too():
    model = quantize_int8(small_network(context_length=CONTEXT))
    requests = requests_of_all_sorts(model)
    expected = [value for value, _ in scores_without_cache(model, requests)]
    assert [score.log_likelihood for score in scores(model, requests)] == pytest.approx(expected, abs=2e-3)


def test_a_continuation_beyond_the_context_is_scored_in_split_request():
    """As whole documents are for bits per byte: every token once, after at least half a context."""
    model = small_network(context_length=CONTEXT).double()
    long = Request((0,), tuple(random_tokens(1, 250)[0].tolist()))
    parts = split_request(long, CONTEXT)
    assert [part.continuation for part in parts[:2]] == [long.continuation[:45], long.continuation[45:90]]
    total = sum(score.log_likelihood for score in scores(model, parts))
    [bits] = document_bits(model, [long.continuation], CONTEXT, 1_000, end_of_text=0)
    assert total == pytest.approx(-bits * math.log(2), rel=1e-3)
    assert split_request(Request((1,), (2,) * CONTEXT), CONTEXT) == [Request((1,), (2,) * CONTEXT)]
