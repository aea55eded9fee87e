"""Classification of images in context: examples with their labels, then a query; the most likely label is predicted.

- `Labels`: tokens that represent classes
- `ContextFit`: number of classes and of examples per class that fit into a context
- `interleaved_order`, `embed_examples`: the sequence of examples
- `label_scores`: log-likelihood of each label for each query
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
    """The tokens after an image: a letter for its class, and the end of the line."""

    tokens: tuple[int, ...]
    """A, B, C ...: letters, so that every label is a single token that does not reveal the class."""
    end: tuple[int, ...]

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer) -> "Labels":
        """The letters that are a single token each."""
        letters = [tokenizer.encode(letter, add_special_tokens=False).ids for letter in ascii_uppercase]
        single = [ids[0] for ids in letters if len(ids) == 1]
        return cls(tuple(dict.fromkeys(single)), tuple(tokenizer.encode("\n", add_special_tokens=False).ids))


class ContextFit(NamedTuple):
    """Classes, and examples of each class, before each query."""

    ways: int
    shots: int

    @classmethod
    def largest(
        cls, context: int, prefix: int, image: int, labels: Labels, ways: int, shots: int
    ) -> "ContextFit | None":
        """The most examples per class that fit; fewer classes if one of each does not fit, None below two classes.

        Args:
            context: context length of the network.
            prefix: tokens before the first image.
            image: tokens per image.
            labels: the tokens after an example.
            ways: limit of the classes.
            shots: limit of the examples per class.
        """
        fit = (context - prefix - image) // (image + 1 + len(labels.end))
        ways = min(ways, fit, len(labels.tokens))
        return cls(ways, min(shots, fit // ways)) if ways >= 2 else None


@torch.inference_mode()
def embed_examples(
    network: Transformer, prefix: Tensor, images: Tensor, classes: Sequence[int], labels: Labels
) -> Tensor:
    """The sequence of examples, each followed by its label, as vectors (tokens, width).

    Args:
        network: embeds the labels.
        prefix: (tokens, width), embeddings before the first example.
        images: (examples, patches, width), in the order of the sequence.
        classes: class index of each example.
        labels: labels of the classes.
    """
    parts = [prefix]
    for image, class_index in zip(images, classes, strict=True):
        label = torch.tensor([labels.tokens[class_index], *labels.end], device=images.device)
        parts += [image, network.embedding(label).to(image)]
    return torch.cat(parts)


def interleaved_order(classes: Sequence[int], seed: tuple[int, int]) -> list[int]:
    """Indices of all examples in the order of the sequence: rounds with one of each class, each round shuffled.

    Args:
        classes: class index of each example, from 0, with equal numbers of each.
        seed: seed of the shuffling.
    """
    generator = np.random.default_rng(seed)
    by_class = [np.flatnonzero(np.asarray(classes) == number) for number in range(max(classes) + 1)]
    return [int(index) for indices in zip(*by_class, strict=True) for index in generator.permutation(indices)]


@torch.inference_mode()
def label_scores(
    network: Transformer, examples: Tensor, queries: Tensor, labels: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Log-likelihood of each label after the examples and a query, (queries, labels).

    If the network's cache is exact, a batch of queries shares one forward pass over the examples.

    Args:
        network: in `eval` mode.
        examples: vectors from `embed_examples`.
        queries: (queries, patches, width).
        labels: tokens of the labels.
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
