"""Scores of token sequences under a decoder: bits of whole documents, log-likelihoods of continuations.

- `document_bits`: bits per document, the numerator of bits per byte (the denominator is the text's UTF-8 bytes)
- `token_losses`: nats per token of rows as in training
- `log_likelihoods`: natural log-likelihood of a continuation after a prefix, for tasks scored by likelihood
- `top_predictions`: most likely token at every position, its probability and whether it is right, for calibration

A sequence follows the end-of-text token, as documents do in training. Its own end-of-text token is not predicted, so
the bits are those of the document's bytes alone (as in the n-gram baselines). A sequence longer than the context is
processed in windows with a stride of half the context, so that each token is predicted once and, from the second window
on, with at least half a context before it (the sliding window of Baevski & Auli 2019, 1809.10853, section 4).
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
    """A causal decoder in two parts, so that only scored positions pass through the head."""

    head: nn.Module
    """(rows, width) -> logits (rows, vocabulary)."""

    def hidden_states(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64, on the CPU -> (batch, tokens, width), on any device."""


Tokens = Sequence[int] | npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


class TopPredictions(NamedTuple):
    """A row for each token of the documents, in arbitrary order."""

    sequence: npt.NDArray[np.int64]
    """Index of the token's document."""
    confidence: Floats
    """Probability of the most likely token at its position."""
    right: npt.NDArray[np.bool_]
    """Whether the most likely token is the document's."""


@dataclass(frozen=True)
class _Window:
    sequence: int
    tokens: npt.NDArray[np.int64]
    """Inputs (all but the last) and targets (all but the first)."""
    scored: int
    """Number of last targets that are scored; earlier ones were scored in a previous window or are the prefix."""


def document_bits(
    model: Decoder,
    token_lists: Sequence[Tokens],
    context_length: int,
    batch_tokens: int,
    end_of_text: int,
) -> Floats:
    """Bits of each document under the model.

    Args:
        model: decoder in `eval` mode.
        token_lists: documents without end-of-text token.
        context_length: maximum number of tokens per forward pass of a row.
        batch_tokens: tokens per batch, padding included.
        end_of_text: id of the token before every document.

    Returns:
        float64 (documents,): the sum over a document's tokens of -log2 p(token | preceding tokens).
    """
    return _score(model, [((), tokens) for tokens in token_lists], context_length, batch_tokens, end_of_text)


def log_likelihoods(
    model: Decoder,
    requests: Sequence[tuple[Tokens, Tokens]],
    context_length: int,
    batch_tokens: int,
    end_of_text: int,
) -> Floats:
    """Natural log-likelihood of the continuation of each (prefix, continuation), float64 (requests,).

    Arguments as in `document_bits`. A prefix too long for the context is truncated from the left.
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
    """Most likely token at every position of the documents; arguments as in `document_bits`."""
    windows = _windows([((), tokens) for tokens in token_lists], context_length, end_of_text)
    columns = [(np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_))]
    for batch in _batches(windows, batch_tokens):
        hidden, targets, rows = _scored(model, batch, end_of_text)
        chunks = torch.split(hidden, TILING.whole_rows(model.head(hidden[:1]).shape[-1]))
        tops = [softmax_ready(model.head(chunk)).softmax(-1).max(-1) for chunk in chunks]
        confidence = torch.cat([top.values for top in tops]).double().cpu().numpy()
        right = (torch.cat([top.indices for top in tops]) == targets).cpu().numpy()
        columns.append((np.array([window.sequence for window in batch])[rows], confidence, right))
    return TopPredictions(*(np.concatenate(column) for column in zip(*columns, strict=True)))


@torch.inference_mode()
def token_losses(model: Decoder, tokens: Tensor) -> Tensor:
    """Nats of each token after the first: (batch, context + 1) int64 -> (batch, context), for any network."""
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
    for index, (prefix, continuation) in enumerate(requests):
        tokens = np.concatenate([[end_of_text], prefix, continuation]).astype(np.int64)
        windows += [
            _Window(index, tokens[start : stop + 1], scored)
            for start, stop, scored in _spans(len(prefix), len(tokens) - 1, context_length)
        ]
    return windows


def _spans(prefix: int, length: int, context: int) -> Iterator[tuple[int, int, int]]:
    """Windows over targets 1..length that score each target after the first `prefix` once.

    Yields:
        (start, stop, scored): inputs are tokens start..stop-1, targets start+1..stop; the last `scored` are scored.
    """
    stride = max(1, context // 2)
    done = prefix
    start = max(0, min(length - context, prefix - (context - stride)))
    while done < length:
        stop = min(start + context, length)
        yield start, stop, stop - done
        done = stop
        start += stride


def _batches(windows: Sequence[_Window], batch_tokens: int) -> Iterator[list[_Window]]:
    """Batches of windows of similar length, the longest first, with little padding."""
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
    """Hidden state (targets, width), token and window index of each scored target."""
    width = len(windows[0].tokens)
    tokens = np.full((len(windows), width), padding)
    is_scored = np.zeros((len(windows), width - 1), dtype=bool)
    for row, window in enumerate(windows):
        stop = len(window.tokens)
        tokens[row, :stop] = window.tokens
        is_scored[row, stop - 1 - window.scored : stop - 1] = True
    hidden = model.hidden_states(torch.from_numpy(tokens[:, :-1])).flatten(0, 1)
    positions = torch.from_numpy(np.flatnonzero(is_scored)).to(hidden.device)
    targets = torch.from_numpy(tokens[:, 1:][is_scored]).to(hidden.device)
    return hidden[positions], targets, np.repeat(np.arange(len(windows)), is_scored.sum(1))
