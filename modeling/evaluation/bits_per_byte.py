"""What a decoder gives for token sequences: bits of whole documents, log-likelihoods of continuations.

- `document_bits`: bits a document, the numerator of bits per byte (the denominator is the text's UTF-8 bytes)
- `token_losses`: nats of every token of rows as in training
- `log_likelihoods`: natural-log likelihood of a continuation after a prefix, for the likelihood-scored tasks
- `top_predictions`: the likeliest token at every place, its probability and whether it came, for calibration

A sequence stands behind the end-of-text token, as documents do in training. Its own end-of-text token is not predicted,
so the bits are those of the document's bytes alone (as in the n-gram baselines). A sequence longer than the context is
read through windows that move by half the context, so that each token is predicted once and, from the second window on,
with at least half a context before it (the sliding window of Baevski & Auli 2019, 1809.10853, sec. 4).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from modeling.loss.cross_entropy import chunked_token_losses
from modeling.loss.logit_tiles import TILING, softmax_ready


class Decoder(Protocol):
    """A causal decoder in two parts, so that only the positions that count pass through the head."""

    head: nn.Module
    """(rows, width) -> logits (rows, vocabulary)."""

    def hidden_states(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64, on the CPU -> (batch, tokens, width), on any device."""


Tokens = Sequence[int] | npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


class TopPredictions(NamedTuple):
    """One row for each token of the documents, in no order."""

    sequence: npt.NDArray[np.int64]
    """The document that the token is of."""
    confidence: Floats
    """Probability of the likeliest token at its place."""
    right: npt.NDArray[np.bool_]
    """Whether the likeliest is the document's."""


@dataclass(frozen=True)
class _Window:
    sequence: int
    tokens: npt.NDArray[np.int64]
    """Inputs are all but the last, targets all but the first."""
    scored: int
    """How many of the last targets count; those before were predicted in an earlier window or are the prefix."""


def document_bits(
    model: Decoder,
    token_lists: Sequence[Tokens],
    context_length: int,
    batch_tokens: int,
    end_of_text: int,
) -> Floats:
    """Bits that the model needs for each document.

    Args:
        model: the decoder; put into `eval` mode by the caller.
        token_lists: one document each, without end-of-text token.
        context_length: most tokens the model takes at once.
        batch_tokens: tokens of a batch, padding included.
        end_of_text: id of the token that stands before every document.

    Returns:
        float64 (documents,): the sum over a document's tokens of -log2 p(token | those before).
    """
    return _score(model, [((), tokens) for tokens in token_lists], context_length, batch_tokens, end_of_text)


def log_likelihoods(
    model: Decoder,
    requests: Sequence[tuple[Tokens, Tokens]],
    context_length: int,
    batch_tokens: int,
    end_of_text: int,
) -> Floats:
    """Natural-log likelihood of each (prefix, continuation)'s continuation, float64 (requests,).

    Arguments as in `document_bits`. A prefix too long for the context loses its beginning.
    """
    return -math.log(2) * _score(model, requests, context_length, batch_tokens, end_of_text)


@torch.inference_mode()
def top_predictions(
    model: Decoder,
    token_lists: Sequence[Tokens],
    context_length: int,
    batch_tokens: int,
    end_of_text: int,
) -> TopPredictions:
    """What the model holds likeliest at every place of the documents; arguments as in `document_bits`."""
    windows = _windows([((), tokens) for tokens in token_lists], context_length, end_of_text)
    found = [(np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_))]
    for batch in _batches(windows, batch_tokens):
        hidden, targets, rows = _scored(model, batch, end_of_text)
        chunks = torch.split(hidden, TILING.whole_rows(model.head(hidden[:1]).shape[-1]))
        tops = [softmax_ready(model.head(chunk)).softmax(-1).max(-1) for chunk in chunks]
        confidence = torch.cat([top.values for top in tops]).double().cpu().numpy()
        right = (torch.cat([top.indices for top in tops]) == targets).cpu().numpy()
        found.append((np.array([window.sequence for window in batch])[rows], confidence, right))
    return TopPredictions(*(np.concatenate(column) for column in zip(*found, strict=True)))


@torch.inference_mode()
def token_losses(model: Decoder, tokens: Tensor) -> Tensor:
    """Nats of each token after the first: (batch, context + 1) int64 -> (batch, context). For float and int8 models."""
    return chunked_token_losses(model.hidden_states(tokens[:, :-1]), model.head, tokens[:, 1:])


@torch.inference_mode()
def _score(
    model: Decoder,
    requests: Sequence[tuple[Tokens, Tokens]],
    context_length: int,
    batch_tokens: int,
    end_of_text: int,
) -> Floats:
    bits = np.zeros(len(requests))
    for batch in _batches(_windows(requests, context_length, end_of_text), batch_tokens):
        np.add.at(bits, [window.sequence for window in batch], _window_bits(model, batch, end_of_text))
    return bits


def _windows(requests: Sequence[tuple[Tokens, Tokens]], context_length: int, end_of_text: int) -> list[_Window]:
    windows: list[_Window] = []
    for number, (prefix, continuation) in enumerate(requests):
        tokens = np.concatenate([[end_of_text], prefix, continuation]).astype(np.int64)
        windows += [
            _Window(number, tokens[start : stop + 1], scored)
            for start, stop, scored in _spans(len(prefix), len(tokens) - 1, context_length)
        ]
    return windows


def _spans(known: int, length: int, context: int) -> Iterator[tuple[int, int, int]]:
    """Windows over targets 1..length that score each target after the first `known` once.

    Yields:
        (start, stop, scored): inputs are tokens start..stop-1, targets start+1..stop, the last `scored` of them count.
    """
    stride = max(1, context // 2)
    start = max(0, min(length - context, known - (context - stride)))
    while known < length:
        stop = min(start + context, length)
        yield start, stop, stop - known
        known = stop
        start += stride


def _batches(windows: Sequence[_Window], batch_tokens: int) -> Iterator[list[_Window]]:
    """Windows of like length together, the longest first, so that little is padded."""
    by_length = sorted(windows, key=lambda window: -len(window.tokens))
    position = 0
    while position < len(by_length):
        rows = max(1, batch_tokens // (len(by_length[position].tokens) - 1))
        yield by_length[position : position + rows]
        position += rows


def _window_bits(model: Decoder, windows: Sequence[_Window], padding: int) -> Floats:
    """Bits of each window's scored targets."""
    hidden, targets, rows = _scored(model, windows, padding)
    losses = chunked_token_losses(hidden, model.head, targets)
    nats = np.bincount(rows, losses.double().cpu().numpy(), minlength=len(windows))
    return np.asarray(nats / math.log(2), dtype=np.float64)


def _scored(model: Decoder, windows: Sequence[_Window], padding: int) -> tuple[Tensor, Tensor, npt.NDArray[np.int64]]:
    """Of each scored target: the state (targets, width) it is predicted from, its token and its window."""
    width = len(windows[0].tokens)
    tokens = np.full((len(windows), width), padding)
    counts = np.zeros((len(windows), width - 1), dtype=bool)
    for row, window in enumerate(windows):
        stop = len(window.tokens)
        tokens[row, :stop] = window.tokens
        counts[row, stop - 1 - window.scored : stop - 1] = True
    hidden = model.hidden_states(torch.from_numpy(tokens[:, :-1])).flatten(0, 1)
    places = torch.from_numpy(np.flatnonzero(counts)).to(hidden.device)
    targets = torch.from_numpy(tokens[:, 1:][counts]).to(hidden.device)
    return hidden[places], targets, np.repeat(np.arange(len(windows)), counts.sum(1))
