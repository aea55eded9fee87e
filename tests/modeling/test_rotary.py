import math

import torch

from modeling.rotary import rotate, rotation_at


def test_golden_angles():
    # Head width 4 at base 100: pair 0 (numbers 0 and 2) turns by 1 radian a position, pair 1 (1 and 3) by 0.1.
    vectors = torch.tensor([1.0, 2.0, 0.0, 0.0], dtype=torch.float64).expand(1, 1, 1, 3, 4)
    query, key, value = rotate(vectors, rotation_at(torch.tensor([5]), 4, 100, vectors))[0, 0, 0]
    turned = torch.tensor([math.cos(5), 2 * math.cos(0.5), math.sin(5), 2 * math.sin(0.5)], dtype=torch.float64)
    torch.testing.assert_close(query, turned)
    torch.testing.assert_close(key, turned)
    torch.testing.assert_close(value, vectors[0, 0, 0, 2])


def test_scores_depend_on_the_distance_alone():
    vectors = torch.randn(1, 1, 2, 3, 16, dtype=torch.float64).expand(1, 40, 2, 3, 16)
    queries, keys, _ = rotate(vectors, rotation_at(torch.arange(3, 43), 16, 10_000, vectors)).unbind(3)
    scores = torch.einsum("bqhd,bkhd->bhqk", queries, keys)
    for distance in (0, 1, 17):
        diagonal = scores.diagonal(distance, dim1=-2, dim2=-1)
        torch.testing.assert_close(diagonal, diagonal[..., :1].expand_as(diagonal))


def test_the_gradient_written_by_hand_is_the_gradient():
    vectors = torch.randn(2, 3, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    rotation = rotation_at(torch.arange(7, 10), 4, 10_000, vectors)
    assert torch.autograd.gradcheck(lambda vectors: rotate(vectors, rotation), vectors)


def test_far_positions_keep_float32_angles_in_bfloat16():
    vectors = torch.ones(1, 1, 1, 3, 2, dtype=torch.bfloat16)
    turned = rotate(vectors, rotation_at(torch.tensor([30_001]), 2, 10_000, vectors))
    expected = math.cos(30_001) - math.sin(30_001)
    assert abs(float(turned[0, 0, 0, 0, 0]) - expected) < 0.02


def test_rows_may_stand_at_positions_of_their_own():
    vectors = torch.randn(2, 3, 1, 3, 8)
    positions = torch.tensor([[4, 5, 6], [90, 91, 92]])
    together = rotate(vectors, rotation_at(positions, 8, 10_000, vectors))
    for row in range(2):
        alone = rotate(vectors[row : row + 1], rotation_at(positions[row], 8, 10_000, vectors))
        torch.testing.assert_close(together[row : row + 1], alone)
