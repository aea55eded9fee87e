"""Fixed documents, written for the tests. Nothing here depends on installed packages or on `random`.

- `prose`: sentences of common words that pass the quality rules
- `RAW`: documents for every repair and rule of the clean stage
- `CORPUS`: clean documents with near-duplicates, shared paragraphs and benchmark items
"""

import hashlib
from typing import Any

WORDS = (
    "mill", "river", "wheel", "valley", "flour", "frost", "winter", "daughter", "sluice", "hand", "water", "summer",
    "stone", "coast", "barge", "sledge", "county", "weight", "road", "market", "bread", "oven", "farmer", "field",
    "harvest", "autumn", "spring", "rain", "bridge", "village", "church", "tower", "clock", "bell", "morning",
    "evening", "lamp", "window", "door", "garden", "apple", "orchard", "wall", "path", "forest", "hill", "cloud",
    "storm", "boat", "harbour", "sail", "rope", "net", "fish", "salt", "trade", "letter", "paper", "ink", "school",
    "teacher", "child", "book", "story", "song", "music", "dance", "wedding", "guest", "table", "chair", "old",
    "young", "quiet", "slow", "heavy", "bright", "narrow", "early", "distant", "open", "broken", "simple",
    "careful", "warm", "cold", "dry", "empty",
)  # fmt: skip
VERBS = (
    "carries", "finds", "leaves", "opens", "follows", "mends", "watches", "keeps", "brings", "turns", "crosses",
    "remembers", "builds", "sells",
)  # fmt: skip
SHAPES = (
    "The {0} of the {1} {v} the {2} that stands with the {3}.",
    "In the {0} and the {1}, a {2} {v} what the {3} could not have known.",
    "Nobody {v} the {0} to the {1} when the {2} is near the {3}, and yet it happens.",
    "With the {0}, the {1} {v} a {2}; the {3} be as it may.",
    "She says that the {0} {v} the {1}, and that the {2} will have the {3}.",
)


def number(*parts: object) -> int:
    """A 64-bit number that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8])


def sentence(*seed: object) -> str:
    """A sentence of twelve to twenty words."""
    words = [WORDS[number(seed, place) % len(WORDS)] for place in range(4)]
    return SHAPES[number(seed, "shape") % len(SHAPES)].format(*words, v=VERBS[number(seed, "verb") % len(VERBS)])


def prose(seed: object, sentences: int = 14, per_paragraph: int = 5) -> str:
    """Paragraphs of sentences."""
    rows = [sentence(seed, index) for index in range(sentences)]
    return "\n\n".join(" ".join(rows[start : start + per_paragraph]) for start in range(0, sentences, per_paragraph))


def document(name: str, text: str, genre: str = "web", **columns: Any) -> dict[str, Any]:
    """A row of the documents table."""
    return {"id": f"fixed/{name}", "text": text, "source": "fixed", "path": name, "genre": genre, **columns}


FOOTER = "All rights reserved by the owners of this site."
REPEATED = "The same line again, for the rules of repetition."
GERMAN = (
    "Die Mühle steht, wo der Fluss sich wendet, und seit zweihundert Jahren gibt ihr Rad dem Tal sein Mehl. Als im "
    "letzten Winter der Frost früh kam, öffnete die Tochter des Müllers das Wehr mit der Hand, was niemand getan "
    "hatte, seit ihr Großvater gestorben war. Sie sagt, dass das Wasser den Weg kannte und ihn jedes Jahr findet."
)
PERSONAL = (
    "Write to ann.miller@millstones.org or call +1 212-555-0142, or (212) 555-0143 in the mornings. The account is "
    "DE89 3704 0044 0532 0130 00, the card 4111 1111 1111 1111, the server 203.113.0.77, and the key "
    "AKIAIOSFODNN7EXAMPLE was taken away."
)
WEB_PAGE = "\n".join(
    [
        "SIGN IN OR REGISTER NOW", prose("page", 8), "3 likes", "2024 1201 4477", "Read more...", "Home",
        "We make use of cookies on this page, as the privacy policy says.", "Please enable javascript to see this.",
        "This claim is disputed[1] and needs a source.[citation needed]", prose("page, end", 6),
    ]
)  # fmt: skip

RAW = [
    *(document(f"plain-{n}", prose(("plain", n), 6 + n % 9), genre=("web", "wiki", "books")[n % 3]) for n in range(66)),
    *(
        document(f"site-{n}", f"{prose(('site', n), 9)}\n{FOOTER}", url=f"https://many.example/{n}")
        for n in range(6)
    ),
    document("mojibake", f"It was schÃ¶n in the cafÃ©, â€œas everâ€\x9d.\r\n\r\n\r\n\r\n{prose('mojibake')}"),
    document("spaces", f"\ufeffA\u00a0line\u2003of   spaces \t\n\u200b\n\n\n\n{prose('spaces')}\x00\x07"),
    document("ligatures", f"The ﬁrst ﬂour of the o\u0308ld mill, №\u00a05, １２３. {prose('ligatures')}"),
    document("wrapped", prose("wrapped").replace(" the ", " the\n").replace("mill", "mi-\nll"), genre="books"),
    document("personal", f"{prose('personal')}\n{PERSONAL}", language="en"),
    document("page", WEB_PAGE),
    document("page-of-a-book", WEB_PAGE, genre="books"),
    document("german", GERMAN),
    document("rude", f"{prose('rude')} What a shit mill it is."),
    document("curly", f"{prose('curly')} function() {{ return lorem ipsum; }}"),
    document("short", "Too short."),
    document("hashes", " ".join(f"#{word}" for word in prose("hashes").split())),
    document("bullets", "\n".join(f"- {sentence('bullets', n)}" for n in range(12))),
    document("ellipses", "\n".join(f"{sentence('ellipses', n)[:-1]}..." for n in range(12))),
    document("digits", f"{prose('digits', 6)} {' '.join(str(number('digits', n)) for n in range(90))}"),
    document("repeats", "\n".join([prose("repeats", 3), *[REPEATED] * 9])),
    document("paragraphs", "\n\n".join([prose("paragraphs", 4)] * 4)),
    document("grams", " ".join(["the mill of the river and the wheel"] * 20)),
    document("urls", f"{prose('urls', 5)} {' '.join(f'https://a.example/{n}' for n in range(60))}"),
    document("long-words", " ".join(word * 4 for word in prose("long-words").split())),
    document(
        "labeled", prose("labeled"), tags=["earlier"], edits=[("cookies", 1)], quality=0.25, language="de",
        licence="CC0-1.0", date="2024-02-29", metadata=[("title", "A title")],
    ),
]  # fmt: skip

ITEMS = [
    {"id": "item-0", "question": "Which wheel did the old miller of the narrow valley repair before the long frost?"},
    {"id": "item-1", "question": "How many heavy stones were carried over the broken bridge in the dry summer then?"},
    {"id": "item-2", "question": "Why was the careful teacher of the quiet village late for the early market?"},
    {"id": "item-3", "question": "Nothing of this question occurs anywhere else, whatever one looks for in the texts."},
]
SHARED = " ".join(sentence("shared paragraph", n) for n in range(4))
CORPUS = [
    *(document(f"train-{n}", prose(("corpus", n), 12), genre=("web", "wiki")[n % 2]) for n in range(24)),
    *(document(f"copy-{n}", prose(("corpus", n), 12).replace("bridge", "ford"), quality=n / 7) for n in range(5)),
    document("same", prose(("corpus", 7), 12), genre="wiki"),
    *(document(f"shared-{n}", f"{prose(('beginning', n), 6)}\n\n{SHARED}\n\n{prose(('end', n), 6)}") for n in range(3)),
    *(document(f"leak-{n}", f"{prose(('leak', n))} {ITEMS[n]['question']} {prose(('after', n))}") for n in range(2)),
    document("leaks", f"{ITEMS[0]['question']} {prose('leaks')} {ITEMS[1]['question']} {ITEMS[2]['question']}"),
    document("German", GERMAN, language="de"),
    document("small", "Only a few words."),
]
EARLIER = [document(f"earlier-{n}", prose(("corpus", n), 12)) for n in (9, 11)]
