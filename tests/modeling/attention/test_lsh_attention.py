import pytest
import torch

from modeling.attention.lsh_attention import LshAttention, lsh_attention
from modeling.attention.lsh_plan import bucket_count, hash_buckets, lsh_plan
from modeling.compression.attention_transfer import share_query_key
from modeling.compression.integers import quantize_int8, with_int8_cache
from modeling.compression.structured_pruning import remove_heads_and_neurons
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


def plan_of(queries, rounds, bucket_size, seed, starts=None):
    buckets = hash_buckets(queries, rounds, bucket_count(64, bucket_size), seed)
    return lsh_plan(buckets, bucket_size, starts)


def with_lsh(bucket_size=4, layers=(0, 1), rounds=2, **changes):
    model = small_network(**changes)
    buckets = bucket_count(model.config.context_length, bucket_size)
    for layer in layers:
        given = model.layers[layer].attention
        made = LshAttention(32, 2, 16, rounds, bucket_size, buckets, seed=layer, scale=given.scale)
        share_query_key(given, made)
        model.set_submodule(f"layers.{layer}.attention", made.eval())
    return model


@pytest.mark.parametrize("tokens", [1, 8, 37, 64])
@pytest.mark.parametrize("rounds", [1, 3])
def test_chunks_are_exact_attention_over_the_pairs_they_show(tokens, rounds):
    queries, keys, values = vectors(tokens)
    plan = plan_of(queries, rounds, bucket_size=4, seed=1)
    visible = plan.visible(tokens)
    mixed = lsh_attention(queries, keys, values, plan, 0.3)
    wanted = exact(queries, keys, values, visible, 0.3)
    torch.testing.assert_close(mixed, wanted, rtol=0, atol=1e-10)
    direction = torch.randn_like(wanted)
    ours, theirs = (torch.autograd.grad(one, (queries, keys, values), direction) for one in (mixed, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_pairs_are_causal_and_grow_with_rounds():
    queries = vectors(64)[0]
    few, many = (plan_of(queries, rounds, 4, seed=1).visible(64) for rounds in (1, 4))
    causal = torch.ones(64, 64).tril().bool()
    assert not (many & ~causal).any() and (few.diagonal(dim1=-2, dim2=-1)).all()
    assert (few <= many).all() and few.sum() < many.sum() < causal.sum() * 6
    assert int(few.sum(-1).max()) == 8, "a token sees up to twice the bucket size"


@pytest.mark.parametrize("int8_cache", [False, True])
@pytest.mark.parametrize("separate", [False, True])
def test_later_tokens_change_no_earlier_logit(separate, int8_cache):
    model = with_lsh(separate_documents=separate, context_length=64)
    model = with_int8_cache(model) if int8_cache else model
    tokens, ends = torch.randint(61, (3, 64), generator=torch.Generator().manual_seed(2)), (1, 7, 8, 9, 40, 63)
    tokens[:, [end - 1 for end in ends]] = 5  # an end of text is where a document begins only if another token follows
    with torch.no_grad():
        whole = model(tokens)
        for end in ends:
            changed = tokens.clone()
            changed[:, end:] = torch.randint(1, 61, (3, 64 - end), generator=torch.Generator().manual_seed(end))
            torch.testing.assert_close(model(changed)[:, :end], whole[:, :end], rtol=0, atol=1e-5)
            torch.testing.assert_close(model(tokens[:, :end]), whole[:, :end], rtol=0, atol=1e-5)


@pytest.mark.parametrize("first", [1, 13, 20])
def test_prefill_and_decode_give_the_logits_of_a_full_pass(first):
    model = with_lsh()
    tokens = random_tokens(3, 24)
    cache = model.new_cache(3)
    with torch.no_grad():
        pieces = [model(tokens[:, :first], cache=cache), model(tokens[:, first:22], cache=cache)]
        pieces += [model(tokens[:, position : position + 1], cache=cache) for position in (22, 23)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), rtol=0, atol=1e-5)


def test_near_vectors_share_a_bucket():
    centers = torch.randn(8, 16, generator=torch.Generator().manual_seed(3))
    tokens = centers.repeat(8, 1) + 1e-3 * torch.randn(64, 16, generator=torch.Generator().manual_seed(4))
    visible = plan_of(tokens[None, None], rounds=2, bucket_size=8, seed=0).visible(64)[0, 0]
    same = (torch.arange(64)[:, None] - torch.arange(64)) % 8 == 0
    assert visible[same.tril()].all() and visible[~same].float().mean() < 0.5


def test_documents_do_not_attend_to_each_other():
    tokens = random_tokens(2, 20)
    tokens[1, [4, 12]] = 0
    starts = torch.from_numpy(find_documents(tokens, 0).starts)
    queries, keys, values = vectors(20)
    plan = plan_of(queries, 2, 4, seed=0, starts=starts)
    assert not (plan.visible(20) & (torch.arange(20) < starts[..., None])[:, None]).any()
    wanted = exact(queries, keys, values, plan.visible(20), 0.5)
    torch.testing.assert_close(lsh_attention(queries, keys, values, plan, 0.5), wanted, rtol=0, atol=1e-10)
    model = with_lsh(separate_documents=True)
    assert model(tokens).isfinite().all()


def test_generation_continues_the_prompt_as_a_full_pass_would():
    model = with_lsh()
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


def test_a_layer_that_has_lost_heads_generates_with_a_cache_of_its_own_heads():
    model = remove_heads_and_neurons(small_network(), 0.5, 1.0, random_tokens(4, 24)).eval()
    for layer in range(2):
        given = model.layers[layer].attention
        made = LshAttention(32, 1, 16, 2, 4, 6, seed=layer, scale=given.scale)
        share_query_key(given, made)
        model.set_submodule(f"layers.{layer}.attention", made.eval())
    tokens = random_tokens(2, 12)
    cache = model.new_cache(2)
    with torch.no_grad():
        pieces = torch.cat([model(tokens[:, :5], cache=cache), model(tokens[:, 5:], cache=cache)], dim=1)
        torch.testing.assert_close(pieces, model(tokens), rtol=0, atol=1e-5)
