import math

import pytest
import safetensors.torch
import torch

from data_schemas.errors import ContractError
from modeling.export.model_files import CONFIG, WEIGHTS, model_from_files, model_to_files
from modeling.finite_weights import check_finite, first_non_finite
from tests.modeling.networks import random_tokens, small_network


def test_finite_weights_of_every_dtype_pass():
    check_finite(small_network().state_dict(), "here")
    check_finite({"a": torch.tensor([3], dtype=torch.int8), "b": torch.ones(2).bfloat16(), "c": torch.ones(0)}, "here")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_each_tensor_is_named_with_its_count(value):
    weights = small_network().state_dict()
    weights["layers.1.feed_forward.up.weight"][0, :2] = value
    weights["final_norm.bias"][3] = value
    with pytest.raises(ContractError) as error:
        check_finite(weights, "model.safetensors")
    assert str(error.value).startswith(
        "model.safetensors: layers.1.feed_forward.up.weight has 2 of 1,536 values, final_norm.bias has 1 of 32 values "
        "that are not finite (NaN or infinite);"
    )
    assert "use an earlier checkpoint" in str(error.value)


def test_a_network_that_is_lost_altogether_is_reported_in_one_line():
    weights = {f"layers.{number}.weight": torch.full((2,), math.nan) for number in range(90)}
    with pytest.raises(
        ContractError, match=r"layers\.3\.weight has 2 of 2 values that .* and 86 more tensors"
    ) as error:
        check_finite(weights, "x")
    assert "layers.4" not in str(error.value)


def test_loading_refuses_them():
    files = model_to_files(small_network())
    tensors = safetensors.torch.load(files[WEIGHTS])
    tensors["layers.0.attention.output.weight"][1, 1] = math.nan
    with pytest.raises(ContractError, match=r"model.safetensors: layers\.0\.attention\.output\.weight has 1 of 1,024"):
        model_from_files(files[CONFIG], safetensors.torch.save(tensors))


def test_the_first_weight_that_is_not_finite_is_found():
    model = small_network()
    assert first_non_finite(model) is None
    with torch.no_grad():
        model.layers[1].attention.output.bias[0] = math.inf
        model.final_norm.weight[0] = math.nan
    assert first_non_finite(model) == (
        "the weight layers.1.attention.output.bias has 1 of 32 values that are not finite"
    )


def test_behind_finite_weights_the_gradient_nearest_to_the_loss_is_found():
    model = small_network(tied_embeddings=False)
    model.head(model.hidden_states(random_tokens(1, 5))).sum().backward()
    assert first_non_finite(model) is None
    model.layers[0].feed_forward.down.weight.grad[0, 0] = math.nan
    model.embedding.weight.grad.fill_(math.nan)
    assert first_non_finite(model) == (
        "the gradient of layers.0.feed_forward.down.weight has 1 of 1,536 values that are not finite"
    )
