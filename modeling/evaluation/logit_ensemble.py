"""Ensemble of networks for evaluation: the mean of their next-token probabilities."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_schemas.errors import ConfigError
from modeling.loss.cross_entropy import chunked_token_losses
from modeling.loss.logit_tiles import softmax_ready
from modeling.transformer import Transformer


class LogitEnsemble(nn.Module):
    """Arithmetic mean of probabilities, as in deep ensembles (Lakshminarayanan et al. 2017, 1612.01474, section 2.4).

    A `Decoder` of `modeling.evaluation.bits_per_byte`. Its hidden states are those of the members, concatenated; its
    head returns the logarithms of the mean probabilities, which are normalized logits. It costs as much as all members.
    """

    def __init__(self, members: Sequence[Transformer]) -> None:
        """Combine float or quantized networks on the same device, without copying.

        Raises:
            ConfigError: if there is no network, or the vocabularies differ.
        """
        super().__init__()
        vocabularies = {member.config.vocabulary_size for member in members}
        if len(vocabularies) != 1:
            sizes = ", ".join(map(str, sorted(vocabularies))) or "none, as there are no networks"
            raise ConfigError(
                f"an ensemble's networks have vocabulary sizes {sizes}; accepted is the same size for all"
            )
        self.members = nn.ModuleList(members)
        self.head = _MeanHead([member.head for member in members], [member.config.width for member in members])
        self.context_length = min(member.config.context_length for member in members)
        """Context length of the ensemble, the shortest of its members."""

    def hidden_states(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, tokens, sum of the members' widths)."""
        states = [member.hidden_states(tokens) for member in self.members]  # type: ignore[operator]
        return torch.cat(states, dim=-1)

    @torch.inference_mode()
    def token_losses(self, tokens: Tensor) -> Tensor:
        """Nats of each token after the first: (batch, context + 1) int64 -> (batch, context)."""
        return chunked_token_losses(self.hidden_states(tokens[:, :-1]), self.head, tokens[:, 1:])


class _MeanHead(nn.Module):
    def __init__(self, heads: Sequence[nn.Module], widths: Sequence[int]) -> None:
        super().__init__()
        self.heads, self.widths = nn.ModuleList(heads), list(widths)

    def forward(self, hidden: Tensor) -> Tensor:
        """(rows, sum of widths) -> log of the mean probabilities (rows, vocabulary), at least float32."""
        members = zip(self.heads, torch.split(hidden, self.widths, dim=-1), strict=True)
        total: Tensor | None = None
        for head, states in members:
            log_probabilities = softmax_ready(head(states)).log_softmax(-1)
            # Member by member, so that only two tables of logits are in memory.
            total = log_probabilities if total is None else torch.logaddexp(total, log_probabilities)
        assert total is not None
        return total - math.log(len(self.heads))
