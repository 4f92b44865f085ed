"""Which slices of the latent are coded together, in which order, and what each of them may look at.

ISCS (arXiv 2509.16853) splits the channels into a salient core and auxiliary channels. The core is coded
slice by slice, each seeing the ones before. Auxiliary slices see the hyperprior and the core only, so all of
them are coded in one stage, at the cost of one slice::

    stage  0    1    2    3    4
    slice  0 -> 1 -> 2 -> 3 -> 4 5 6 7
           ------ core ------  auxiliary

A stage goes over the checkerboard twice, anchors first. Within a stage all slices count as one, so at the
second pass each sees the anchors of them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """Slices that are coded together.

    Attributes:
        slices: Their numbers, consecutive.
        sees: Slices of earlier stages that their predictions may use, rising.
        part: Which part of a stream they are in; a stream can be cut after any part.
    """

    slices: tuple[int, ...]
    sees: tuple[int, ...] = ()
    part: int = 0


@dataclass(frozen=True)
class SliceSchedule:
    """The order in which slices of equal width are coded.

    Attributes:
        slices: Number of slices that the latent's channels are divided into.
        stages: In coding order. Together they code every slice once, by rising number.

    Raises:
        ValueError: The stages are no such order.

    Example:
        >>> schedule = SliceSchedule.grouped(8, core=4)
        >>> [stage.slices for stage in schedule.stages]
        [(0,), (1,), (2,), (3,), (4, 5, 6, 7)]
        >>> schedule.stages[-1].sees, schedule.parts
        ((0, 1, 2, 3), 2)
    """

    slices: int
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        """Checks that the stages can be decoded one after the other."""
        coded: list[int] = []
        part = 0
        for number, stage in enumerate(self.stages):
            if (
                not stage.slices
                or not set(stage.sees) <= set(coded)
                or list(stage.sees) != sorted(stage.sees)
            ):
                raise ValueError(f"stage {number} must code slices and see only earlier ones: {stage}")
            if stage.part not in (part, part + 1) or (number == 0 and stage.part):
                raise ValueError(
                    f"parts are numbered from 0 in coding order, stage {number} has {stage.part}"
                )
            part = stage.part
            coded += stage.slices
        if coded != list(range(self.slices)):
            raise ValueError(f"the stages must code slices 0 to {self.slices - 1} in order, not {coded}")

    @classmethod
    def serial(cls, slices: int) -> SliceSchedule:
        """One slice a stage, each seeing all before it, as in MLIC++."""
        return cls(slices, tuple(Stage((k,), tuple(range(k))) for k in range(slices)))

    @classmethod
    def grouped(cls, slices: int, core: int) -> SliceSchedule:
        """A serial core, then all other slices in one stage and a part of their own."""
        head = tuple(Stage((k,), tuple(range(k))) for k in range(core))
        return cls(slices, (*head, Stage(tuple(range(core, slices)), tuple(range(core)), part=1)))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SliceSchedule:
        """The inverse of ``dataclasses.asdict``, also from what JSON makes of it, or from a YAML file."""

        def numbers(values: Sequence[int]) -> tuple[int, ...]:
            return tuple(int(value) for value in values)

        stages = tuple(
            Stage(numbers(stage["slices"]), numbers(stage.get("sees", ())), int(stage.get("part", 0)))
            for stage in config["stages"]
        )
        return cls(int(config["slices"]), stages)

    @property
    def parts(self) -> int:
        """Parts of a stream."""
        return self.stages[-1].part + 1
