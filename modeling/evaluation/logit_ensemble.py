"""Several networks that predict together: the mean of their next-token probabilities. For evaluation."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_schemas.errors import ConfigError
from modeling.loss.cross_entropy import chunked_token_losses
from modeling.loss.logit_tiles import softmax_ready
from modeling.transformer import Transformer


class LogitEnsemble(nn.Module):
    """The arithmetic mean of probabilities, as deep ensembles take it (Lakshminarayanan et al. 2017, 1612.01474, 2.4).

    A `Decoder` as `modeling.evaluation.bits_per_byte` takes it. Its hidden states are those of the members side by
    side; its head gives the logarithms of the mean probabilities, which are logits that already sum to 1. It costs what
    the members cost together.
    """

    def __init__(self, members: Sequence[Transformer]) -> None:
        """Join float or int8 networks that are on one device; they are not copied.

        Raises:
            ConfigError: where there is none, or the vocabularies differ.
        """
        super().__init__()
        vocabularies = {member.config.vocabulary_size for member in members}
        if len(vocabularies) != 1:
            found = ", ".join(map(str, sorted(vocabularies))) or "none, as there are no networks"
            raise ConfigError(f"the networks of an ensemble have vocabularies of {found}; they need the same one")
        self.members = nn.ModuleList(members)
        self.head = _MeanHead([member.head for member in members], [member.config.width for member in members])
        self.context_length = min(member.config.context_length for member in members)
        """Most tokens that every member takes at once."""

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
        parts = zip(self.heads, torch.split(hidden, self.widths, dim=-1), strict=True)
        total: Tensor | None = None
        for head, states in parts:
            log_probabilities = softmax_ready(head(states)).log_softmax(-1)
            # One by one, so that two tables of logits are held however many members there are.
            total = log_probabilities if total is None else torch.logaddexp(total, log_probabilities)
        assert total is not None
        return total - math.log(len(self.heads))
