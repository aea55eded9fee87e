import torch

from modeling.evaluation.peak_memory import peak_tensor_bytes, tensor_bytes
from tests.modeling.networks import small_network


def test_what_lives_at_once_is_counted():
    """Two tensors of 4,000 bytes at once, then a third when the first is gone."""

    def work():
        first = torch.ones(1_000)
        second = first * 2
        view = second.view(10, 100)
        del first
        third = view + 1
        return third.sum()

    assert peak_tensor_bytes(work) in (8_000, 8_004)


def test_operations_in_place_and_inputs_from_outside_do_not_count():
    outside = torch.ones(1_000)
    assert peak_tensor_bytes(lambda: outside.mul_(2).add_(1)) == 0


def test_a_shared_table_counts_once():
    tied, apart = small_network(tied_embeddings=True), small_network(tied_embeddings=False)
    table = tied.embedding.weight.numel() * 4
    assert tensor_bytes(apart) - tensor_bytes(tied) == table
