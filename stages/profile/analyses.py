"""The analyses of a profile, by its config."""

from stages.profile.analysis import Analysis
from stages.profile.config import ProfileConfig


def analyses_of(config: ProfileConfig) -> list[Analysis]:
    """All analyses, in the order of their figures."""
    from stages.profile.attributes import Attributes
    from stages.profile.compression import Compression
    from stages.profile.duplicates import Duplicates
    from stages.profile.lengths import Lengths
    from stages.profile.personal_data import PersonalData
    from stages.profile.readability import Readability
    from stages.profile.vocabulary import Vocabulary

    return [
        Lengths(),
        Attributes(),
        Vocabulary(config.word_types, config.ngram_types),
        Compression(),
        Readability(),
        Duplicates(config.ngram_types),
        PersonalData(config.region),
    ]
