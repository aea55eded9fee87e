"""The config section `tokenize`."""

from pydantic import Field

from data_schemas.config import StageConfig


class TokenizeConfig(StageConfig):
    """Size of the vocabulary, and the text to train it on."""

    vocabulary_size: int = Field(
        4096, ge=257, description="number of entries, including the 256 bytes and the end-of-text token"
    )
    training_bytes: int | None = Field(
        None,
        gt=0,
        description="bytes of training text from which the merges are learned, drawn from every partition and source "
        "in proportion to its text; all by default",
    )
    seed: int = Field(0, description="decides which documents are drawn if `training_bytes` is less than there are")
