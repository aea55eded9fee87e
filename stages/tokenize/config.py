"""The config section `tokenize`; apart from the stage's code so that a plan need not import that."""

from pydantic import Field

from data_schemas.config import StageConfig


class TokenizeConfig(StageConfig):
    """Size of the vocabulary and the text it is learnt from."""

    vocabulary_size: int = Field(4096, ge=257, description="entries, with the 256 bytes and the end-of-text token")
    training_bytes: int | None = Field(
        None,
        gt=0,
        description="learn the merges from the first so many bytes of each partition's share; all if left out",
    )
