"""Reference implementation of Gopher's repetition measures over strings, which the compiled pass must equal."""

import re
from collections import Counter


def share_of_duplicates(pieces: list[str], characters: int) -> tuple[float, float]:
    """Share of the pieces that occurred earlier, and of the characters in them."""
    seen: set[str] = set()
    count = size = 0
    for piece in pieces:
        if piece in seen:
            count += 1
            size += len(piece)
        seen.add(piece)
    return count / max(len(pieces), 1), size / max(characters, 1)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def paragraphs(text: str) -> list[str]:
    """As the lines that they consist of, so that indentation does not matter."""
    return ["\n".join(lines(part)) for part in re.split(r"\n\s*\n", text) if part.strip()]


def top_ngram(text: str, n: int) -> float:
    split = list(map(str.lower, words(text)))
    ngrams = [" ".join(split[start : start + n]) for start in range(len(split) - n + 1)]
    if not ngrams:
        return 0.0
    ngram, times = Counter(ngrams).most_common(1)[0]
    return len(ngram) * times / len(text)


def repeated_ngrams(text: str, n: int) -> float:
    split = list(map(str.lower, words(text)))
    seen: set[tuple[str, ...]] = set()
    characters = start = 0
    while start + n <= len(split):
        ngram = tuple(split[start : start + n])
        if ngram in seen:
            characters += sum(map(len, ngram))
            start += n
        else:
            seen.add(ngram)
            start += 1
    return characters / max(len(text), 1)


def words(text: str) -> list[str]:
    """Those of `str.split`; each ideograph is one of its own, with the punctuation after it."""
    return re.findall(r"[\u3400-\u9fff][^\s\w]*|(?:(?![\u3400-\u9fff])\S)+", text)
