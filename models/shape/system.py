"""The networks of the shape codec together: frozen encoder, bridge, generator, and the generator's prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from latentpress.models.shape.bridge import build_shape_bridge
from latentpress.models.shape.flow_prior import build_flow_prior
from latentpress.models.shape.generator import build_shape_autoencoder
from latentpress.models.shape.point_encoder import build_implicit_autoencoder


class ShapeSystem(nn.Module):
    """What a shape codec needs of its four trained stages.

    ::

        surface points -> encoder -> bridge -> code -> bridge -> generator -> field
        noise -> prior -> generator -> field

    Args:
        autoencoder: Arguments of ``build_shape_autoencoder``, of which the generator is kept.
        encoder: Arguments of ``build_implicit_autoencoder``, of which the encoder is kept.
        bridge: Arguments of ``build_shape_bridge``.
        prior: Arguments of ``build_flow_prior``; None for a codec that cannot generate.
    """

    def __init__(
        self,
        autoencoder: Mapping[str, Any],
        encoder: Mapping[str, Any],
        bridge: Mapping[str, Any],
        prior: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.generator = build_shape_autoencoder(**autoencoder).generator
        self.encoder = build_implicit_autoencoder(**encoder).encoder
        self.bridge = build_shape_bridge(**bridge)
        self.prior = None if prior is None else build_flow_prior(**prior)
