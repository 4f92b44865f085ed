"""Vector quantiser whose codes all stay in use."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SHARPNESS = 15.0
"""Factor of the cosines in soft assignments: neighbours of the nearest code count, far codes do not."""

_ROWS_AT_ONCE = 2**10


class Quantised(NamedTuple):
    """Vectors and what they were quantised to.

    Attributes:
        indexes: ``(...)`` int64.
        vectors: ``(..., d)`` codes; in training, gradients pass through to the vectors before.
        error: ``(...)`` squared error of direction with its gradients for codes and vectors, 0 to 4.
    """

    indexes: Tensor
    vectors: Tensor
    error: Tensor


def unit_vectors(x: Tensor) -> Tensor:
    """Scales ``(..., d)`` to Euclidean length one, in float32."""
    return F.normalize(x.float(), dim=-1)


def nearest_codes(directions: Tensor, codes: Tensor) -> Tensor:
    """Index of the code with the largest cosine for every vector.

    Args:
        directions: ``(..., d)`` of length one.
        codes: ``(K, d)`` of length one.

    Returns:
        ``(...)`` int64.
    """
    if directions.device.type != "cpu":
        return (directions @ codes.mT).argmax(dim=-1)
    # A few rows at a time stay in cache; and max finds the first largest in a third of the time of argmax.
    rows = directions.reshape(-1, directions.shape[-1]).split(_ROWS_AT_ONCE)
    found = torch.cat([(part @ codes.mT).max(dim=-1).indices for part in rows])
    return found.view(directions.shape[:-1])


class LinearCodebook(nn.Module):
    """SimVQ (arXiv 2411.02038): a frozen random basis times one learned matrix is the codebook.

    A gradient that reaches any code moves the matrix and with it all codes, so none is left behind. Codes and
    vectors are compared by direction, as in ViT-VQGAN (arXiv 2110.04627).

    ::

        vector (d) -> length 1 -> nearest of K codes of length 1 -> * sqrt(d) -> code (d)

    Args:
        codes: K.
        channels: d.
        commitment: Weight of the pull of vectors to codes, relative to that of codes to vectors.

    Example:
        >>> found = LinearCodebook(16, 4)(torch.randn(2, 3, 3, 4))
        >>> found.indexes.shape, found.vectors.shape
        (torch.Size([2, 3, 3]), torch.Size([2, 3, 3, 4]))
    """

    basis: Tensor

    def __init__(self, codes: int, channels: int, commitment: float = 0.25) -> None:
        super().__init__()
        self.commitment = commitment
        self.register_buffer("basis", torch.randn(codes, channels))
        self.mixing = nn.Parameter(torch.eye(channels))

    def codebook(self) -> Tensor:
        """All codes, ``(K, d)``, of length one."""
        return unit_vectors(self.basis @ self.mixing)

    def evenness(self, x: Tensor) -> Tensor:
        """How evenly vectors are spread over the codes, with gradients for both; a scalar in [0, 1].

        The entropy, as a fraction of log(K), of the mean of the vectors' soft assignments, as in the entropy
        penalties of MaskGIT's and MAGVIT-2's tokenisers (arXiv 2310.05737).

        Args:
            x: ``(..., d)`` before quantisation.
        """
        with torch.autocast(x.device.type, enabled=False):
            likeness = unit_vectors(x).flatten(0, -2) @ self.codebook().mT
            share = torch.softmax(likeness * _SHARPNESS, dim=-1).mean(dim=0)
            entropy: Tensor = -(share * torch.log(share.clamp(min=1e-12))).sum()
            return entropy / math.log(len(share))

    def forward(self, x: Tensor) -> Quantised:
        """Quantises vectors ``(..., d)``."""
        # The nearest of many codes is decided by small differences.
        with torch.autocast(x.device.type, enabled=False):
            directions = unit_vectors(x)
            codes = self.codebook()
            indexes = nearest_codes(directions.detach(), codes.detach())
            chosen = F.embedding(indexes, codes)
            pull_codes = (directions.detach() - chosen).square().sum(dim=-1)
            pull_vectors = (directions - chosen.detach()).square().sum(dim=-1)
            passed = directions + (chosen - directions).detach()
            scale = x.shape[-1] ** 0.5
        return Quantised(indexes, passed * scale, pull_codes + self.commitment * pull_vectors)
