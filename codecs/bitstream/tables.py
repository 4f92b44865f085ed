"""Integer frequency tables: the only form in which probabilities reach the range coder.

A table covers the integer symbols [minimum, minimum + n) with one slot each, plus a last slot, the *escape*,
which stands for every other symbol. Its frequencies are positive integers that sum to exactly 2**24. Integers
rather than probabilities, because two machines that round a probability differently cannot decode each
other's streams.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import constriction
import numpy as np
from numpy.typing import ArrayLike, NDArray

PRECISION = 24
TOTAL = 1 << PRECISION
MAX_SLOTS = 1 << 16
MAX_TABLES = 1 << 16
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class TableSet:
    """K integer frequency tables, stored ragged and read-only.

    Attributes:
        frequencies: uint32, shape (sum of lengths,): the tables one after another, escape slot last in each.
        lengths: int32, shape (K,): slots of each table, escape included, 2 to 65536.
        minimums: int32, shape (K,): symbol of the first slot of each table.

    Raises:
        TypeError: if an array does not hold integers.
        ValueError: if shapes do not fit together, a frequency is below 1, a table does not sum to 2**24, a
            support leaves int32, or K is not in [1, 65536].

    Example:
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [-1])
        >>> len(tables), list(tables.support(0))
        (1, [-1, 0])
    """

    frequencies: NDArray[np.uint32]
    lengths: NDArray[np.int32]
    minimums: NDArray[np.int32]
    _starts: NDArray[np.int64] = field(init=False, repr=False)
    _models: dict[int, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Copy, validate and freeze the arrays."""
        frequencies = _integers(self.frequencies, "frequencies", 1, TOTAL)
        lengths = _integers(self.lengths, "lengths", 2, MAX_SLOTS)
        minimums = _integers(self.minimums, "minimums", -(2**31), _INT32_MAX)
        if not 1 <= len(lengths) <= MAX_TABLES:
            raise ValueError(f"a table set has 1 to {MAX_TABLES} tables, got {len(lengths)}")
        if len(minimums) != len(lengths):
            raise ValueError(f"got {len(lengths)} lengths but {len(minimums)} minimums")
        if int(lengths.sum()) != len(frequencies):
            raise ValueError(
                f"lengths sum to {int(lengths.sum())}, but there are {len(frequencies)} frequencies"
            )
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        sums = np.add.reduceat(frequencies, starts[:-1])
        wrong = np.flatnonzero(sums != TOTAL)
        if wrong.size:
            raise ValueError(f"table {wrong[0]} sums to {sums[wrong[0]]}, expected {TOTAL}")
        if int((minimums + lengths - 2).max()) > _INT32_MAX:
            raise ValueError("the support of a table leaves the range of int32")
        self._freeze("frequencies", frequencies.astype(np.uint32))
        self._freeze("lengths", lengths.astype(np.int32))
        self._freeze("minimums", minimums.astype(np.int32))
        self._freeze("_starts", starts)
        object.__setattr__(self, "_models", {})

    def __len__(self) -> int:
        """Number of tables K."""
        return len(self.lengths)

    def __eq__(self, other: object) -> bool:
        """Whether both sets hold the same tables."""
        return isinstance(other, TableSet) and self.digest() == other.digest()

    def __hash__(self) -> int:
        """Hash of the content."""
        return hash(self.digest())

    def __reduce__(self) -> tuple[type[TableSet], tuple[NDArray[Any], ...]]:
        """Pickle the arrays only: coder models cannot be pickled and are rebuilt on first use."""
        return TableSet, (self.frequencies, self.lengths, self.minimums)

    @classmethod
    def from_probabilities(cls, probabilities: Sequence[ArrayLike], minimums: ArrayLike) -> TableSet:
        """Make integer tables from float64 probabilities; for export, never while coding.

        Every slot gets 1, then its share of the rest rounded down; what remains goes to the largest
        remainders, the lower slot first among equals.

        Args:
            probabilities: K arrays of non-negative weights, the escape slot last; each is normalised by its
                sum.
            minimums: K integers, the symbol of each table's first slot.

        Returns:
            The table set.

        Raises:
            ValueError: if a weight is negative or not finite, a table's weights sum to 0, or a table has
                fewer than 2 or more than 65536 slots.

        Example:
            >>> TableSet.from_probabilities([[0.5, 0.25, 0.25]], [0]).table(0).tolist()
            [8388608, 4194304, 4194304]
        """
        tables = [_quantise(np.asarray(weights, np.float64), k) for k, weights in enumerate(probabilities)]
        lengths = np.array([len(table) for table in tables], np.int32)
        return cls(np.concatenate(tables or [np.zeros(0, np.int64)]), lengths, np.asarray(minimums))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> TableSet:
        """Rebuild a table set from what `to_arrays` returned.

        Args:
            arrays: integer arrays `frequencies`, `lengths` and `minimums`; other keys are ignored.

        Returns:
            The table set, validated anew.

        Raises:
            ValueError: if an array is missing, or the arrays are no valid table set.
        """
        missing = {"frequencies", "lengths", "minimums"} - set(arrays)
        if missing:
            raise ValueError(f"missing arrays: {', '.join(sorted(missing))}")
        return cls(
            np.asarray(arrays["frequencies"]), np.asarray(arrays["lengths"]), np.asarray(arrays["minimums"])
        )

    def to_arrays(self) -> dict[str, NDArray[np.int32]]:
        """The content as int32 arrays, the integer type that every tensor library stores.

        Returns:
            `frequencies` of shape (sum of lengths,), `lengths` and `minimums` of shape (K,).
        """
        return {
            "frequencies": self.frequencies.astype(np.int32),
            "lengths": self.lengths.copy(),
            "minimums": self.minimums.copy(),
        }

    def digest(self) -> bytes:
        """SHA-256 of the content, 32 bytes, the same on every machine."""
        sha = hashlib.sha256(b"latentpress tables 1\0" + len(self).to_bytes(4, "little"))
        sha.update(self.lengths.astype("<i4").tobytes())
        sha.update(self.minimums.astype("<i4").tobytes())
        sha.update(self.frequencies.astype("<u4").tobytes())
        return sha.digest()

    def table(self, index: int) -> NDArray[np.uint32]:
        """Frequencies of one table, escape last: a read-only view of shape (lengths[index],)."""
        return self.frequencies[self._starts[index] : self._starts[index + 1]]

    def support(self, index: int) -> range:
        """Symbols of one table that have a slot of their own."""
        minimum = int(self.minimums[index])
        return range(minimum, minimum + int(self.lengths[index]) - 1)

    def model(self, index: int) -> Any:
        """The coder's model of one table, over slot numbers; built on first use, then kept."""
        found = self._models.get(index)
        if found is None:
            found = self._models[index] = exact_categorical(self.table(index))
        return found

    def _freeze(self, name: str, array: NDArray[Any]) -> None:
        array.flags.writeable = False
        object.__setattr__(self, name, array)


def exact_categorical(frequencies: NDArray[np.uint32]) -> Any:
    """A constriction model with exactly these integer frequencies.

    Args:
        frequencies: shape (n,), n >= 2, positive integers that sum to 2**24.

    Returns:
        A `constriction.stream.model.Categorical` over slots 0 to n - 1.
    """
    # With perfect=False constriction gives each slot 1 plus its share of the remaining 2**24 - n, computed
    # from running sums. The weights f - 1 sum to just that remainder, so its scale factor is exactly 1 and,
    # float64 holding all these integers, nothing is ever rounded.
    return constriction.stream.model.Categorical(frequencies.astype(np.float64) - 1.0, perfect=False)


def gaussian_tables(scales: ArrayLike, tail_mass: float = 2.0**-22) -> TableSet:
    """Tables of zero-mean Gaussians rounded to integers; for export, never while coding.

    Symbol k has the probability of [k - 1/2, k + 1/2]. The support [-m, m] is the smallest whose outside
    holds less than `tail_mass`, and the escape slot gets what is outside.

    Args:
        scales: shape (K,), standard deviations in units of one symbol step, positive and finite.
        tail_mass: probability outside the support, in (0, 1).

    Returns:
        K tables, in the order of `scales`.

    Raises:
        ValueError: if a scale or `tail_mass` is out of range, or a support needs more than 65535 symbols.

    Example:
        >>> [len(gaussian_tables([0.11, 1.0]).support(k)) for k in range(2)]
        [3, 11]
    """
    if not 0.0 < tail_mass < 1.0:
        raise ValueError(f"tail_mass must be in (0, 1), got {tail_mass}")
    deviation = -NormalDist().inv_cdf(tail_mass / 2.0)
    probabilities: list[list[float]] = []
    minimums: list[int] = []
    for scale in np.asarray(scales, np.float64).reshape(-1).tolist():
        if not (math.isfinite(scale) and scale > 0.0):
            raise ValueError(f"a scale must be positive and finite, got {scale}")
        m = max(0, math.ceil(deviation * scale - 0.5))
        if 2 * m + 2 > MAX_SLOTS:
            raise ValueError(f"scale {scale} needs {2 * m + 1} symbols, a table has at most {MAX_SLOTS - 1}")
        # Differences of upper tails: differences of a CDF near 1 would lose the small probabilities.
        tails = [0.5 * math.erfc((k - 0.5) / (scale * math.sqrt(2.0))) for k in range(1, m + 2)]
        side = [inner - outer for inner, outer in pairwise(tails)]
        centre = math.erf(0.5 / (scale * math.sqrt(2.0)))
        probabilities.append([*reversed(side), centre, *side, 2.0 * tails[-1]])
        minimums.append(-m)
    return TableSet.from_probabilities(probabilities, minimums)


def _quantise(weights: NDArray[np.float64], index: int) -> NDArray[np.int64]:
    if weights.ndim != 1 or not 2 <= len(weights) <= MAX_SLOTS:
        raise ValueError(f"table {index} must be 1-D with 2 to {MAX_SLOTS} slots, got shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0.0).any():
        raise ValueError(f"table {index} has a weight that is negative or not finite")
    # Dividing by the largest first keeps the sum finite, and fsum keeps it independent of summation order.
    largest = float(weights.max())
    if largest == 0.0:
        raise ValueError(f"the weights of table {index} sum to 0")
    scaled = weights / largest
    shares = scaled / math.fsum(scaled.tolist()) * float(TOTAL - len(weights))
    frequencies: NDArray[np.int64] = np.floor(shares).astype(np.int64)
    order = np.argsort(frequencies - shares, kind="stable")
    left = TOTAL - len(weights) - int(frequencies.sum())
    if left >= 0:
        frequencies[order[:left]] += 1
    else:
        # Rounded shares can overshoot by a few units when almost all mass is in a few slots.
        frequencies[int(frequencies.argmax())] += left
    frequencies += 1
    return frequencies


def _integers(values: ArrayLike, name: str, low: int, high: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must be 1-D, got shape {array.shape}")
    if array.size and not low <= int(array.min()) <= int(array.max()) <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {int(array.min())} to {int(array.max())}")
    return array.astype(np.int64)
