"""Encodings of one shape: the searches for a rate or an error, and the refinement between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from latentpress.codecs.base import Progress, no_progress
from latentpress.codecs.rate_control import QualitySearch
from latentpress.codecs.shape_model import ShapeModel, ShapeTrial
from latentpress.codecs.shape_payload import QUALITY_CODES, ShapeHeader, quality_code
from latentpress.codecs.shape_photometric import seen_rays
from latentpress.codecs.shape_refine import STEPS_PER_EFFORT, Refinement, RefinementTarget, float_bridge
from latentpress.codecs.shape_source import ShapeSource
from latentpress.models.shape.bridge import CodeQuality

_QUERIES = 8192

_PREFERRED = (1, 2, 3)
"""Low-passes that are held against the best, in this order: those that keep silhouettes come first."""

_NEAR_ENOUGH = 1.01

_SHARES = (0.4, 0.2, 0.2, 0.2)
"""Parts of the refinement between which the quality is searched again."""

_USED_UP = 0.95
_CHEAPER = 0.4


class ShapeEncoding:
    """Encodings of one shape at several qualities, the searches over them, and the refinement between.

    Args:
        model: With the networks.
        source: The shape.
        effort: Refinement in units of :data:`latentpress.codecs.shape_refine.STEPS_PER_EFFORT` steps.
        colour_quality: Of the colour, if it is to differ from the geometry's.
        notify: Called with the fraction done and the stage.

    Attributes:
        steps_done: Of the refinement.
    """

    def __init__(
        self,
        model: ShapeModel,
        source: ShapeSource,
        effort: int,
        colour_quality: float | None,
        notify: Progress,
    ) -> None:
        self._model = model
        self._source = source
        self._colour_code = None if colour_quality is None else quality_code(colour_quality)
        self._notify = notify
        self._budget = effort * STEPS_PER_EFFORT
        self._refinement: Refinement | None = None
        self._price_factor = 1.0
        self.steps_done = 0
        notify(0.05, "encoding")
        self._code = model.free_code(source)

    def at_quality(self, quality: float) -> ShapeTrial:
        """The shape at one quality."""
        header = self._header(quality_code(quality))
        self._refine(header, self._budget)
        return self._trial(header)

    def within_bytes(self, limit: int) -> ShapeTrial:
        """The best shape whose stream has at most so many bytes.

        Refinement changes how many bytes a quality takes, so it is done in parts, each at the quality that
        the search after the one before finds. Where not even the highest quality uses the bytes up, bits
        get cheaper for the next part.
        """
        trial = self._largest(limit)
        for share in _SHARES:
            if not self._budget:
                break
            highest = trial.header.geometry_quality == QUALITY_CODES
            if highest and len(self._model.pack(trial)) < _USED_UP * limit:
                self._price_factor *= _CHEAPER
            self._refine(trial.header, round(share * self._budget))
            trial = self._largest(limit)
        return trial

    def within_error(self, limit: float) -> ShapeTrial:
        """The smallest stream whose Chamfer distance is at most the limit."""

        def error(code: int) -> tuple[ShapeTrial, float]:
            return self.smoothed(self._trial(self._header(code)))

        self._refine(self._header(QUALITY_CODES * 3 // 4), self._budget)
        best, reached = error(QUALITY_CODES)
        if reached > limit:
            raise ValueError(
                f"max_error {limit:g} cannot be met: the best this codec can do for this shape is a Chamfer "
                f"distance of {reached:.4f} (longest side 2)"
            )
        low, high = -1, QUALITY_CODES
        while high - low > 1:
            middle = (low + high) // 2
            trial, reached = error(middle)
            if reached <= limit:
                high, best = middle, trial
            else:
                low = middle
        return best

    def smoothed(self, trial: ShapeTrial) -> tuple[ShapeTrial, float]:
        """The same symbols with the low-pass that suits the shape, and its Chamfer distance.

        A low-pass makes normals far better even where it leaves distances as they are, so the first that is
        near enough to the best is taken, and none of them only where all do harm.
        """
        errors = self._model.measure(self._source, trial.code, trial.header)
        enough = _NEAR_ENOUGH * min(errors)
        chosen = next((k for k in _PREFERRED if errors[k] <= enough), 0)
        return trial._replace(header=replace(trial.header, smoothing=chosen)), errors[chosen]

    def _header(self, code: int, dropped: int = 0) -> ShapeHeader:
        bridge, painted = self._model.system.bridge, self._code.colour is not None
        colour_code = code if self._colour_code is None else self._colour_code
        return ShapeHeader(
            kind=self._source.kind,
            geometry_quality=code,
            geometry_groups=max(1, bridge.geometry_prior.groups - dropped),
            colour_quality=colour_code if painted else None,
            colour_groups=max(1, bridge.colour_prior.groups - dropped) if painted else 0,
            pose=self._source.pose,
            unit=self._source.unit,
            checksum=0,
        )

    def _trial(self, header: ShapeHeader) -> ShapeTrial:
        return self._model.encode_payload(self._code, header)

    def _largest(self, limit: int) -> ShapeTrial:
        """The highest quality that fits; at the lowest, as many channel groups as fit."""

        def total(trial: ShapeTrial) -> float:
            return float(len(self._model.pack(trial)))

        found = QualitySearch(lambda code: self._trial(self._header(code)), total, QUALITY_CODES).at_most(
            limit
        )
        if found is not None:
            return found
        smallest = math.inf
        for dropped in range(1, self._model.system.bridge.geometry_prior.groups):
            trial = self._trial(self._header(0, dropped))
            smallest = min(smallest, total(trial))
            if smallest <= limit:
                return trial
        raise ValueError(f"target_bytes {limit} cannot be met: this shape takes at least {smallest:g} bytes")

    def _refine(self, header: ShapeHeader, steps: int) -> None:
        if not steps:
            return
        if self._refinement is None:
            self._refinement = self._make_refinement()
        done, budget = self.steps_done, max(1, self._budget)

        def notify(fraction: float) -> None:
            self._notify(0.1 + 0.8 * min(1.0, (done + fraction * steps) / budget), "refining")

        groups = header.geometry_groups, header.colour_groups
        quality = self._model.quality_of(header)
        self._code = self._refinement.run(self._code, quality, groups, steps, notify=notify)
        self.steps_done += steps

    def _make_refinement(self) -> Refinement:
        source, device = self._source, self._model.device
        random = torch.Generator().manual_seed(1)
        places = refinement_places(source.surface.position, _QUERIES, random)
        queries = torch.cat((places, source.signed_distance(places)[:, None]), dim=1)
        colour = None if source.colour is None else torch.from_numpy(source.colour).to(device)
        rays = None if source.images is None else seen_rays(source.images, source.pose).to(device)
        target = RefinementTarget(source.surface.position.to(device), queries.to(device), colour, rays)
        bridge = float_bridge(self._model.system.bridge)

        def prices(quality: CodeQuality) -> tuple[float, float]:
            geometry, paint = self._model.prices(quality)
            return geometry * self._price_factor, paint * self._price_factor

        return Refinement(bridge, self._model.system.generator, target, prices)


def best_reading(
    model: ShapeModel, source: ShapeSource, encode: Callable[[ShapeEncoding], ShapeTrial]
) -> ShapeSource:
    """What a shape is best meant as: the reading whose decoded surface is nearest, tried without refinement.

    Args:
        model: With the networks.
        source: The shape.
        encode: At what quality or size the readings are held against each other.
    """
    readings = source.readings()
    if len(readings) == 1:
        return source

    def error(reading: ShapeSource) -> float:
        trial = encode(ShapeEncoding(model, reading, 0, None, no_progress))
        return min(model.measure(reading, trial.code, trial.header))

    return min(readings, key=error)


def refinement_places(surface: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Places to hold a decoded distance against: most near the surface, some anywhere, ``(count, 3)``."""
    anywhere = (torch.rand((count // 4, 3), generator=random) * 2 - 1) * 1.1
    near = count - len(anywhere)
    base = surface[torch.randint(len(surface), (near,), generator=random)]
    width = 0.01 * 10 ** torch.rand((near, 1), generator=random)
    return torch.cat((base + torch.randn((near, 3), generator=random) * width, anywhere)).clamp(-1.1, 1.1)
