"""Local attention: rotations that see differences only, integers, and borders."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.models.entropy.fixed_point import UNIT, InexactLayer, convert, to_fixed_point
from latentpress.models.mlic.checkerboard import merge, split, window_offsets
from latentpress.models.mlic.local_attention import (
    RADIUS,
    BiasedScores,
    FixedPointRotaryScores,
    LocalAttention,
    RotaryScores,
)

FEW = settings(max_examples=20)
seeds = st.integers(0, 10**6)
kinds = pytest.mark.parametrize("position", ["rotary", "bias"])


def perturbed(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module.eval()


@torch.no_grad()
def test_scores_are_those_of_rotations_by_positions():
    """RoPE as it is usually written: queries and keys turn by where they are."""
    layer = perturbed(RotaryScores(2, 8), 0)
    query, keys = torch.randn(2, 8), torch.randn(12, 2, 8)
    found = layer(query, keys)
    frequency = torch.exp(-layer.log_base[..., None] * torch.arange(2) / 2)

    def turned(x: torch.Tensor, head: int, row: int, column: int) -> torch.Tensor:
        angles = torch.cat((row * frequency[head, 0], column * frequency[head, 1]))
        pairs = torch.complex(x[:4], x[4:]) * torch.polar(torch.ones(4), angles)
        return torch.cat((pairs.real, pairs.imag))

    for head in range(2):
        for k, (dy, dx) in enumerate(window_offsets(RADIUS)):
            asked = turned(query[head], head, 20, 31)
            key = turned(keys[k, head], head, 20 + dy, 31 + dx)
            expected = float(asked @ key) / 4  # the power of two next to the square root of 8
            assert float(found[k, head]) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_bases_are_learnt():
    layer = RotaryScores(2, 8)
    layer(torch.randn(2, 8), torch.randn(12, 2, 8)).square().sum().backward()
    assert bool((layer.log_base.grad != 0).all())
    assert float(layer.log_base.detach().exp().mean()) == pytest.approx(1e4, rel=1e-4)


@FEW
@given(seeds)
def test_rotary_integers(seed):
    layer = convert(perturbed(RotaryScores(2, 8), seed))
    random = np.random.default_rng(seed)
    query, keys = random.integers(-(2**17), 2**17, (2, 8)), random.integers(-(2**17), 2**17, (12, 2, 8))
    found = layer(torch.from_numpy(query).double(), torch.from_numpy(keys).double())
    cosine, sine = (np.asarray(x).astype(object) for x in (layer.cosine, layer.sine))
    q, k = (np.clip(x, -32 * UNIT, 32 * UNIT).astype(object) for x in (query, keys))
    for n in range(12):
        for head in range(2):
            total = sum(
                cosine[n, head, p] * (q[head, p] * k[n, head, p] + q[head, p + 4] * k[n, head, p + 4])
                + sine[n, head, p] * (q[head, p + 4] * k[n, head, p] - q[head, p] * k[n, head, p + 4])
                for p in range(4)
            )
            assert int(found[n, head]) == (total + 2**25) >> 26


@kinds
@FEW
@given(seeds, st.integers(1, 5), st.integers(1, 6))
def test_integers_are_close_to_real_numbers(position, seed, height, width):
    layer = perturbed(LocalAttention(6, 4, 16, 2, position), seed)
    columns = (width + 1) // 2
    known, anchor = torch.randn(1, height, columns, 6), torch.randn(1, height, columns, 4) * 3
    with torch.inference_mode():
        expected = layer(known, anchor, width)
        found = convert(layer)(to_fixed_point(known), to_fixed_point(anchor), width)
    assert torch.equal(found, found.round())
    assert float((found / UNIT - expected).abs().max()) < 0.05


@kinds
@torch.no_grad()
def test_only_anchors_in_the_window_matter(position):
    layer = perturbed(LocalAttention(6, 4, 16, 2, position), 1)
    known, whole = torch.randn(1, 9, 5, 6), torch.randn(1, 9, 9, 4)
    anchor = split(whole).anchor
    before = layer(known, anchor, 9)
    changed = whole.clone()
    changed[0, 4, 4] += 1
    after = layer(known, split(changed).anchor, 9)
    moved = (after != before).any(-1, keepdim=True)
    touched = merge(type(split(whole))(torch.zeros_like(moved), moved), 9)[0, ..., 0]
    near = torch.zeros(9, 9, dtype=torch.bool)
    near[2:7, 2:7] = True
    other = (torch.arange(9)[:, None] + torch.arange(9)) % 2 == 1
    assert torch.equal(touched, near & other)


def test_proof_of_rotations():
    layer = FixedPointRotaryScores(1, 1024)
    layer.cosine.fill_(2**14)
    layer.sine.fill_(2**14)
    with pytest.raises(InexactLayer, match="53"):
        layer.prove_exact()


def test_wrong_sizes():
    with pytest.raises(ValueError, match="multiple of 4"):
        RotaryScores(2, 6)
    with pytest.raises(ValueError, match="shared by"):
        LocalAttention(6, 4, 10, 4)


def test_back_to_real_numbers():
    layer = perturbed(RotaryScores(2, 8), 4)
    again = convert(layer).to_float()
    query, keys = torch.randn(2, 8), torch.randn(12, 2, 8)
    torch.testing.assert_close(again(query, keys), layer(query, keys), atol=1e-3, rtol=1e-3)
    bias = perturbed(BiasedScores(2, 8), 4)
    torch.testing.assert_close(convert(bias).to_float()(query, keys), bias(query, keys), atol=1e-3, rtol=1e-3)
