"""The config of embeddings that are narrower than the network. Imports no torch."""

from pydantic import BaseModel, ConfigDict, Field


class EmbeddingBand(BaseModel):
    """A run of token ids whose vectors have the same width; a matrix takes them to the network's width and back.

    One band for all tokens is a factorized embedding (ALBERT, Lan et al. 2019, 1909.11942, 3.1); several, narrower from
    band to band, are an adaptive one (Baevski and Auli 2018, 1809.10853): ids of a BPE vocabulary go by rising rarity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: int | None = Field(None, gt=0, description="token ids in this band; left out for the last: all the others")
    width: int = Field(gt=0, description="numbers per token id")
