"""Two entropy models on the same transforms, to train the networks of ``image`` and ``image-max`` as one.

Both codecs then share their transforms as a matter of course, and neither has to put up with what was trained
for the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentpress.models.entropy.context import ContextModel
from latentpress.models.entropy.latent_model import to_nearest_with_gradient
from latentpress.models.image.network import ImageNetwork, ImageNetworkOutput


class TwinImageNetwork(ImageNetwork):
    """The network of ``image-max``, and beside it the entropy model of ``image``.

    ::

        image -> analysis, hyperprior -> y, features -> slice-wise entropy model -> y_hat of every other one
                                              '-> companion, in its own order -> y_hat of the rest
        y_hat -> synthesis -> image

    In training, the rate is the mean of both entropy models' rates, and each decodes half of the pictures.
    Otherwise it is the network of ``image-max`` alone.

    Args:
        network: Of ``image-max``; its modules become this network's.
        companion: Entropy model of ``image``.

    Attributes:
        companion: Entropy model of ``image``.
        order: The channel of ``image`` at every place of this latent, ``(M,)`` int64. The two code their
            channels in different orders.

    Example:
        >>> from latentpress.models.image.families import build_image_twin_network
        >>> network = build_image_twin_network(channels=16, deep_channels=16, latent_channels=8)
        >>> network(torch.rand(2, 64, 64, 3), torch.tensor([50.0, 80.0])).y_bits.shape
        torch.Size([2])
    """

    order: Tensor

    def __init__(self, network: ImageNetwork, companion: ContextModel) -> None:
        super().__init__(
            network.analysis,
            network.synthesis,
            network.hyper_analysis,
            network.hyper_prior,
            network.hyper_synthesis,
            network.context,
            network.latent_channels,
        )
        self.companion = companion
        self.register_buffer("order", torch.arange(network.latent_channels))

    def forward(self, image: Tensor, quality: Tensor) -> ImageNetworkOutput:
        """Codes a batch.

        Args:
            image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.
            quality: ``(B,)`` in [0, 100].
        """
        if not self.training:
            return super().forward(image, quality)
        y, features, z_bits = self.latents(image, quality)
        own = self.context.quantise(features, y, to_nearest_with_gradient)
        y_sorted = y[..., torch.argsort(self.order)]
        other = self.companion.quantise(features, y_sorted, to_nearest_with_gradient)
        y_bits = (self.latent_bits(y, own) + self.latent_bits(y_sorted, other)) / 2
        every_other = (torch.arange(len(y), device=y.device) % 2 == 0)[:, None, None, None]
        y_hat = torch.where(every_other, own.y_hat, other.y_hat[..., self.order])
        return ImageNetworkOutput(self.decoded(y_hat, quality), y_bits, z_bits)


def matching_order(image: ImageNetwork, network: ImageNetwork) -> Tensor:
    """The channel of ``image`` at every place of another network's latent, found by their transforms.

    Args:
        image: Network of ``image``.
        network: One with the same transforms, its channels in another order.

    Returns:
        ``(M,)`` int64.

    Raises:
        ValueError: The transforms differ in more than the order of channels.
    """
    rows = _written_by(image)
    distances = torch.cdist(_written_by(network), rows)
    order = distances.argmin(dim=1)
    alike = distances.gather(1, order[:, None]).max() <= 1e-2 * rows.norm(dim=1).mean()
    if len(order.unique()) < len(order) or not alike:
        raise ValueError("the transforms of the two networks differ in more than the order of channels")
    return order


def _written_by(network: ImageNetwork) -> Tensor:
    """What writes each channel of the latent, ``(M, columns + 1)`` float64."""
    head = network.analysis.head
    return torch.cat((head.weight, head.bias[:, None]), dim=1).detach().double()
