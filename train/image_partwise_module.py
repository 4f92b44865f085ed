"""Training of a whole image codec whose entropy model takes too long to compile.

::

    crops -> [analysis] -> y -> [hyper analysis] -> z -> [hyper synthesis] -> features -v
                            '----------------------------------------------> entropy model -> rate
                                                                                 '-> [synthesis] -> error

Parts in brackets are compiled, each by itself; of an entropy model only the blocks that all its steps share.
All of it is recorded as one CUDA graph, so what is not compiled costs memory traffic and no launches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentpress.models.image.network import ImageNetwork
from latentpress.models.image.twin import TwinImageNetwork
from latentpress.train.image_module import ImageTraining, LossTerms

_COMPILED_PARTS = ("analysis", "hyper_analysis", "hyper_synthesis", "synthesis")


class ImagePartwiseTraining(ImageTraining):
    """Trains all of an :class:`ImageNetwork`; on a GPU, its parts but most of the entropy model are compiled.

    Args:
        network: The network to train.
        **options: As for :class:`~latentpress.train.image_module.ImageTraining`.
    """

    # Compiling a slice-wise entropy model with its gradients takes minutes.
    compile_loss = False

    def __init__(self, network: ImageNetwork, **options: Any) -> None:
        super().__init__(network, **options)
        self._compiled = False

    def loss_of_batch(self, image: Tensor, quality: Tensor) -> LossTerms:
        """The loss of a batch of crops."""
        self.compile_parts(image)
        return super().loss_of_batch(image, quality)

    def compile_parts(self, image: Tensor) -> None:
        """Compiles what is compiled, once, if the pictures are on a GPU."""
        if image.is_cuda and self.compile_network and not self._compiled:
            network = self.network
            models = [
                network.context,
                *([network.companion] if isinstance(network, TwinImageNetwork) else []),
            ]
            blocks = [block for model in models for block in model.blocks]
            for part in (*(getattr(network, name) for name in _COMPILED_PARTS), *blocks):
                part.compile()
            self._compiled = True

    def validation_step(self, image: Tensor, batch_index: int) -> None:
        """As ever, without what is compiled, which knows one size of crops and would learn every other."""
        with torch.compiler.set_stance("force_eager"):
            super().validation_step(image, batch_index)
