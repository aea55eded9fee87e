"""Verdict of clean's rules on one text, for a stage that receives it from the registry: no stage imports another.

- `rules_of`: settings that an artifact of clean was made with -> the rule that drops a document
"""

from collections.abc import Callable, Mapping
from typing import Any

from data_schemas.config import with_current_names
from stages.clean.config import CleanConfig

Verdict = Callable[[Mapping[str, Any]], tuple[str, float | None] | None]


def rules_of(settings: Mapping[str, Any]) -> Verdict:
    """Function from a document to the rule that drops it and its score; None if it is kept.

    Models of the corpus and repeated lines, which depend on all documents, are left out.

    Args:
        settings: resolved config of clean, as its manifest has it.
    """
    from stages.clean.document_cleaner import Cleaner

    config = CleanConfig.model_validate(with_current_names(CleanConfig, settings))
    cleaner = Cleaner(config.model_copy(update={"boilerplate": None}))

    def verdict(document: Mapping[str, Any]) -> tuple[str, float | None] | None:
        cleaned = cleaner.clean(document)
        return None if cleaned.dropped_by is None else (cleaned.dropped_by, cleaned.score)

    return verdict
