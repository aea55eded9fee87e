"""Settings of the boilerplate lines, apart from their code so that a plan need not import that."""

from pydantic import Field

from data_schemas.config import FrozenConfig


class BoilerplateConfig(FrozenConfig):
    """Which lines of a site or book are taken out of all its documents."""

    min_documents: int = Field(5, ge=2, description="documents of the group that hold the line, at least")
    min_share: float = Field(0.3, gt=0, le=1, description="share of the group's documents that hold it, at least")
