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
from stages.benchmark.tasks.few_shot_images.episodes import draw_episodes, mean_over_episodes
from stages.benchmark.tasks.few_shot_images.features import frozen_features
from stages.benchmark.tasks.few_shot_images.image_sets import ImageSet, digits
from stages.benchmark.tasks.few_shot_images.in_context import (
    ContextFit,
    Labels,
    embed_examples,
    interleaved_order,
    label_scores,
)
from stages.benchmark.tasks.few_shot_images.patches import PatchEmbedding, embedding_length, to_patches
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
def test_episodes_depend_on_the_seed_alone_and_no_query_is_an_example(ways, more, shots, queries, seed):
    images = some_set(ways + more, 5)
    episodes = draw_episodes(images, 3, ways, shots, queries, seed)
    assert episodes == draw_episodes(images, 3, ways, shots, queries, seed)
    assert episodes[:2] == draw_episodes(images, 2, ways, shots, queries, seed)
    for episode in episodes:
        assert len(set(episode.classes)) == ways
        for ids, classes, part, per_class in (
            (episode.examples, episode.example_classes, images.support, shots),
            (episode.queries, episode.query_classes, images.queries, queries),
        ):
            assert len(set(ids)) == len(ids) == ways * per_class
            assert all(image in part[episode.classes[label]] for image, label in zip(ids, classes, strict=True))
        assert not set(episode.examples) & set(episode.queries)
        subset = episode.subset(2, 1)
        assert subset.classes == episode.classes[:2]
        assert subset.examples == (episode.examples[0], episode.examples[shots])
        assert subset.queries == episode.queries[: 2 * queries]


def test_other_seeds_and_episodes_have_other_samples():
    first, second = draw_episodes(digits(), 2, None, 10, 5, 0)
    assert first.examples != second.examples and first != draw_episodes(digits(), 1, None, 10, 5, 1)[0]
    assert sorted(first.classes) == [str(digit) for digit in range(10)]


def test_too_few_images_are_refused():
    with pytest.raises(
        InputDataError, match=r"0 of 3 classes have at least 6 images for examples and 1 for queries \(test\)"
    ):
        draw_episodes(some_set(3, 5), 1, None, 6, 1, 0)


def test_digits_are_scikit_learn_s_own_and_each_is_in_one_part():
    images = digits()
    parts = [{image for ids in part.values() for image in ids} for part in (images.support, images.queries)]
    assert not parts[0] & parts[1] and parts[0] | parts[1] == {str(number) for number in range(1797)}
    assert images.read("0", 8).shape == (8, 8, 1) and images.read("0", 8)[0, 2, 0] == 5 / 16
    assert np.isclose(images.read("0", 4)[0, 1, 0], (5 + 13 + 13 + 15) / 64)


def test_the_interval_is_student_s_over_episodes():
    value, low, high = mean_over_episodes([0.4, 0.5, 0.6])
    assert value == pytest.approx(0.5) and high - value == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-5)
    assert value - low == pytest.approx(high - value) and mean_over_episodes([0.0, 1.0])[1:] == (0.0, 1.0)
    assert math.isnan(mean_over_episodes([0.3]).low)


def test_raw_pixels_are_scored_as_scikit_learn_scores_them():
    task = FewShotImagesTask(shots=10, episodes=2)
    rows = {
        result.score["metric"]: result
        for result in task.baselines(TaskContext(3))
        if result.score["model"] == "raw pixels"
    }
    images, correct = digits(), {"nearest centroid": [], "linear probe": []}
    for episode in draw_episodes(images, 2, None, 10, 5, 3):
        examples, queries = (images.pixels(ids, 8).reshape(len(ids), 64) for ids in (episode.examples, episode.queries))
        labels, truth = episode.example_classes, np.array(episode.query_classes)
        scaler = StandardScaler().fit(examples)
        with np.errstate(invalid="ignore"), pytest.warns(UserWarning):  # pixels that are always 0
            centroid = NearestCentroid().fit(examples, labels)
        probe = LogisticRegression(C=1.0, max_iter=1_000).fit(scaler.transform(examples), labels)
        correct["nearest centroid"] += list(centroid.predict(queries) == truth)
        correct["linear probe"] += list(probe.predict(scaler.transform(queries)) == truth)
    for name, values in correct.items():
        assert [item["numerator"] for item in rows[f"accuracy, {name}"].items] == values
        assert rows[f"accuracy, {name}"].score["value"] == pytest.approx(np.mean(values)) and np.mean(values) > 0.6


def test_patches_are_squares_row_by_row_and_as_long_as_embeddings():
    image = np.arange(2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)
    assert (to_patches(image, 2)[1, 2].reshape(2, 2, 3) == image[1, 2:, :2]).all()
    network = small_network()
    vectors = PatchEmbedding(network, image, 2, seed=0)(image)
    assert vectors.shape == (2, 4, 32) and vectors.dtype == torch.float32
    assert float(vectors.square().sum(-1).mean().sqrt()) == pytest.approx(embedding_length(network), rel=1e-5)
    assert embedding_length(network) == pytest.approx(
        float(network.embedding.weight.detach().square().sum(1).mean().sqrt())
    )
    blank = PatchEmbedding(network, np.ones((1, 4, 4, 3), np.float32), 2, seed=0)
    assert blank(np.ones((1, 4, 4, 3), np.float32)).abs().max() == 0


def test_features_are_the_mean_of_the_hidden_states():
    network = small_network(separate_documents=True)
    tokens = torch.tensor([[0, 4, 5, 6], [0, 9, 8, 7]])
    expected = network.hidden_states(tokens)[:, 1:].mean(1)
    embedded = network.embedding(tokens).detach()
    features = frozen_features(network, embedded[:, 1:], embedded[0, :1])
    assert np.allclose(features, expected.detach(), atol=1e-5)


@pytest.mark.parametrize("change", [lambda network: None, quantize_int8])
def test_label_scores_are_the_network_s_own_predictions(change, monkeypatch):
    """The same as for the whole prompt as tokens, query by query; in one batch or in several."""
    network = small_network()
    change(network)
    tokens, order = torch.tensor([[11, 12], [13, 14], [15, 16], [17, 18]]), interleaved_order([0, 0, 1, 1], (0, 0))
    prefix, images = network.embedding(torch.tensor([3])).detach(), network.embedding(tokens).detach()
    classes = [(0, 0, 1, 1)[index] for index in order]
    examples = embed_examples(network, prefix, images[order], classes, LABELS)
    prompt = [3, *(token for index, label in zip(order, classes, strict=True)
                   for token in (*tokens[index].tolist(), LABELS.tokens[label], 5))]  # fmt: skip
    expected = [
        network(torch.tensor([[*prompt, *query]]))[0, -1].log_softmax(-1)[[7, 8, 9]].tolist()
        for query in tokens.tolist()
    ]
    for batch_tokens in (10_000, 1):
        monkeypatch.setattr("stages.benchmark.tasks.few_shot_images.in_context.BATCH_TOKENS", batch_tokens)
        assert np.allclose(label_scores(network, examples, images, LABELS.tokens), expected, atol=1e-4)


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 20))
def test_examples_come_in_rounds(ways, shots, seed):
    classes = [label for label in range(ways) for _ in range(shots)]
    order = interleaved_order(classes, (seed, 1))
    assert sorted(order) == list(range(ways * shots))
    ordered_classes = iter([classes[index] for index in order])
    while in_round := list(islice(ordered_classes, ways)):
        assert sorted(in_round) == list(range(ways))


def test_the_most_examples_that_fit_are_used():
    def fit(context, ways=3, shots=10):
        return ContextFit.largest(context, 1, 16, LABELS, ways, shots)

    assert fit(17 + 18 * 30) == (3, 10) and fit(17 + 18 * 30 - 1) == (3, 9)
    assert fit(17 + 18 * 3) == (3, 1) and fit(17 + 18 * 3 - 1) == (2, 1)
    assert fit(17 + 18 * 2 - 1) is None and fit(10) is None
    assert fit(9_999, ways=5, shots=2) == (3, 2)  # no more labels
    assert Labels.from_tokenizer(tokenizer()).tokens[:2] == tuple(tokenizer().token_to_id(letter) for letter in "AB")


def test_a_network_from_images_to_items(tmp_path):
    task, model = FewShotImagesTask(**SMALL), evaluated(context_length=96)
    context = TaskContext(0, Folder(str(tmp_path)))
    results = task.measure(model, context)
    assert [result.score["metric"] for result in results] == [
        "accuracy, nearest centroid", "accuracy, linear probe", "accuracy, in context",
    ]  # fmt: skip
    for result in results:
        assert len({item["item"] for item in result.items}) == len(result.items) == result.score["items"] == 16
        assert result.score["value"] == pytest.approx(sum(item["numerator"] for item in result.items) / 16)
        for item in result.items:
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
    episode = draw_episodes(digits(), 2, 4, 3, 2, 0)[0].subset(4, 1)
    assert tuple(first["examples"]) == episode.examples and tuple(first["classes"]) == episode.classes
    model.network.layers = None
    assert task.measure(model, context) == results  # stored answers are not computed again


def test_a_short_context_has_fewer_classes_or_a_reason():
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
    assert {result.score["task"] for result in results} == {"pets"}
    values = {(result.score["model"], result.score["metric"]): result.score["value"] for result in results}
    assert values["raw pixels", "accuracy, nearest centroid"] == 1  # every class has its own color
    assert values["pretrained", "accuracy, nearest centroid"] == 1
    assert values["random choice", "accuracy, in context"] == values["majority class", "accuracy, linear probe"] == 0.5


def test_two_folders_with_the_same_names_are_two_sets(tmp_path):
    """Other images under the same names, such as one set at two resolutions, have their own answers."""
    fields = {"name": "pets", "shots": 2, "queries": 2, "episodes": 1, "image_size": 8}
    context, results = TaskContext(0, Folder(str(tmp_path / "kept"))), []
    for number, classes in enumerate((("cat", "dog"), ("dog", "cat"))):
        root = tmp_path / str(number)
        for split in ("train", "val"):
            image_folder(root, split, classes)
        model = evaluated(context_length=96)
        results.append(FewShotImagesTask(path=str(root), **fields).measure(model, context)[2])
        alone = FewShotImagesTask(path=str(root), **fields).measure(model, TaskContext(0))[2]
        assert results[-1].items == alone.items
    assert [item["item"] for item in results[0].items] == [item["item"] for item in results[1].items]


def test_missing_data_are_reported(tmp_path):
    task = FewShotImagesTask(name="pets", path=str(tmp_path / "nothing"))
    assert task.measure(evaluated(), TaskContext(0)) == [] and task.data_files() == [] and task.fingerprint()
    rows = [result.score for result in task.baselines(TaskContext(0))]
    assert [row["value"] for row in rows] == [None] * 3
    assert rows[0]["note"].startswith(f"not run: no data at {tmp_path}/nothing; get it with: curl -LO https://")


def test_image_sizes_that_are_not_multiples_of_patches_are_refused():
    with pytest.raises(
        ValidationError, match="image_size 10 is not a multiple of patches, 4; set an image_size such as 8"
    ):
        FewShotImagesTask(image_size=10)


def test_real_photographs_end_to_end(shared_data):
    path = str(shared_data / "images" / "tiny-imagenet-40")
    task = FewShotImagesTask(name="tiny", path=path, shots=4, queries=2, episodes=2)
    results = task.measure(evaluated(context_length=200), TaskContext(0)) + task.baselines(TaskContext(0))
    assert [result.score["items"] for result in results if result.items] == [40] * 5
    assert "name" in json.loads(results[0].items[0]["output"])
