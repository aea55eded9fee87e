import pytest
import torch

from modeling.attention.lsh_attention import LshAttention, lsh_attention, lsh_plan
from modeling.compression.attention_transfer import share_query_key
from modeling.compression.integers import quantize_int8
from modeling.decoding.generation import generate_batch
from modeling.documents import find_documents
from modeling.export.model_files import CONFIG, WEIGHTS, model_from_files, model_to_files
from tests.modeling.networks import random_tokens, small_network


def exact(queries, keys, values, visible, scale):
    """Softmax over the visible pairs; a token sees itself only where it sees nothing else."""
    alone = visible.sum(-1, keepdim=True) == 1
    visible = visible & (alone | ~torch.eye(queries.shape[2], dtype=torch.bool))
    scores = (queries @ keys.mT * scale).masked_fill(~visible, -torch.inf)
    return scores.softmax(-1) @ values


def vectors(tokens, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(2, 3, tokens, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def with_lsh(bucket_size=4, layers=(0, 1), rounds=2, **changes):
    model = small_network(**changes)
    for layer in layers:
        given = model.layers[layer].attention
        made = LshAttention(32, 2, 16, rounds, bucket_size, seed=layer, scale=given.scale)
        share_query_key(given, made)
        model.set_submodule(f"layers.{layer}.attention", made.eval())
    return model


@pytest.mark.parametrize("tokens", [1, 8, 37, 64])
@pytest.mark.parametrize("rounds", [1, 3])
def test_chunks_are_exact_attention_over_the_pairs_they_show(tokens, rounds):
    queries, keys, values = vectors(tokens)
    plan = lsh_plan(queries, rounds, bucket_size=4, seed=1)
    visible = plan.visible(tokens)
    mixed = lsh_attention(queries, keys, values, plan, 0.3)
    wanted = exact(queries, keys, values, visible, 0.3)
    torch.testing.assert_close(mixed, wanted, rtol=0, atol=1e-10)
    direction = torch.randn_like(wanted)
    ours, theirs = (torch.autograd.grad(one, (queries, keys, values), direction) for one in (mixed, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_what_is_seen_is_causal_and_grows_with_rounds():
    queries = vectors(64)[0]
    few, many = (lsh_plan(queries, rounds, 4, seed=1).visible(64) for rounds in (1, 4))
    causal = torch.ones(64, 64).tril().bool()
    assert not (many & ~causal).any() and (few.diagonal(dim1=-2, dim2=-1)).all()
    assert (few <= many).all() and few.sum() < many.sum() < causal.sum() * 6
    one_chunk = lsh_plan(queries, 1, 32, seed=1)
    assert torch.equal(one_chunk.visible(64)[0, 0], causal), "a chunk of all tokens is full attention"


def test_near_vectors_share_a_bucket():
    centers = torch.randn(8, 16, generator=torch.Generator().manual_seed(3))
    tokens = centers.repeat(8, 1) + 1e-3 * torch.randn(64, 16, generator=torch.Generator().manual_seed(4))
    visible = lsh_plan(tokens[None, None], rounds=2, bucket_size=8, seed=0).visible(64)[0, 0]
    same = (torch.arange(64)[:, None] - torch.arange(64)) % 8 == 0
    assert visible[same.tril()].all() and visible[~same].float().mean() < 0.5


def test_documents_do_not_see_each_other():
    tokens = random_tokens(2, 20)
    tokens[1, [4, 12]] = 0
    starts = torch.from_numpy(find_documents(tokens, 0).starts)
    queries, keys, values = vectors(20)
    plan = lsh_plan(queries, 2, 4, seed=0)
    wanted = exact(queries, keys, values, plan.visible(20, starts), 0.5)
    torch.testing.assert_close(lsh_attention(queries, keys, values, plan, 0.5, starts), wanted, rtol=0, atol=1e-10)
    model = with_lsh(separate_documents=True)
    assert model(tokens).isfinite().all()


def test_generation_goes_on_from_what_was_read():
    model = with_lsh(bucket_size=12)  # one chunk: the hash leaves nothing out
    prompts = [[3, 1, 4, 1, 5], [9, 2], [6, 8, 7] * 4]
    new = generate_batch(model, prompts, 9, temperature=0, top_k=0, seed=0)
    for prompt, found in zip(prompts, new, strict=True):
        row = list(prompt)
        for _ in range(9):
            with torch.no_grad():
                row.append(int(model(torch.tensor([row]))[0, -1].argmax()))
        assert row[len(prompt) :] == found


@pytest.mark.parametrize("int8", [False, True])
def test_an_lsh_network_comes_back_as_it_was(int8):
    model = with_lsh(layers=(1,))
    model = quantize_int8(model) if int8 else model
    files = model_to_files(model)
    loaded = model_from_files(files[CONFIG], files[WEIGHTS])
    assert isinstance(loaded.layers[1].attention, LshAttention)
    assert torch.equal(loaded(random_tokens(2, 20)), model(random_tokens(2, 20)))
    assert model_to_files(loaded) == files
