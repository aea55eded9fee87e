import math

import pytest
import torch
import torch.nn.functional as F

from data_schemas.errors import ConfigError
from modeling.compression.integers import quantize_int8
from modeling.evaluation.bits_per_byte import document_bits, token_losses
from modeling.evaluation.logit_ensemble import LogitEnsemble
from tests.modeling.networks import SMALL, random_tokens, small_network


def test_the_probabilities_are_the_mean():
    """Logits (0, log 3) and (log 4, 0): probabilities (1/4, 3/4) and (4/5, 1/5), mean (21/40, 19/40)."""
    ensemble = LogitEnsemble([small_network(), small_network()])
    heads = torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(1, 2, bias=False)
    heads[0].weight.data = torch.tensor([[0.0], [math.log(3)]])
    heads[1].weight.data = torch.tensor([[math.log(4)], [0.0]])
    ensemble.head.heads, ensemble.head.widths = torch.nn.ModuleList(heads), [1, 1]
    torch.testing.assert_close(ensemble.head(torch.ones(1, 2)).exp(), torch.tensor([[21 / 40, 19 / 40]]))


def test_losses_are_those_of_the_mean_probabilities():
    """The members differ in width, and one is int8."""
    members = [small_network(0), small_network(1, width=16), quantize_int8(small_network(2))]
    tokens = random_tokens(3, 15)
    with torch.no_grad():
        probabilities = [model(tokens[:, :-1]).double().softmax(-1) for model in members]
    mean = (probabilities[0] + probabilities[1] + probabilities[2]) / 3
    expected = F.nll_loss(mean.log().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(3, 14)
    torch.testing.assert_close(LogitEnsemble(members).token_losses(tokens).double(), expected, rtol=1e-5, atol=1e-5)


def test_an_ensemble_of_one_network_many_times_is_that_network():
    model, tokens = small_network(), random_tokens(3, 15)
    ensemble = LogitEnsemble([model] * 4)
    torch.testing.assert_close(ensemble.token_losses(tokens), token_losses(model, tokens))
    documents = [row.tolist() for row in tokens]
    actual = document_bits(ensemble, documents, ensemble.context_length, 64, 0)
    assert actual == pytest.approx(document_bits(model, documents, SMALL.context_length, 64, 0))


def test_an_ensemble_is_at_least_as_good_as_its_members_on_average():
    """The logarithm is concave."""
    members, tokens = [small_network(seed) for seed in range(3)], random_tokens(4, 20)
    alone = torch.stack([token_losses(member, tokens) for member in members]).mean(0)
    assert (LogitEnsemble(members).token_losses(tokens) <= alone + 1e-5).all()


def test_the_shortest_context_is_that_of_the_ensemble():
    members = [small_network(), small_network(context_length=16)]
    assert LogitEnsemble(members).context_length == 16


def test_vocabularies_must_be_the_same():
    with pytest.raises(ConfigError, match="vocabulary sizes 61, 62"):
        LogitEnsemble([small_network(vocabulary_size=62), small_network()])
    with pytest.raises(ConfigError, match="no networks"):
        LogitEnsemble([])
