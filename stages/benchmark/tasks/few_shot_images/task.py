"""Few-shot image classification by a text decoder, which reads images as patches (`patches.py`).

- `FewShotImagesTask`: frozen features with two simple classifiers, and labels in context
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from stages.benchmark.data_files import missing_data_message
from stages.benchmark.task import BenchmarkTask, EvaluatedModel, TaskContext

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.few_shot_images.answers import NetworkAnswers
    from stages.benchmark.tasks.few_shot_images.episodes import Episode
    from stages.benchmark.tasks.few_shot_images.image_sets import ImageSet
    from stages.benchmark.tasks.few_shot_images.in_context import ContextFit

DOWNLOAD_COMMAND = (
    "curl -LO https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz && tar xzf imagenette2-160.tgz "
    "(Imagenette; ImageNet itself is at https://image-net.org/download for those who are registered)"
)
DIGIT_SIDE, PHOTOGRAPH_SIDE = 8, 32
IN_CONTEXT = "in context"
Protocol = Literal["nearest centroid", "linear probe", "in context"]


class FewShotImagesTask(BenchmarkTask):
    """Classification of images from a few examples of each class."""

    needs_network: ClassVar[bool] = True
    kind: Literal["few_shot_images"] = "few_shot_images"
    name: str = Field("digits", description="task name in the results, such as imagenette")
    path: str | None = Field(
        None,
        description="folder with images: ImageFolder, ImageNet with its devkit, or Tiny ImageNet; by default the "
        "handwritten digits of scikit-learn",
    )
    shots: int = Field(10, ge=1, description="examples per class; in context, fewer if they do not fit")
    ways: int | None = Field(None, ge=2, description="classes per episode; by default all, up to 10")
    queries: int = Field(5, ge=1, description="queries per class and episode")
    episodes: int = Field(5, ge=1, description="independent samples of classes, examples and queries")
    image_size: int | None = Field(
        None, ge=1, description="side of the center square in pixels; by default 8 for digits and 32 for folders"
    )
    patches: int = Field(4, ge=1, description="patches along each side: an image becomes patches x patches vectors")
    protocols: tuple[Protocol, ...] = Field(
        ("nearest centroid", "linear probe", "in context"), min_length=1, description="how classes are predicted"
    )

    @model_validator(mode="after")
    def _check_image_size(self) -> "FewShotImagesTask":
        if self.side % self.patches:
            raise ValueError(
                f"image_size {self.side} is not a multiple of patches, {self.patches}; set an image_size such as "
                f"{self.patches * max(1, self.side // self.patches)}"
            )
        return self

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return self.image_size or (PHOTOGRAPH_SIDE if self.path else DIGIT_SIDE)

    def names(self) -> list[str]:
        """The configured name."""
        return [self.name]

    def tokens(self) -> int:
        """Estimated vectors, one per patch."""
        images = self.episodes * (self.ways or 10) * (self.shots + self.queries)
        return images * (self.patches**2 + 1) * (2 if IN_CONTEXT in self.protocols else 1)

    def data_files(self) -> list[Path]:
        """All files of the folder; none for scikit-learn's digits."""
        from stages.benchmark.tasks.few_shot_images.folders import image_files

        return image_files(Path(self.path)) if self.path else []

    def fingerprint(self) -> str:
        """Digest of names, sizes and modification times."""
        from stages.benchmark.tasks.few_shot_images.folders import folder_fingerprint

        return folder_fingerprint(Path(self.path)) if self.path else super().fingerprint()

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Accuracy by each protocol."""
        if self._missing():
            return []
        from stages.benchmark.harness.answer_store import AnswerStore
        from stages.benchmark.tasks.few_shot_images.answers import ImageEncoding, NetworkAnswers

        length = model.network.config.context_length
        if self.patches**2 + model.prepend_end_of_text > length:
            reason = f"an image is {self.patches**2} vectors, more than its context of {length} holds"
            return [self._unsupported(model.name, name, f"{reason}; set fewer patches") for name in self.protocols]
        images = self._images()
        episodes = self._episodes(images, context.seed)
        folder = context.work.child(f"few_shot_images/{model.digest[:16]}") if context.work else None
        encoding = ImageEncoding(self.side, self.patches, context.seed)
        with AnswerStore(folder) as store:
            network = NetworkAnswers(model, images, encoding, store, self.fingerprint())
            results = self._by_features(network, model.name, images, episodes, context) if self._classifiers else []
            if IN_CONTEXT in self.protocols:
                results.append(self._in_context(network, model.name, images, episodes, context))
        return results

    def _by_features(
        self,
        network: "NetworkAnswers",
        model: str,
        images: "ImageSet",
        episodes: "Sequence[Episode]",
        context: TaskContext,
    ) -> "list[TaskResult]":
        from stages.benchmark.tasks.few_shot_images.answers import few_shot_result

        answered = []
        for episode in episodes:
            answered.append(network.by_features(episode))
            context.advanced(len(answered), len(episodes))
        results = []
        for name in self._classifiers:
            pairs = [(episode, answers[name]) for episode, answers in zip(episodes, answered, strict=True)]
            method = f"mean of the last hidden states over {self._patches_text}, {name}"
            protocol = self._protocol(episodes, context.seed, images, method)
            results.append(few_shot_result(self.name, model, f"accuracy, {name}", pairs, images, protocol))
        return results

    def _in_context(
        self,
        network: "NetworkAnswers",
        model: str,
        images: "ImageSet",
        episodes: "Sequence[Episode]",
        context: TaskContext,
    ) -> "TaskResult":
        from stages.benchmark.tasks.few_shot_images.answers import accuracy, few_shot_result, pixel_answers

        ways = len(episodes[0].classes)
        fit = network.context_fit(ways, self.shots)
        if fit is None:
            reason = "its context does not hold an example of each of two classes and a query"
            return self._unsupported(model, IN_CONTEXT, f"{reason}; set patches below {self.patches}")
        reduced = [episode.subset(fit.ways, fit.shots) for episode in episodes]
        answered = []
        for episode in reduced:
            answered.append((episode, network.in_context(episode)))
            context.advanced(len(answered), len(reduced))
        pixels = [
            accuracy(episode, pixel_answers(images, episode, self.side, "nearest centroid")) for episode in reduced
        ]
        note = (
            f"chance is {1 / fit.ways:.3f}; raw pixels, nearest centroid of the examples that are shown: "
            f"{sum(pixels) / len(pixels):.3f}"
        )
        metric = f"accuracy, {IN_CONTEXT}" + (f", {fit.ways}-way" if fit.ways < ways else "")
        protocol = self._protocol(reduced, context.seed, images, self._in_context_method(fit, ways))
        return few_shot_result(self.name, model, metric, answered, images, protocol, note)

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """Raw pixels in the same episodes; random choice and the majority class, which are equal here."""
        from stages.benchmark.results import missing_score, single_value
        from stages.benchmark.tasks.few_shot_images.answers import few_shot_result, pixel_answers

        if reason := self._missing():
            return [missing_score(self.name, f"accuracy, {name}", reason) for name in self.protocols]
        images = self._images()
        episodes = self._episodes(images, context.seed)
        results = []
        for name in self._classifiers:
            pairs = [(episode, pixel_answers(images, episode, self.side, name)) for episode in episodes]
            protocol = self._protocol(episodes, context.seed, images, f"raw pixels, {name}")
            results.append(few_shot_result(self.name, "raw pixels", f"accuracy, {name}", pairs, images, protocol))
        chance = 1 / len(episodes[0].classes)  # all classes have the same number of queries
        return results + [
            single_value(self.name, baseline, f"accuracy, {name}", chance)
            for name in self.protocols
            for baseline in ("random choice", "majority class")
        ]

    @property
    def _classifiers(self) -> list[str]:
        return [name for name in self.protocols if name != IN_CONTEXT]

    @property
    def _patches_text(self) -> str:
        return f"{self.patches} x {self.patches} patches behind a random projection"

    def _in_context_method(self, fit: "ContextFit", ways: int) -> str:
        reduced = "" if fit == (ways, self.shots) else f" (of {ways} classes and {self.shots} examples, no more fit)"
        return f"in context{reduced}, {self._patches_text}, likeliest of the labels A, B, C ..."

    def _protocol(self, episodes: "Sequence[Episode]", seed: int, images: "ImageSet", method: str) -> str:
        from stages.benchmark.tasks.few_shot_images.episodes import OVER_EPISODES

        sampled = f"{len(episodes)} episodes of {len(episodes[0].queries)} queries by seed {seed} ({images.split})"
        shots = len(episodes[0].examples) // len(episodes[0].classes)
        return (
            f"{len(episodes[0].classes)}-way, {shots} examples per class, {sampled}, {self.side} x {self.side} "
            f"pixels; {method}; {OVER_EPISODES}"
        )

    def _unsupported(self, model: str, protocol: str, reason: str) -> "TaskResult":
        from stages.benchmark.results import missing_score

        return missing_score(self.name, f"accuracy, {protocol}", f"not run on {model}: {reason}", model=model)

    def _missing(self) -> str | None:
        root = Path(self.path) if self.path else None
        return (
            None if root is None or root.is_dir() else missing_data_message(root.parent, [root.name], DOWNLOAD_COMMAND)
        )

    def _images(self) -> "ImageSet":
        from stages.benchmark.tasks.few_shot_images.folders import read_image_folder
        from stages.benchmark.tasks.few_shot_images.image_sets import digits

        return read_image_folder(Path(self.path)) if self.path else digits()

    def _episodes(self, images: "ImageSet", seed: int) -> "list[Episode]":
        from stages.benchmark.tasks.few_shot_images.episodes import draw_episodes

        return draw_episodes(images, self.episodes, self.ways, self.shots, self.queries, seed)
