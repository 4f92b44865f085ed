"""What a decoder says of a picture that it had to repair."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.models.index.granularity import CELL, FINE, QUARTER, GrainMap, repeat_positions
from latentpress.models.index.prior import UNKNOWN, GrainIndexes


class RepairReport(NamedTuple):
    """What was lost and where.

    Attributes:
        packets: How many packets the stream had.
        lost_packets: Numbers of those that are missing or damaged.
        indexes: How many indices the picture has.
        lost_indexes: How many of them were predicted.
        region: ``(H, W)`` bool: pixels whose own index was predicted. Others may differ a little as well,
            because the decoder looks at neighbours.
        lost_sections: Whether what stands before the packets is missing or damaged: if there were alpha,
            more than 8 bits or colour anchors, the picture is without them.
    """

    packets: int
    lost_packets: tuple[int, ...]
    indexes: int
    lost_indexes: int
    region: Tensor
    lost_sections: bool = False


class RepairedPicture(NamedTuple):
    """A picture that may have been repaired.

    Attributes:
        picture: uint8, ``(3, H, W)`` or ``(1, H, W)``.
        report: What was lost; nothing, if ``report.lost_packets`` is empty.
    """

    picture: Tensor
    report: RepairReport


def report_on(
    indexes: GrainIndexes,
    grains: GrainMap,
    size: tuple[int, int],
    packets: int,
    lost_packets: tuple[int, ...],
) -> RepairReport:
    """Sums up what is not known of a picture.

    Args:
        indexes: With :data:`~latentpress.models.index.prior.UNKNOWN` where lost.
        grains: The map.
        size: Height and width of the picture in pixels.
        packets: How many there were.
        lost_packets: Those lost.
    """
    masks = (grains.coarse_mask(), grains.medium_mask(), grains.fine_mask())
    lost = [mask & (index == UNKNOWN) for mask, index in zip(masks, indexes, strict=True)]
    region = torch.zeros((), dtype=torch.bool, device=grains.split.device)
    for part, side in zip(lost, (CELL, QUARTER, FINE), strict=True):
        region = region | repeat_positions(part, side)[0]
    return RepairReport(
        packets,
        lost_packets,
        int(sum(int(mask.sum()) for mask in masks)),
        int(sum(int(part.sum()) for part in lost)),
        region[: size[0], : size[1]],
    )
