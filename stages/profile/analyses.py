"""The analyses of a profile, by its config."""

from stages.profile.analysis import Analysis
from stages.profile.config import ProfileConfig


def analyses_of(config: ProfileConfig) -> list[Analysis]:
    """All analyses, in the order of their figures."""
    from stages.profile.lengths import Lengths
    from stages.profile.vocabulary import Vocabulary

    return [Lengths(), Vocabulary(config.word_types, config.ngram_types)]
