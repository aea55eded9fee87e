import torch

from modeling.feed_forward import FeedForward


def test_golden_numbers():
    feed_forward = FeedForward(width=2, neurons=3)
    with torch.no_grad():
        feed_forward.up.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
        feed_forward.up.bias.copy_(torch.tensor([0.0, -5.0, 1.0]))
        feed_forward.down.weight.copy_(torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, -1.0]]))
        feed_forward.down.bias.copy_(torch.tensor([0.5, 0.0]))
    # x = (3, 4): x W1 + b1 = (3, -1, -6), of which the ReLU leaves (3, 0, 0); W2 and b2 make (6.5, 3) of it.
    assert feed_forward(torch.tensor([3.0, 4.0])).tolist() == [6.5, 3.0]
