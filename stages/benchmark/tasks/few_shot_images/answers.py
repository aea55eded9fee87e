"""What a network or the raw pixels answer in episodes of few-shot classification.

- `NetworkAnswers`: by frozen features or in context
- `pixel_answers`: the baseline in the same episodes
- `few_shot_result`: answers -> a score and its items
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from modeling.transformer import Transformer
from stages.benchmark.harness.answer_store import AnswerStore, request_key
from stages.benchmark.results import TaskResult, item_row, score_row
from stages.benchmark.task import EvaluatedModel
from stages.benchmark.tasks.few_shot_images.episodes import Episode, over_episodes
from stages.benchmark.tasks.few_shot_images.features import CLASSIFIERS, Features, frozen_features
from stages.benchmark.tasks.few_shot_images.image_sets import ImageSet
from stages.benchmark.tasks.few_shot_images.in_context import Labels, Room, label_scores, order_of, shown
from stages.benchmark.tasks.few_shot_images.patches import PatchEmbedding

Answers = list[dict[str, Any]]
"""Of an episode's queries in their order, each with the class `predicted`."""


@dataclass(frozen=True)
class ImageForm:
    """How images are put before a network."""

    side: int
    """Pixels."""
    patches: int
    """Along each side."""
    seed: int
    """Of the projection and of the order of examples."""


class NetworkAnswers:
    """A network in the episodes of one set; answers that are in the store are not computed again."""

    def __init__(
        self, model: EvaluatedModel, images: ImageSet, form: ImageForm, store: AnswerStore, fingerprint: str = ""
    ) -> None:
        """Ask nothing yet.

        Args:
            model: what is asked.
            images: the set.
            form: how images are put before the network.
            store: where answers are kept and looked for; must belong to this network alone.
            fingerprint: of the set's files, as two sets can have the same names for other images.
        """
        self._model, self._images, self._form, self._store = model, images, form, store
        self._fingerprint = fingerprint
        self._labels = Labels.of(model.tokenizer)

    def room(self, ways: int, shots: int) -> Room | None:
        """What the network's context holds of examples in context."""
        start, image = len(self._start), self._form.patches**2
        return Room.of(self._network.config.context_length, start, image, self._labels, ways, shots)

    def by_features(self, episode: Episode) -> dict[str, Answers]:
        """Classifier -> answers, from features of all examples."""
        keys = {name: self._key(name, episode) for name in CLASSIFIERS}
        if not all(key in self._store for key in keys.values()):
            features = [self._features(embedded) for embedded in self._embedded(episode)]
            answers = {name: _classified(name, episode, *features) for name in keys}
            self._store.add({keys[name]: found for name, found in answers.items()})
        return {name: self._store[key] for name, key in keys.items()}

    def in_context(self, episode: Episode) -> Answers:
        """Answers behind all of the episode's examples, with each label's log-likelihood."""
        key = self._key("in context", episode)
        if key not in self._store:
            examples, queries = self._embedded(episode)
            classes = episode.example_classes
            order = order_of(classes, (self._form.seed, episode.number))
            read = shown(self._network, self._start, examples[order], [classes[place] for place in order], self._labels)
            scores = label_scores(self._network, read, queries, self._labels.tokens[: len(episode.classes)])
            self._store.add(
                {key: [{"predicted": episode.classes[row.argmax()], "log_likelihoods": row.tolist()} for row in scores]}
            )
        found: Answers = self._store[key]
        return found

    @property
    def _network(self) -> Transformer:
        return self._model.network

    @cached_property
    def _start(self) -> Tensor:
        begin = [self._model.end_of_text] if self._model.prepend_end_of_text else []
        weight = self._network.final_norm.weight
        with torch.inference_mode():
            embedded: Tensor = self._network.embedding(torch.tensor(begin, dtype=torch.int64, device=weight.device))
            return embedded.to(weight)

    def _embedded(self, episode: Episode) -> tuple[Tensor, Tensor]:
        examples, queries = (self._images.pixels(ids, self._form.side) for ids in (episode.examples, episode.queries))
        embedding = PatchEmbedding(self._network, examples, self._form.patches, self._form.seed)
        return embedding(examples), embedding(queries)

    def _features(self, embedded: Tensor) -> Features:
        return frozen_features(self._network, embedded, self._start)

    def _key(self, protocol: str, episode: Episode) -> str:
        form = (self._form.side, self._form.patches, self._form.seed)
        drawn = (episode.number, episode.classes, episode.examples, episode.queries)
        return request_key("few_shot_images", self._fingerprint, protocol, form, drawn)


def pixel_answers(images: ImageSet, episode: Episode, side: int, classifier: str) -> Answers:
    """What the classifier gives on the pixels themselves, 0 to 1, as one row of numbers."""
    examples, queries = (
        images.pixels(ids, side).astype("float64").reshape(len(ids), -1) for ids in (episode.examples, episode.queries)
    )
    return _classified(classifier, episode, examples, queries)


def accuracy(episode: Episode, answers: Answers) -> float:
    """Share of an episode's queries whose class was found."""
    return sum(_right(episode, answers)) / len(answers)


def few_shot_result(
    task: str,
    model: str,
    metric: str,
    answered: Sequence[tuple[Episode, Answers]],
    names: ImageSet,
    protocol: str,
    note: str | None = None,
) -> TaskResult:
    """Accuracy over all queries. Items are queries, `<episode>/<image>`; an episode's first one lists its examples.

    Args:
        task: as the result calls it.
        model: network or baseline.
        metric: with the protocol's name.
        answered: episodes with as many queries each.
        names: the set, for what classes are called.
        protocol: how it was asked.
        note: what a reader must know.
    """
    items = []
    for episode, answers in answered:
        rows = zip(episode.queries, episode.query_classes, answers, _right(episode, answers), strict=True)
        for place, (query, label, answer, right) in enumerate(rows):
            output = {**answer, "label": episode.classes[label], "episode": episode.number}
            output |= {"name": names.names[output["label"]]} if output["label"] in names.names else {}
            output |= {"classes": episode.classes, "examples": episode.examples} if place == 0 else {}
            items.append(item_row(task, f"{episode.number}/{query}", model, output, right, 1.0))
    interval = over_episodes([accuracy(episode, answers) for episode, answers in answered])
    return TaskResult(score_row(task, model, metric, interval, len(items), True, protocol, note), items)


def _classified(name: str, episode: Episode, examples: Features, queries: Features) -> Answers:
    places = CLASSIFIERS[name](examples, episode.example_classes, queries)
    return [{"predicted": episode.classes[place]} for place in places]


def _right(episode: Episode, answers: Answers) -> list[float]:
    return [
        float(answer["predicted"] == episode.classes[label])
        for label, answer in zip(episode.query_classes, answers, strict=True)
    ]
