"""Entropy networks in exact integer arithmetic.

A range decoder needs the very tables the encoder used: one different bit and everything after it is lost. So
every network that decides a table runs on integers, whose sums do not depend on the order of summation, the
instruction set, the number of threads or the device. The integers are held in floating point, where matrix
products are fast: float64 holds all integers below 2^53 exactly, float32 all below 2^24, and each layer
proves from its weights that no sum can reach that bound.

::

    activations   integers in units of 2^-10, limited to 20 bits and sign before every layer
    Linear        16-bit weights, sums below 2^53 in float64
    depthwise     the activation split into two 10-bit halves, sums below 2^24 in float32; on a CPU nine
                  terms added one by one in float64, sums below 2^53
    neighbours    16-bit weights, seven terms added one by one in float64
    after a sum   scaled by a power of two and rounded down at one half: floor(s + 1/2)
"""

from latentpress.models.entropy.fixed_point.conversion import convert, to_float
from latentpress.models.entropy.fixed_point.convolutions import (
    FixedPointDepthwise,
    FixedPointNeighbourConv,
    bands,
)
from latentpress.models.entropy.fixed_point.layers import (
    QUALITY_STEPS,
    FixedPointChannelScale,
    FixedPointEmbedding,
    FixedPointLinear,
    FixedPointProduct,
    FixedPointQualityVector,
    FixedPointRectifier,
)
from latentpress.models.entropy.fixed_point.units import (
    ACTIVATION_LIMIT,
    FRACTION_BITS,
    UNIT,
    table_index,
    to_fixed_point,
)
from latentpress.models.entropy.fixed_point.weights import InexactLayer

__all__ = [
    "ACTIVATION_LIMIT",
    "FRACTION_BITS",
    "QUALITY_STEPS",
    "UNIT",
    "FixedPointChannelScale",
    "FixedPointDepthwise",
    "FixedPointEmbedding",
    "FixedPointLinear",
    "FixedPointNeighbourConv",
    "FixedPointProduct",
    "FixedPointQualityVector",
    "FixedPointRectifier",
    "InexactLayer",
    "bands",
    "convert",
    "table_index",
    "to_fixed_point",
    "to_float",
]
