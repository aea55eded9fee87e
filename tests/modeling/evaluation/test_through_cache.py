import pytest
import torch

from modeling.attention.int8_cache import Int8LayerCache
from modeling.attention.kinds import PooledAttention, PoolLevel, WindowAttention
from modeling.compression.integers import quantize_int8, with_int8_cache
from modeling.decoding.continuations import Request, score_continuations
from modeling.decoding.native_decoder import NativeDecoder
from modeling.evaluation.bits_per_byte import document_bits, top_predictions
from modeling.evaluation.through_cache import scoring_decoder
from modeling.kernels import available
from tests.modeling.attention.test_lsh_attention import with_lsh
from tests.modeling.networks import random_tokens, small_network

POOLED = PooledAttention(window=8, levels=(PoolLevel(stride=4),), pooling="learnt")
NETWORKS = {
    "full": lambda: small_network(context_length=96),
    "fewer bits": lambda: quantize_int8(small_network(context_length=96)),
    "window and pooled": lambda: small_network(attention=(POOLED, WindowAttention(window=8)), context_length=96),
    "lsh": lambda: with_lsh(context_length=96),
}


def states_token_by_token(model, tokens):
    cache = model.new_cache(len(tokens))
    return torch.cat([model.hidden_states(tokens[:, at : at + 1], cache) for at in range(tokens.shape[1])], dim=1)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@torch.inference_mode()
def test_a_network_with_an_int8_cache_is_scored_as_it_generates(build):
    model, tokens = with_int8_cache(build()), random_tokens(3, 90)
    scored = scoring_decoder(model).hidden_states(tokens)
    generated = states_token_by_token(model, tokens)
    apart = float((scored - generated).norm() / generated.norm())
    assert apart < 1e-3, "sums in another order may round an integer the other way"
    assert float((model.hidden_states(tokens) - generated).norm() / generated.norm()) > 3 * apart


@torch.inference_mode()
@pytest.mark.skipif(not available(), reason="needs a C compiler")
def test_the_decoder_in_c_predicts_what_is_scored():
    model, tokens = with_int8_cache(small_network()), random_tokens(1, 24)
    decoder = NativeDecoder.create(model, model.new_cache(1))
    predicted = torch.cat([decoder.predict([[token]]).clone() for token in tokens[0].tolist()])
    torch.testing.assert_close(
        model.head(scoring_decoder(model).hidden_states(tokens))[0], predicted, rtol=0, atol=2e-3
    )


@pytest.mark.parametrize("build", [small_network, with_lsh], ids=["full", "lsh"])
@torch.inference_mode()
def test_a_prompt_is_read_as_one_by_one(build):
    """The first forward pass fills the cache, and attends to what it put there."""
    model, tokens = with_int8_cache(build()), random_tokens(2, 24)
    at_once = model.hidden_states(tokens, model.new_cache(2))
    torch.testing.assert_close(at_once, states_token_by_token(model, tokens), rtol=0, atol=2e-3)


def test_other_networks_are_scored_by_forward_passes():
    for model in (small_network(), quantize_int8(small_network()), with_lsh()):
        assert scoring_decoder(model) is model


@torch.inference_mode()
def test_documents_of_a_row_do_not_see_one_another():
    model = with_int8_cache(small_network(separate_documents=True))
    first, second = random_tokens(2, 10).clamp_min(1).unbind(0)
    end = torch.zeros(1, dtype=torch.int64)
    row = torch.cat((end, first, end, second, end, end))[None]
    states = scoring_decoder(model).hidden_states(row)
    alone = [scoring_decoder(model).hidden_states(torch.cat((end, one))[None]) for one in (first, second)]
    torch.testing.assert_close(states[:, :22], torch.cat(alone, dim=1), rtol=0, atol=2e-3)


def test_every_score_depends_on_what_the_cache_holds(monkeypatch):
    model = with_int8_cache(small_network())
    documents = random_tokens(3, 20).numpy()
    request = Request((0, 5, 6), (7, 8, 9))

    def scores():
        settings = (24, 100, 0)
        decoder = scoring_decoder(model)
        (answers,) = score_continuations(model, [request], 100)
        return [
            document_bits(decoder, documents, *settings).sum(),
            top_predictions(decoder, documents, *settings).confidence.sum(),
            answers[0][1].log_likelihood,
        ]

    before, read = scores(), Int8LayerCache.codes_and_scales
    assert scores() == before
    monkeypatch.setattr(Int8LayerCache, "codes_and_scales", lambda *used: [tensor * 0 for tensor in read(*used)])
    assert all(abs(one - other) > 1e-3 for one, other in zip(scores(), before, strict=True))
