"""English by its function words, for engines that know English only.

- `STOP_WORDS`: function words, which are never replaced
- `is_english`: whether a text is English, as far as its function words say
"""

from stages.synthesize.text.words import word_spans

_STOP_WORDS = (
    "nobody nothing something anything everything someone anyone everyone somebody anybody everybody "
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers "
    "herself it its itself they them their theirs themselves what which who whom this that these those am is are "
    "was were be been being have has had having do does did doing a an the and but if or because as until while of "
    "at by for with about against between into through during before after above below to from up down in out on "
    "off over under again further then once here there when where why how all any both each few more most other "
    "some such no nor not only own same so than too very s t can will just don should now could would may might "
    "must shall also every much many however upon within without since though although whether yet ever never "
    "always often"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Stop words of EDA's program (those of NLTK), and a few more of the kind."""
_ENGLISH_WORDS = (
    "the of and to is that it with are this by from have which they were be their would there been not but his she you "
    "or if when what who how because about into through before after then these those has its our your them than could "
    "should my"
)
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
"""Function words that hardly any other language has."""
MIN_SHARE = 0.1
"""Running English has 0.17 to 0.35 of these words, other languages less than 0.06."""
_SAMPLE = 20_000
"""Characters that are looked at."""


def is_english(text: str) -> bool:
    """Whether the share of function words is that of English; texts of fewer than ten words pass if they are ASCII."""
    sample = text[:_SAMPLE]
    words = [sample[start:end].lower() for start, end in word_spans(sample)]
    if len(words) < 10:
        return sample.isascii()
    return sum(word in _ENGLISH for word in words) >= MIN_SHARE * len(words)
