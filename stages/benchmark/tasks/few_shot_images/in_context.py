"""Classification of images in context: examples with their labels, then a query, and which label is likeliest.

- `Labels`: tokens that stand for classes
- `Room`: how many classes and examples of each a context holds
- `order_of`, `shown`: examples one after the other
- `label_scores`: of each query
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from modeling.decoding.continuations import caches_exactly
from modeling.loss.logit_tiles import softmax_ready
from modeling.transformer import Transformer

BATCH_TOKENS = 16_384


@dataclass(frozen=True)
class Labels:
    """What stands behind an image: a letter for its class, and what ends the line."""

    tokens: tuple[int, ...]
    """A, B, C ...: letters, so that every label is one token and no class is known by its name."""
    end: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Labels":
        """The letters that are one token each."""
        letters = [tokenizer.encode(letter, add_special_tokens=False).ids for letter in ascii_uppercase]
        single = [ids[0] for ids in letters if len(ids) == 1]
        return cls(tuple(dict.fromkeys(single)), tuple(tokenizer.encode("\n", add_special_tokens=False).ids))


class Room(NamedTuple):
    """What is shown before each query."""

    ways: int
    shots: int

    @classmethod
    def of(cls, context: int, start: int, image: int, labels: Labels, ways: int, shots: int) -> "Room | None":
        """As many examples of each class as fit, of fewer classes where not one of each does; None below two.

        Args:
            context: most tokens that the network reads at once.
            start: tokens at the beginning.
            image: tokens of an image.
            labels: what stands behind an example.
            ways: most classes.
            shots: most examples of each.
        """
        fit = (context - start - image) // (image + 1 + len(labels.end))
        ways = min(ways, fit, len(labels.tokens))
        return cls(ways, min(shots, fit // ways)) if ways >= 2 else None


@torch.inference_mode()
def shown(network: Transformer, start: Tensor, images: Tensor, classes: Sequence[int], labels: Labels) -> Tensor:
    """Examples one after the other, each before its label, as vectors (tokens, width).

    Args:
        network: whose embedding the labels take.
        start: (tokens, width), what stands before everything.
        images: (examples, patches, width), in the order in which they are shown.
        classes: of each.
        labels: of the classes.
    """
    parts = [start]
    for image, place in zip(images, classes, strict=True):
        written = torch.tensor([labels.tokens[place], *labels.end], device=images.device)
        parts += [image, network.embedding(written).to(image)]
    return torch.cat(parts)


def order_of(classes: Sequence[int], seed: tuple[int, int]) -> list[int]:
    """Places of all examples in the order in which they are shown: rounds of one of each class, each round shuffled.

    Args:
        classes: of each example, from 0 and with as many of each.
        seed: of the shuffling.
    """
    generator = np.random.default_rng(seed)
    by_class = [np.flatnonzero(np.asarray(classes) == number) for number in range(max(classes) + 1)]
    return [int(place) for one in zip(*by_class, strict=True) for place in generator.permutation(one)]


@torch.inference_mode()
def label_scores(
    network: Transformer, examples: Tensor, queries: Tensor, labels: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Log-likelihood of each label behind the examples and a query, (queries, labels).

    The examples are read once for a batch of queries where the network's cache is exact.

    Args:
        network: in `eval` mode.
        examples: from `shown`.
        queries: (queries, patches, width).
        labels: tokens.
    """
    rows = max(1, BATCH_TOKENS // (len(examples) + queries.shape[1]))
    exact, scores = caches_exactly(network), []
    for batch in torch.split(queries, rows):
        if exact:
            cache = network.new_cache(1, len(examples) + queries.shape[1])
            network.hidden_states(examples[None], cache)
            cache.keep([0] * len(batch))
            hidden = network.hidden_states(batch, cache)
        else:
            hidden = network.hidden_states(torch.cat((examples.expand(len(batch), -1, -1), batch), dim=1))
        likelihoods = softmax_ready(network.head(hidden[:, -1])).log_softmax(-1)
        scores.append(likelihoods[:, list(labels)].double().cpu())
    return torch.cat(scores).numpy()
