import pytest
import torch
import torch.nn.functional as F

from modeling.compression.calibration import damped_cholesky, layer_influence, walk_layers
from modeling.experts.config import ExpertsConfig
from tests.modeling.networks import random_tokens, small_network


@torch.no_grad()
def test_statistics_are_those_of_the_inputs_whatever_the_batches():
    model, tokens = small_network(), random_tokens(5, 20)
    seen = []
    hook = model.layers[1].feed_forward.down.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(tokens)
    hook.remove()
    rows = seen[0].flatten(0, 1).double()
    for batch_rows in (2, 16):
        layers = list(walk_layers(model, tokens, batch_rows))
        assert [name for name, _, _ in layers] == ["layers.0", "layers.1"]
        found = layers[1][2]["layers.1.feed_forward.down"]
        assert found.rows == 100
        close = {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(found.mean, rows.mean(0), **close)
        torch.testing.assert_close(found.covariance, rows.T.cov(correction=0), **close)
        torch.testing.assert_close(found.norms, rows.norm(dim=0), **close)


@torch.no_grad()
def test_later_layers_are_measured_behind_what_was_changed():
    model, tokens = small_network(), random_tokens(3, 20)
    for name, layer, statistics in walk_layers(model, tokens):
        if name == "layers.0":
            for parameter in layer.parameters():
                parameter.zero_()
        else:
            normed = layer.attention_norm(model.embedding(tokens))  # a layer of zeros adds nothing
            found = statistics["layers.1.attention.query_key_value"].mean
            torch.testing.assert_close(found, normed.flatten(0, 1).double().mean(0), rtol=1e-5, atol=1e-6)


def test_experts_have_the_statistics_of_their_own_tokens():
    model = small_network(experts=ExpertsConfig(experts=4, active=2))
    tokens = random_tokens(3, 20)
    for name, _, statistics in walk_layers(model, tokens):
        rows = [statistics[f"{name}.feed_forward.experts.{expert}.up"].rows for expert in range(4)]
        assert sum(rows) == 2 * tokens.numel()


@torch.no_grad()
def test_influence_is_one_less_the_cosine():
    model, tokens = small_network(), random_tokens(3, 20)
    for parameter in model.layers[1].parameters():
        parameter.zero_()
    first, second = layer_influence(model, tokens, batch_rows=2).tolist()
    assert second == pytest.approx(0, abs=1e-6)
    streams = []
    model.layers[1].register_forward_pre_hook(lambda _, given: streams.append(given[0]))
    model(tokens)
    assert first == pytest.approx(1 - float(F.cosine_similarity(model.embedding(tokens), streams[0], dim=-1).mean()))


def test_a_factor_is_found_of_what_the_sample_does_not_fill():
    rows = torch.randn(3, 40, dtype=torch.float64) * torch.logspace(-6, 3, 40, dtype=torch.float64)
    moments = rows.T @ rows
    lower = damped_cholesky(moments, 1e-18)
    assert lower.isfinite().all()
    error = (lower @ lower.T - moments).norm() / moments.norm()
    assert error < 1e-6
    assert torch.equal(damped_cholesky(torch.zeros(3, 3), 0.1), torch.eye(3, dtype=torch.float64))
