import json
import math
import re
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from data_schemas.errors import InputDataError
from infra.store.filesystem import Folder
from modeling.compression.integers import quantize_int8
from stages.benchmark.results import TaskResult
from stages.benchmark.task import TaskContext
from stages.benchmark.tasks.few_shot_images.episodes import draw_episodes, over_episodes
from stages.benchmark.tasks.few_shot_images.features import frozen_features
from stages.benchmark.tasks.few_shot_images.image_sets import ImageSet, digits
from stages.benchmark.tasks.few_shot_images.in_context import Labels, Room, label_scores, order_of, shown
from stages.benchmark.tasks.few_shot_images.patches import PatchEmbedding, cut, embedding_length
from stages.benchmark.tasks.few_shot_images.task import FewShotImagesTask
from tests.modeling.networks import small_network
from tests.stages.benchmark.networks import evaluated, tokenizer
from tests.stages.benchmark.tasks.few_shot_images.image_layouts import image_folder

LABELS = Labels((7, 8, 9), (5,))
SMALL = {"shots": 3, "queries": 2, "episodes": 2, "ways": 4}


def some_set(classes, images):
    support = {f"c{name}": [f"s{name}/{n}" for n in range(images)] for name in range(classes)}
    queries = {f"c{name}": [f"q{name}/{n}" for n in range(images)] for name in range(classes)}
    return ImageSet(support, queries, "test", lambda image, side: np.zeros((side, side, 1), np.float32))


@settings(max_examples=60)
@given(st.integers(2, 5), st.integers(0, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_episodes_hang_on_the_seed_alone_and_ask_of_no_example(ways, more, shots, queries, seed):
    images = some_set(ways + more, 5)
    drawn = draw_episodes(images, 3, ways, shots, queries, seed)
    assert drawn == draw_episodes(images, 3, ways, shots, queries, seed)
    assert drawn[:2] == draw_episodes(images, 2, ways, shots, queries, seed)
    for episode in drawn:
        assert len(set(episode.classes)) == ways
        for ids, places, part, each in (
            (episode.examples, episode.example_classes, images.support, shots),
            (episode.queries, episode.query_classes, images.queries, queries),
        ):
            assert len(set(ids)) == len(ids) == ways * each
            assert all(image in part[episode.classes[place]] for image, place in zip(ids, places, strict=True))
        assert not set(episode.examples) & set(episode.queries)
        part = episode.part(2, 1)
        assert part.classes == episode.classes[:2] and part.examples == (episode.examples[0], episode.examples[shots])
        assert part.queries == episode.queries[: 2 * queries]


def test_other_seeds_and_episodes_draw_otherwise():
    one, two = draw_episodes(digits(), 2, None, 10, 5, 0)
    assert one.examples != two.examples and one != draw_episodes(digits(), 1, None, 10, 5, 1)[0]
    assert sorted(one.classes) == [str(digit) for digit in range(10)]


def test_too_few_images_are_said():
    with pytest.raises(InputDataError, match=r"0 of 3 classes have 6 images to learn from and 1 to ask about \(test\)"):
        draw_episodes(some_set(3, 5), 1, None, 6, 1, 0)


def test_digits_are_scikit_learn_s_own_and_each_is_in_one_part():
    images = digits()
    parts = [{image for ids in part.values() for image in ids} for part in (images.support, images.queries)]
    assert not parts[0] & parts[1] and parts[0] | parts[1] == {str(number) for number in range(1797)}
    assert images.read("0", 8).shape == (8, 8, 1) and images.read("0", 8)[0, 2, 0] == 5 / 16
    assert np.isclose(images.read("0", 4)[0, 1, 0], (5 + 13 + 13 + 15) / 64)


def test_the_interval_is_student_s_over_episodes():
    value, low, high = over_episodes([0.4, 0.5, 0.6])
    assert value == pytest.approx(0.5) and high - value == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-5)
    assert value - low == pytest.approx(high - value) and over_episodes([0.0, 1.0])[1:] == (0.0, 1.0)
    assert math.isnan(over_episodes([0.3]).low)


def test_raw_pixels_are_scored_as_scikit_learn_scores_them():
    task = FewShotImagesTask(shots=10, episodes=2)
    rows = {one.score["metric"]: one for one in task.baselines(TaskContext(3)) if one.score["model"] == "raw pixels"}
    images, found = digits(), {"nearest centroid": [], "linear probe": []}
    for episode in draw_episodes(images, 2, None, 10, 5, 3):
        learnt, asked = (images.pixels(ids, 8).reshape(len(ids), 64) for ids in (episode.examples, episode.queries))
        labels, truth = episode.example_classes, np.array(episode.query_classes)
        scaler = StandardScaler().fit(learnt)
        with np.errstate(invalid="ignore"), pytest.warns(UserWarning):  # pixels that are always 0
            centroid = NearestCentroid().fit(learnt, labels)
        probe = LogisticRegression(C=1.0, max_iter=1_000).fit(scaler.transform(learnt), labels)
        found["nearest centroid"] += list(centroid.predict(asked) == truth)
        found["linear probe"] += list(probe.predict(scaler.transform(asked)) == truth)
    for name, right in found.items():
        assert [item["numerator"] for item in rows[f"accuracy, {name}"].items] == right
        assert rows[f"accuracy, {name}"].score["value"] == pytest.approx(np.mean(right)) and np.mean(right) > 0.6


def test_patches_are_squares_row_by_row_and_as_long_as_embeddings():
    image = np.arange(2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)
    assert (cut(image, 2)[1, 2].reshape(2, 2, 3) == image[1, 2:, :2]).all()
    network = small_network()
    vectors = PatchEmbedding(network, image, 2, seed=0)(image)
    assert vectors.shape == (2, 4, 32) and vectors.dtype == torch.float32
    assert float(vectors.square().sum(-1).mean().sqrt()) == pytest.approx(embedding_length(network), rel=1e-5)
    assert embedding_length(network) == pytest.approx(
        float(network.embedding.weight.detach().square().sum(1).mean().sqrt())
    )
    blank = PatchEmbedding(network, np.ones((1, 4, 4, 3), np.float32), 2, seed=0)
    assert blank(np.ones((1, 4, 4, 3), np.float32)).abs().max() == 0


def test_features_are_the_mean_of_what_tokens_give():
    network = small_network(separate_documents=True)
    tokens = torch.tensor([[0, 4, 5, 6], [0, 9, 8, 7]])
    expected = network.hidden_states(tokens)[:, 1:].mean(1)
    embedded = network.embedding(tokens).detach()
    found = frozen_features(network, embedded[:, 1:], embedded[0, :1])
    assert np.allclose(found, expected.detach(), atol=1e-5)


@pytest.mark.parametrize("change", [lambda network: None, quantize_int8])
def test_label_scores_are_the_network_s_own_predictions(change, monkeypatch):
    """The same as reading the whole prompt as tokens, query by query; in one batch or in several."""
    network = small_network()
    change(network)
    tokens, order = torch.tensor([[11, 12], [13, 14], [15, 16], [17, 18]]), order_of([0, 0, 1, 1], (0, 0))
    start, images = network.embedding(torch.tensor([3])).detach(), network.embedding(tokens).detach()
    classes = [(0, 0, 1, 1)[place] for place in order]
    read = shown(network, start, images[order], classes, LABELS)
    prompt = [3, *(token for place, label in zip(order, classes, strict=True)
                   for token in (*tokens[place].tolist(), LABELS.tokens[label], 5))]  # fmt: skip
    expected = [
        network(torch.tensor([[*prompt, *query]]))[0, -1].log_softmax(-1)[[7, 8, 9]].tolist()
        for query in tokens.tolist()
    ]
    for most in (10_000, 1):
        monkeypatch.setattr("stages.benchmark.tasks.few_shot_images.in_context.BATCH_TOKENS", most)
        assert np.allclose(label_scores(network, read, images, LABELS.tokens), expected, atol=1e-4)


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 20))
def test_examples_come_in_rounds(ways, shots, seed):
    classes = [place for place in range(ways) for _ in range(shots)]
    order = order_of(classes, (seed, 1))
    assert sorted(order) == list(range(ways * shots))
    shown_classes = iter([classes[place] for place in order])
    while one := list(islice(shown_classes, ways)):
        assert sorted(one) == list(range(ways))


def test_as_many_examples_are_shown_as_fit():
    def room(context, ways=3, shots=10):
        return Room.of(context, 1, 16, LABELS, ways, shots)

    assert room(17 + 18 * 30) == (3, 10) and room(17 + 18 * 30 - 1) == (3, 9)
    assert room(17 + 18 * 3) == (3, 1) and room(17 + 18 * 3 - 1) == (2, 1)
    assert room(17 + 18 * 2 - 1) is None and room(10) is None
    assert room(9_999, ways=5, shots=2) == (3, 2)  # no more labels
    assert Labels.of(tokenizer()).tokens[:2] == tuple(tokenizer().token_to_id(letter) for letter in "AB")


def test_a_network_from_images_to_items(tmp_path):
    task, model = FewShotImagesTask(**SMALL), evaluated(context_length=96)
    context = TaskContext(0, Folder(str(tmp_path)))
    results = task.measure(model, context)
    assert [one.score["metric"] for one in results] == [
        "accuracy, nearest centroid", "accuracy, linear probe", "accuracy, in context",
    ]  # fmt: skip
    for one in results:
        assert len({item["item"] for item in one.items}) == len(one.items) == one.score["items"] == 16
        assert one.score["value"] == pytest.approx(sum(item["numerator"] for item in one.items) / 16)
        for item in one.items:
            output = json.loads(item["output"])
            assert item["numerator"] == (output["predicted"] == output["label"])
            assert item["item"].startswith(f"{output['episode']}/")
    assert "4-way, 3 examples per class, 2 episodes of 8 queries by seed 0" in results[0].score["protocol"]
    in_context = results[2].score
    assert "4-way, 1 examples per class" in in_context["protocol"]
    assert "(of 4 classes and 3 examples, no more fit)" in in_context["protocol"]
    assert re.fullmatch(r"chance is 0\.250; raw pixels, .* shown: [01]\.\d{3}", in_context["note"])
    first = json.loads(results[2].items[0]["output"])
    assert len(first["log_likelihoods"]) == 4 == len(first["examples"]) and max(first["log_likelihoods"]) < 0
    again = draw_episodes(digits(), 2, 4, 3, 2, 0)[0].part(4, 1)
    assert tuple(first["examples"]) == again.examples and tuple(first["classes"]) == again.classes
    model.network.layers = None
    assert task.measure(model, context) == results  # what a killed stage has is not computed again


def test_a_narrow_context_shows_fewer_classes_or_says_why_not():
    def in_context(length, **fields) -> TaskResult:
        task = FewShotImagesTask(**SMALL, protocols=["in context"], **fields)
        return task.measure(evaluated(context_length=length), TaskContext(0))[0]

    two = in_context(64).score
    assert two["metric"] == "accuracy, in context, 2-way" and two["items"] == 8 and "chance is 0.500" in two["note"]
    none = in_context(40).score
    assert none["value"] is None and none["model"] == "pretrained"
    assert none["note"].endswith("its context does not hold an example of each of two classes and a query; set patches "
                                 "below 4")  # fmt: skip
    assert "64 vectors, more than its context of 64 holds" in in_context(64, patches=8).score["note"]


def test_folders_are_classified_as_digits_are(tmp_path):
    image_folder(image_folder(tmp_path, "train"), "val")
    task = FewShotImagesTask(name="pets", path=str(tmp_path), shots=2, queries=2, episodes=2, image_size=8)
    assert task.names() == ["pets"] and len(task.data_files()) == 12 and len(task.fingerprint()) == 64
    results = task.measure(evaluated(), TaskContext(0)) + task.baselines(TaskContext(0))
    assert {one.score["task"] for one in results} == {"pets"}
    values = {(one.score["model"], one.score["metric"]): one.score["value"] for one in results}
    assert values["raw pixels", "accuracy, nearest centroid"] == 1  # each class has a color of its own
    assert values["pretrained", "accuracy, nearest centroid"] == 1
    assert values["random choice", "accuracy, in context"] == values["majority class", "accuracy, linear probe"] == 0.5


def test_two_folders_with_the_same_names_are_two_sets(tmp_path):
    """Other images under the same names, such as one set at two resolutions, have answers of their own."""
    fields = {"name": "pets", "shots": 2, "queries": 2, "episodes": 1, "image_size": 8}
    context, found = TaskContext(0, Folder(str(tmp_path / "kept"))), []
    for place, classes in enumerate((("cat", "dog"), ("dog", "cat"))):
        root = tmp_path / str(place)
        for split in ("train", "val"):
            image_folder(root, split, classes)
        model = evaluated(context_length=96)
        found.append(FewShotImagesTask(path=str(root), **fields).measure(model, context)[2])
        alone = FewShotImagesTask(path=str(root), **fields).measure(model, TaskContext(0))[2]
        assert found[-1].items == alone.items
    assert [item["item"] for item in found[0].items] == [item["item"] for item in found[1].items]


def test_what_is_absent_is_said(tmp_path):
    task = FewShotImagesTask(name="pets", path=str(tmp_path / "nothing"))
    assert task.measure(evaluated(), TaskContext(0)) == [] and task.data_files() == [] and task.fingerprint()
    rows = [one.score for one in task.baselines(TaskContext(0))]
    assert [row["value"] for row in rows] == [None] * 3
    assert rows[0]["note"].startswith(f"not run: no data at {tmp_path}/nothing; get it with: curl -LO https://")


def test_sizes_that_patches_do_not_divide_are_refused():
    with pytest.raises(
        ValidationError, match="image_size 10 is not a multiple of patches 4; take an image_size such as 8"
    ):
        FewShotImagesTask(image_size=10)


def test_real_photographs_end_to_end(shared_data):
    path = str(shared_data / "images" / "tiny-imagenet-40")
    task = FewShotImagesTask(name="tiny", path=path, shots=4, queries=2, episodes=2)
    results = task.measure(evaluated(context_length=200), TaskContext(0)) + task.baselines(TaskContext(0))
    assert [one.score["items"] for one in results if one.items] == [40] * 5
    assert "name" in json.loads(results[0].items[0]["output"])
