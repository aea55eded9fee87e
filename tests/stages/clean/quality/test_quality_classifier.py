import numpy as np
import pytest

from stages.clean.quality.quality_classifier import accuracy_and_auc, features, probability, train

MILL = "the wheel turns in the cold river and the miller grinds the grain of the farmers in the valley"
SHOP = "buy now and save big on the best deals click here to add the item to your cart free shipping"


def texts_of(source: str, count: int, seed: int) -> list[str]:
    words = source.split()
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(words, 40)) for _ in range(count)]


def test_two_classes_are_separated_and_a_mixture_lies_between() -> None:
    texts = [text for pair in zip(texts_of(MILL, 60, 1), texts_of(SHOP, 60, 2), strict=True) for text in pair]
    weights = train(texts, np.arange(120) % 2 == 0, bits=14)
    of_mill = [probability(weights, text) for text in texts_of(MILL, 30, 3)]
    of_shop = [probability(weights, text) for text in texts_of(SHOP, 30, 4)]
    mixed = [
        probability(weights, f"{a} {b}") for a, b in zip(texts_of(MILL, 30, 5), texts_of(SHOP, 30, 6), strict=True)
    ]
    assert min(of_mill) > 0.9
    assert max(of_shop) < 0.1
    assert np.mean(of_shop) < np.mean(mixed) < np.mean(of_mill)
    assert probability(weights, "") == pytest.approx(0.5, abs=0.45), "a text without words is not judged by its words"


def test_a_rare_kind_counts_as_much_as_a_common_one() -> None:
    texts = [*texts_of(SHOP, 190, 1), *texts_of(MILL, 10, 2)]
    order = np.random.default_rng(0).permutation(200)
    weights = train([texts[at] for at in order], order >= 190, bits=14)
    assert np.mean([probability(weights, text) > 0.5 for text in texts_of(MILL, 40, 3)]) > 0.9
    assert np.mean([probability(weights, text) < 0.5 for text in texts_of(SHOP, 40, 4)]) > 0.9


def test_training_is_the_same_every_time() -> None:
    texts = [*texts_of(SHOP, 20, 1), *texts_of(MILL, 20, 2)]
    first, second = (train(texts, np.arange(40) >= 20, bits=12) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_features_are_words_and_pairs_without_case() -> None:
    assert len(features("one two three", 18)) == 5
    assert features("One, TWO three", 18).tolist() == features("one two three", 18).tolist()
    assert features("one three two", 18)[:3].tolist() != features("one two three", 18)[:3].tolist()
    assert features("", 18).tolist() == []
    assert (features(MILL, 10) < 1 << 10).all()


def test_figures_by_hand() -> None:
    kinds = np.array([True, True, False, False])
    assert accuracy_and_auc(np.array([0.9, 0.8, 0.2, 0.1]), kinds) == (1, 1)
    assert accuracy_and_auc(np.array([0.9, 0.3, 0.6, 0.1]), kinds) == (0.5, 0.75)
    assert accuracy_and_auc(np.array([0.7, 0.7, 0.7, 0.7]), kinds) == (0.5, 0.5)
