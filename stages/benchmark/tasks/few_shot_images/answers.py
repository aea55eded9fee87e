"""Answers of a network, and of classifiers on raw pixels, in episodes of few-shot classification.

- `NetworkAnswers`: answers by frozen features or in context
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
from stages.benchmark.tasks.few_shot_images.episodes import Episode, mean_over_episodes
from stages.benchmark.tasks.few_shot_images.features import CLASSIFIERS, Features, frozen_features
from stages.benchmark.tasks.few_shot_images.image_sets import ImageSet
from stages.benchmark.tasks.few_shot_images.in_context import (
    ContextFit,
    Labels,
    embed_examples,
    interleaved_order,
    label_scores,
)
from stages.benchmark.tasks.few_shot_images.patches import PatchEmbedding

Answers = list[dict[str, Any]]
"""One per query of an episode, in their order, with the class `predicted`."""


@dataclass(frozen=True)
class ImageEncoding:
    """Conversion of images into vectors for a network."""

    side: int
    """Side of an image in pixels."""
    patches: int
    """Patches along each side."""
    seed: int
    """Seed of the projection and of the order of examples."""


class NetworkAnswers:
    """Answers of a network in the episodes of a set; those in the store are not computed again."""

    def __init__(
        self,
        model: EvaluatedModel,
        images: ImageSet,
        encoding: ImageEncoding,
        store: AnswerStore,
        fingerprint: str = "",
    ) -> None:
        """Prepare for episodes of a set; nothing is computed yet.

        Args:
            model: the evaluated model.
            images: the set.
            encoding: conversion of images into vectors.
            store: answers from earlier calls are read from it and new ones added; used for this network only.
            fingerprint: digest of the set's files, as two sets can have the same names for different images.
        """
        self._model, self._images, self._encoding, self._store = model, images, encoding, store
        self._fingerprint = fingerprint
        self._labels = Labels.from_tokenizer(model.tokenizer)

    def context_fit(self, ways: int, shots: int) -> ContextFit | None:
        """Classes and examples that fit into the network's context."""
        prefix, image = len(self._prefix), self._encoding.patches**2
        return ContextFit.largest(self._network.config.context_length, prefix, image, self._labels, ways, shots)

    def by_features(self, episode: Episode) -> dict[str, Answers]:
        """Classifier -> answers, from the features of all examples."""
        keys = {name: self._key(name, episode) for name in CLASSIFIERS}
        if not all(key in self._store for key in keys.values()):
            features = [self._features(embedded) for embedded in self._embedded(episode)]
            answers = {name: _classify(name, episode, *features) for name in keys}
            self._store.add({keys[name]: of_classifier for name, of_classifier in answers.items()})
        return {name: self._store[key] for name, key in keys.items()}

    def in_context(self, episode: Episode) -> Answers:
        """Answers in the context of all examples of the episode, with the log-likelihood of each label."""
        key = self._key("in context", episode)
        if key not in self._store:
            examples, queries = self._embedded(episode)
            classes = episode.example_classes
            order = interleaved_order(classes, (self._encoding.seed, episode.number))
            ordered_classes = [classes[index] for index in order]
            embedded = embed_examples(self._network, self._prefix, examples[order], ordered_classes, self._labels)
            scores = label_scores(self._network, embedded, queries, self._labels.tokens[: len(episode.classes)])
            self._store.add(
                {key: [{"predicted": episode.classes[row.argmax()], "log_likelihoods": row.tolist()} for row in scores]}
            )
        answers: Answers = self._store[key]
        return answers

    @property
    def _network(self) -> Transformer:
        return self._model.network

    @cached_property
    def _prefix(self) -> Tensor:
        tokens = [self._model.end_of_text] if self._model.prepend_end_of_text else []
        weight = self._network.final_norm.weight
        with torch.inference_mode():
            embedded: Tensor = self._network.embedding(torch.tensor(tokens, dtype=torch.int64, device=weight.device))
            return embedded.to(weight)

    def _embedded(self, episode: Episode) -> tuple[Tensor, Tensor]:
        examples, queries = (
            self._images.pixels(ids, self._encoding.side) for ids in (episode.examples, episode.queries)
        )
        embedding = PatchEmbedding(self._network, examples, self._encoding.patches, self._encoding.seed)
        return embedding(examples), embedding(queries)

    def _features(self, embedded: Tensor) -> Features:
        return frozen_features(self._network, embedded, self._prefix)

    def _key(self, protocol: str, episode: Episode) -> str:
        encoding = (self._encoding.side, self._encoding.patches, self._encoding.seed)
        images = (episode.number, episode.classes, episode.examples, episode.queries)
        return request_key("few_shot_images", self._fingerprint, protocol, encoding, images)


def pixel_answers(images: ImageSet, episode: Episode, side: int, classifier: str) -> Answers:
    """Answers of a classifier on the pixels, 0 to 1, flattened."""
    examples, queries = (
        images.pixels(ids, side).astype("float64").reshape(len(ids), -1) for ids in (episode.examples, episode.queries)
    )
    return _classify(classifier, episode, examples, queries)


def accuracy(episode: Episode, answers: Answers) -> float:
    """Share of an episode's queries with the correct class."""
    return sum(_correct(episode, answers)) / len(answers)


def few_shot_result(
    task: str,
    model: str,
    metric: str,
    answered: Sequence[tuple[Episode, Answers]],
    images: ImageSet,
    protocol: str,
    note: str | None = None,
) -> TaskResult:
    """Accuracy over all queries. Items are queries, `<episode>/<image>`; the first of an episode lists its examples.

    Args:
        task: task name in the results.
        model: name of the network or baseline.
        metric: metric with the name of the protocol.
        answered: (episode, answers) pairs with equal numbers of queries.
        images: the set, for the names of its classes.
        protocol: how the answers were obtained.
        note: remark for readers of the results.
    """
    items = []
    for episode, answers in answered:
        rows = zip(episode.queries, episode.query_classes, answers, _correct(episode, answers), strict=True)
        for index, (query, label, answer, correct) in enumerate(rows):
            output = {**answer, "label": episode.classes[label], "episode": episode.number}
            output |= {"name": images.names[output["label"]]} if output["label"] in images.names else {}
            output |= {"classes": episode.classes, "examples": episode.examples} if index == 0 else {}
            items.append(item_row(task, f"{episode.number}/{query}", model, output, correct, 1.0))
    interval = mean_over_episodes([accuracy(episode, answers) for episode, answers in answered])
    return TaskResult(score_row(task, model, metric, interval, len(items), True, protocol, note), items)


def _classify(name: str, episode: Episode, examples: Features, queries: Features) -> Answers:
    predicted = CLASSIFIERS[name](examples, episode.example_classes, queries)
    return [{"predicted": episode.classes[index]} for index in predicted]


def _correct(episode: Episode, answers: Answers) -> list[float]:
    return [
        float(answer["predicted"] == episode.classes[label])
        for label, answer in zip(episode.query_classes, answers, strict=True)
    ]
