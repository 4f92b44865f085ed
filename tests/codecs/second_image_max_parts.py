"""What the second decoder of image-max needs besides: attention in integers, and halves of the positions."""

from functools import cache

import numpy as np

LIMIT = 2**20 - 1

NEIGHBOURS = [(u, v) for u in range(-2, 3) for v in range(-2, 3) if (u + v) % 2]
"""Of a position of the other half: the anchors around it, in raster order."""


def half(x: np.ndarray, other: bool) -> np.ndarray:
    """The anchors or the others of (h, w, C): (h, ceil(w / 2), C), zero where there is no position."""
    padded = np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0)))
    return padded[columns_of(padded.shape[0], padded.shape[1], other)]


def whole(x: np.ndarray, width: int, other: bool) -> np.ndarray:
    """The inverse of half; positions of the other half are zero."""
    rows, columns, channels = x.shape
    found = np.zeros((rows, 2 * columns, channels), x.dtype)
    found[columns_of(rows, 2 * columns, other)] = x
    return found[:, :width]


def columns_of(rows: int, width: int, other: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a half, of an even width."""
    row = np.arange(rows)[:, None]
    column = 2 * np.arange(width // 2)[None]
    return np.broadcast_to(row, (rows, width // 2)), column + (1 - row % 2 if other else row % 2)


def quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (2 * a + b) // (2 * b)


@cache
def powers() -> np.ndarray:
    return np.array([round(2 ** (16 - k / 1024)) for k in range(1024)])


def power(x: np.ndarray) -> np.ndarray:
    return powers()[x % 1024] >> np.minimum(x // 1024, 62)


def linear_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, heads: int) -> np.ndarray:
    """Of (N, C), (T, C) and (T, C)."""

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), heads, -1)

    def feature(x: np.ndarray) -> np.ndarray:
        return x.clip(0, 8192) + 64

    query, key = feature(split(query)), feature(split(key))
    value = split(value).clip(-32768, 32768)
    found = quotient(np.einsum("tgd,tge->gde", key, value), key.sum(axis=0)[:, :, None])
    mixed = quotient(np.einsum("ngd,gde->nge", query, found), query.sum(axis=2)[:, :, None])
    return mixed.reshape(len(query), -1)


def channel_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Of (N, C) each."""
    scores = quotient(query.clip(-16384, 16384).T @ key.clip(-16384, 16384), 256 * len(query))
    shares = power(scores.max(axis=1, keepdims=True) - scores)
    shares = quotient(2**14 * shares, shares.sum(axis=1, keepdims=True))
    return (value.clip(-LIMIT, LIMIT) @ shares.T + 2**13) >> 14


def neighbours(x: np.ndarray, width: int) -> np.ndarray:
    """Anchors (h, m, C) around every position of the other half: (h, m, 12, C)."""
    rows, columns = x.shape[:2]
    padded = np.pad(whole(x, width, other=False), ((2, 2), (2, 2 + width % 2), (0, 0)))
    at = columns_of(rows, 2 * columns, other=True)
    return np.stack([padded[at[0] + 2 + u, at[1] + 2 + v] for u, v in NEIGHBOURS], axis=2)


def rotary_scores(query: np.ndarray, key: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """Scores (h, m, 12, H) of queries (h, m, 1, H, D) and keys (h, m, 12, H, D)."""
    count = query.shape[-1] // 2
    query, key = query.clip(-32768, 32768), key.clip(-32768, 32768)
    first, second = query[..., :count], query[..., count:]
    key_first, key_second = key[..., :count], key[..., count:]
    along = first * key_first + second * key_second
    across = second * key_first - first * key_second
    shift = 24 + round_half_log(2 * count)
    return ((cosine * along + sine * across).sum(axis=-1) + (1 << shift - 1)) >> shift


def bias_scores(query: np.ndarray, key: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The same with a bias for each neighbour and head."""
    shift = 10 + round_half_log(query.shape[-1])
    sums = (query.clip(-32768, 32768) * key.clip(-32768, 32768)).sum(axis=-1)
    return ((sums + (1 << shift - 1)) >> shift) + bias


def round_half_log(width: int) -> int:
    return round(np.log2(width) / 2)


def window_average(scores: np.ndarray, values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Averages values (h, m, 12, H, D) by scores (h, m, 12, H), over neighbours inside (h, m, 12, 1)."""
    largest = np.where(inside, scores, 0).max(axis=2, keepdims=True).clip(0)
    weights = np.where(inside, power(np.maximum(largest - scores, 0)), 0)
    total = power(largest[:, :, 0]) + weights.sum(axis=2)
    sums = (weights[..., None] * values.clip(-LIMIT, LIMIT)).sum(axis=2)
    return quotient(sums, total[..., None])
