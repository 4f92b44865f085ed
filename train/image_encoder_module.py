"""Training of the analysis alone, by the objective that effort descends for one picture.

A decoder at rest is what streams are made for, so whatever brings the analysis closer to the latents that
suit it best makes smaller files that every decoder reads. Refinement of single pictures
(:mod:`latentpress.codecs.image_refinement`) says how far away they are. The objective is the same: stochastic
rounding, costs by the tables that code, the synthesis's error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from latentpress.codecs.latent_refinement import stochastic_rounding
from latentpress.codecs.table_rate import TableRate
from latentpress.models.entropy.latent_model import QuantisedLatent, Rounding
from latentpress.models.image.twin import TwinImageNetwork
from latentpress.train.image_coded_module import ImageCodedTraining, Rates, tables_of


class ImageEncoderTraining(ImageCodedTraining):
    """Trains the analysis, its gain and the hyper analysis.

    Steps have to be small: with a learning rate of 1e-4 for Muon, 25 of them destroy what is there. With 5e-6
    training goes along the rate-distortion curve and not below it, see docs/training.md.

    Args:
        network: What :mod:`latentpress.train.twin_weights` joins.
        tables_from: Weight file whose tables say what symbols cost; None for Gaussians.
        temperature: Of the stochastic rounding.
        **options: As for :class:`~latentpress.train.image_module.ImageTraining`.
    """

    def __init__(
        self,
        network: TwinImageNetwork,
        tables_from: str | None = None,
        temperature: float = 0.25,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        self._rate = TableRate(tables_of(tables_from))
        self._rounding = stochastic_rounding(temperature, None)

    @property
    def trained_modules(self) -> Iterable[nn.Module]:
        """All that only an encoder runs."""
        yield from (self.network.analysis, self.network.gain, self.network.hyper_analysis)

    def rounding_of(self, name: str) -> Rounding:
        """Up or down at random, likelier to the nearer integer."""
        return self._rounding

    def rates_of(self, latents: Tensor, quantised: QuantisedLatent, rounding: Rounding) -> Rates:
        """What symbols are expected to cost, from rounding of its own."""
        symbols = rounding(latents - quantised.mean, quantised.raw_scale)
        bits = self._rate(symbols, quantised.raw_scale)
        if quantised.coded is not None:
            bits = bits * quantised.coded
        total = bits.sum(dim=(1, 2, 3))
        return Rates(total.detach(), total)
