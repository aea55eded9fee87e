import copy

import pytest
import torch

from modeling.attention.linear_attention import LinearAttention, RecurrentState, linear_attention
from modeling.compression.integers import quantize_int8
from modeling.decoding.generation import generate_batch
from modeling.documents import find_documents
from modeling.export.model_files import CONFIG, WEIGHTS, model_from_files, model_to_files
from tests.modeling.networks import random_tokens, small_network


def dense(queries, keys, values, starts=None):
    """The definition: one masked matrix of weights."""
    tokens = queries.shape[2]
    seen = torch.ones(tokens, tokens).tril().bool()
    if starts is not None:
        seen = (seen & (torch.arange(tokens) >= torch.from_numpy(starts)[..., None]))[:, None]
    weights = (queries @ keys.mT) * seen
    return weights / weights.sum(-1, keepdim=True) @ values


def features(tokens, heads=2, width=6):
    torch.manual_seed(tokens)
    queries, keys, values = torch.rand(3, 2, heads, tokens, width, dtype=torch.float64).unbind()
    return [one.requires_grad_() for one in (queries, keys, values - 0.5)]


def linearized(seed=0, layers=(0, 1), width=5, **changes):
    model = small_network(seed, **changes)
    for layer in layers:
        made = LinearAttention.from_attention(model.layers[layer].attention, 32, 2, width)
        for part in (made.query_features, made.key_features):
            torch.nn.init.normal_(part.projection, std=0.5)
        model.set_submodule(f"layers.{layer}.attention", made)
    return model


def with_states(model):
    """A network whose caches hold the recurrent states."""
    plain = type(model).new_cache

    def new_cache(batch):
        cache = plain(model, batch)
        for number, layer in enumerate(model.layers):
            if isinstance(layer.attention, LinearAttention):
                cache.layers[number] = layer.attention.new_state(batch, cache.capacity, model.final_norm.weight)
        return cache

    model.new_cache = new_cache
    return model


@pytest.mark.parametrize("tokens", [1, 7, 8, 21])
def test_chunks_are_the_dense_form_forward_and_backward(tokens):
    given = features(tokens)
    chunked, sums = linear_attention(*given, chunk=8)
    exact = dense(*given)
    torch.testing.assert_close(chunked, exact, rtol=0, atol=1e-12)
    counted = torch.cat((given[2], torch.ones_like(given[2][..., :1])), -1)
    torch.testing.assert_close(sums, given[1].mT @ counted, rtol=0, atol=1e-12)
    direction = torch.randn_like(exact)
    ours, theirs = (torch.autograd.grad(one, given, direction, retain_graph=True) for one in (chunked, exact))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_pieces_with_a_state_are_the_whole():
    queries, keys, values = features(20)
    whole, last = linear_attention(queries, keys, values)
    parts, sums = [], None
    for start, stop in ((0, 9), (9, 10), (10, 20)):
        part = slice(start, stop)
        mixed, sums = linear_attention(queries[:, :, part], keys[:, :, part], values[:, :, part], sums, chunk=4)
        parts.append(mixed)
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(sums, last, rtol=0, atol=1e-12)


def test_documents_do_not_see_each_other():
    model = linearized(separate_documents=True).double()
    tokens = random_tokens(2, 20)
    tokens[0, [5, 6, 13]] = 0
    documents = find_documents(tokens, 0)
    attention = model.layers[0].attention
    hidden, found = torch.randn(2, 20, 32, dtype=torch.float64), []
    attention.register_forward_pre_hook(lambda module, given: found.append(given[1]))
    whole = model.hidden_states(tokens)
    assert torch.equal(torch.from_numpy(found[0].documents.starts), torch.from_numpy(documents.starts))
    projected = torch.randn(2, 20, 2, 3, 16, dtype=torch.float64)
    exact = dense(*attention.features(projected), documents.starts)
    torch.testing.assert_close(attention._from_start(projected, documents), exact, rtol=0, atol=1e-12)
    changed = tokens.clone()
    changed[0, 8] += 1
    after = model.hidden_states(changed)
    assert torch.equal(after[0, 13:], whole[0, 13:]) and not torch.equal(after[0, 8:13], whole[0, 8:13])
    assert hidden.shape == attention(hidden, found[0]).shape


@pytest.mark.parametrize("states", [False, True], ids=["keys", "states"])
@pytest.mark.parametrize("layers", [(0, 1), (1,)], ids=["all", "hybrid"])
def test_generation_is_the_forward_pass(states, layers):
    model = linearized(layers=layers)
    alone = copy.deepcopy(model)
    model = with_states(model) if states else model
    prompts = [[3, 1, 4, 1, 5], [9, 2], [6] * 11]
    new = generate_batch(model, prompts, 9, temperature=0, top_k=0, seed=0)
    for prompt, found in zip(prompts, new, strict=True):
        row = list(prompt)
        for _ in range(9):
            with torch.no_grad():
                row.append(int(alone(torch.tensor([row]))[0, -1].argmax()))
        assert row[len(prompt) :] == found


def test_states_keep_rows_and_do_not_grow():
    model = with_states(linearized())
    tokens = random_tokens(3, 12)
    with torch.no_grad():
        cache = model.new_cache(3)
        model.hidden_states(tokens, cache)
        size = cache.bytes
        cache.keep([2, 0])
        assert cache.bytes * 3 == size * 2 and isinstance(cache.layers[0], RecurrentState)
        more = random_tokens(2, 5, seed=4)
        behind = model.hidden_states(more, cache)
        whole = model.hidden_states(torch.cat((tokens[[2, 0]], more), 1))
    torch.testing.assert_close(behind, whole[:, 12:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("int8", [False, True])
def test_a_linear_network_comes_back_as_it_was(int8):
    model = linearized(layers=(1,))
    model = quantize_int8(model) if int8 else model
    files = model_to_files(model)
    loaded = model_from_files(files[CONFIG], files[WEIGHTS])
    assert isinstance(loaded.layers[1].attention, LinearAttention)
    assert torch.equal(loaded(random_tokens(2, 9)), model(random_tokens(2, 9)))
    assert model_to_files(loaded) == files
