"""Settings of sources of records: what all have in common, then what a pool, held-out pairs and a mixture add."""

import os
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from urt_jax.data.examples import DEFAULT_FRAMES, MAX_FPS
from urt_jax.data.skipped import MAX_SKIPPED
from urt_jax.errors import MAX_NAME, BadInputError, unknown_choice
from urt_jax.settings import Problems, knob
from urt_jax.tasks import TASKS
from urt_jax.tasks.wording import DEFAULT_TEMPLATE, find_template

FIRST_TASK = next(iter(TASKS))
BUILT_IN = ("scenes", "drills")  # data made on the fly: pairs to judge, single-skill chats to pre-train on


@dataclass(frozen=True)
class SourceSettings:
    """Which records there are; ``tasks`` and ``seed`` shape what is made on the fly."""

    # Of "scenes" and "drills"; the held-out split also pairs colours and shapes as training never does.
    split: ClassVar[Literal["train", "heldout"]] = "train"

    path: str = "scenes"  # the built-in task, its "drills", or a source: see docs/data.md
    media_root: str | None = (
        None  # where relative media paths start, or a .zip or .tar of them; None = the file's folder
    )
    layout: str | None = None  # published layout of its rows, or module:function of your own; None = by their columns
    first_label: int = knob(1, at_least=0, at_most=1)  # what a file's labels call the first candidate: 1, or 0
    count: int | None = knob(None, at_least=1)  # first records used; None = the whole file (scenes: no end)
    tasks: dict[str, float] = knob({FIRST_TASK: 1.0}, nonempty=True)  # "scenes": task -> how often, beside the others
    seed: int = knob(0, at_least=0)  # of the records of "scenes" and "drills"

    def drawn_tasks(self) -> dict[str, float]:
        """Return the tasks of ``scenes`` that are drawn with their weights, in the order of ``TASKS``."""
        return {name: self.tasks[name] for name in TASKS if self.tasks.get(name, 0.0) > 0}

    def problems(self) -> Problems:
        """Yield what is wrong with the weights of tasks."""
        for name, weight in self.tasks.items():
            if name not in TASKS:
                yield "tasks", unknown_choice(name[:MAX_NAME], list(TASKS))
            elif weight < 0:
                yield f"tasks.{name}", f"got {weight}, must be at least 0"
        if not self.drawn_tasks():
            yield "tasks", "no task has a positive weight; give one to a task"

    def further_files(self) -> tuple[tuple[str, str], ...]:
        """Return further knobs that name a file or folder, each with its name."""
        return ()

    def template_problems(self) -> Problems:
        """Yield what is wrong with the wording of its questions, where it has one of its own."""
        yield from ()

    def file_problems(self) -> Problems:
        """Yield the files that are named but not there, and what is wrong with the prompt template."""
        for key, name in (("path", self.path), ("media_root", self.media_root), *self.further_files()):
            if name is None or name in BUILT_IN or os.path.exists(name):
                continue
            if key == "media_root":
                yield key, f"there is no {name!r}"
                continue
            from urt_jax.data.sources.kinds import FORMS, is_there  # reads pictures: --help need not

            if not is_there(name):
                yield key, f"there is no {name!r}; give 'scenes', 'drills', or {FORMS}"
        if self.layout is not None:
            from urt_jax.data.sources.layouts.table import layout_named  # reads pictures: --help need not

            try:
                layout_named(self.layout)
            except BadInputError as error:
                yield "layout", str(error)
        yield from self.template_problems()


@dataclass(frozen=True)
class DataSettings(SourceSettings):
    """A source, and how its records are read and shown."""

    max_skipped_share: float = knob(MAX_SKIPPED, at_least=0, at_most=1)  # share of unusable records a file may hold
    # Frames of a clip that are used: first, last and evenly between; None = all.
    max_frames: int | None = knob(DEFAULT_FRAMES, at_least=1)
    # Frames a second that are looked at, before max_frames picks among them; None = all.
    fps: float | None = knob(None, above=0, at_most=MAX_FPS)
    template: str = DEFAULT_TEMPLATE  # wording of questions: "v1", "v2", a file, or a folder with one <task>.txt a task

    def template_problems(self) -> Problems:
        """Yield why there is no such prompt template."""
        try:
            find_template(self.template)
        except BadInputError as error:
            yield "template", str(error)


@dataclass(frozen=True)
class HeldOutSource(SourceSettings):
    """Held-out pairs that are read and shown as the training records beside them are."""

    split: ClassVar[Literal["train", "heldout"]] = "heldout"

    def read_as(self, data: DataSettings) -> "HeldOutData":
        """Return these pairs with everything else taken from ``data``."""
        own = {item.name: getattr(self, item.name) for item in fields(SourceSettings)}
        shared = {item.name: getattr(data, item.name) for item in fields(DataSettings) if item.name not in own}
        return HeldOutData(**own, **shared)


@dataclass(frozen=True)
class HeldOutData(DataSettings):
    """Held-out pairs, which are judged and never learnt from."""

    split: ClassVar[Literal["train", "heldout"]] = "heldout"


@dataclass(frozen=True)
class TrainingData(DataSettings):
    """A source that training asks about or learns from."""

    # Benchmarks, as in path: records that share a prompt or a medium with them are left out.
    exclude: tuple[str, ...] = ()

    def further_files(self) -> tuple[tuple[str, str], ...]:
        """Return the sources that are left out."""
        return tuple(("exclude", name) for name in self.exclude)


@dataclass(frozen=True)
class PoolData(TrainingData):
    """Labelled pairs that are asked about: of a teacher, in rejection sampling, in GRPO."""

    swap: bool = True  # show pairs in both orders, so that position carries no information; False: as they are written


@dataclass(frozen=True)
class MixtureData(TrainingData):
    """One of the sources that supervised training mixes."""

    weight: float = knob(1.0, above=0)  # share of the draws where a stage mixes several sources
    drills: tuple[str, ...] = ()  # which of the "drills", in equal parts; empty = all
    misread: float = knob(0.0, at_least=0, at_most=1)  # "drills": chance that a word is read back wrongly in training
    wide: float = knob(0.0, at_least=0, at_most=1)  # "drills": share with more colours and shapes than pairs have


@dataclass(frozen=True)
class Curriculum:
    """Which records of a bounded source are asked, by how often the model is right; the defaults ask all."""

    # Least share right of a question that is asked: that of the reject stage first, then that of the rollouts.
    lowest: float = knob(0.0, at_least=0, at_most=1)
    highest: float = knob(1.0, at_least=0, at_most=1)  # largest share right of a question that is asked
    retire_after: int = knob(0, at_least=0)  # times in a row all right, after which a question leaves; 0 = never
    rescore_every: int = knob(0, at_least=0)  # steps after which those that left are asked once more; 0 = never

    @property
    def active(self) -> bool:
        """Whether any question can leave."""
        return bool(self.lowest > 0 or self.highest < 1 or self.retire_after)

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        if self.lowest > self.highest:
            yield "lowest", f"{self.lowest} is above highest {self.highest}"
        if self.rescore_every and not self.active:
            yield "rescore_every", "is set, but no question ever leaves; give retire_after, lowest or highest too"
