"""The critic's network: what its filters see, and what it makes of it."""

import pytest
import torch

from latentpress.models.field.critic import ErrorCritic


@pytest.fixture(scope="module")
def critic() -> ErrorCritic:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ErrorCritic(6, 8).eval().requires_grad_(False)


def test_borders_are_not_padded(critic) -> None:
    """A longer piece of a wave is the same wave, if no zero of a border is in it."""
    axis = torch.arange(64)
    phases = [(axis[:, None, None] + k * axis[:, None] + axis) % 4 for k in range(3)]
    waves = torch.stack([torch.tensor([0.0, 1.0, 0.0, -1.0])[phase] for phase in phases], -1)
    short, long = waves[None, :32, :32, :32], waves[None]
    assert torch.allclose(critic.described(short), critic.described(long), atol=1e-2)


def test_sizes_are_logarithms(critic) -> None:
    field = torch.randn(1, 16, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    change = critic.described(0.01 * field) - critic.described(field)
    energies, flatnesses = change.unflatten(1, (3, 2, 6)).unbind(2)
    assert torch.allclose(energies, torch.tensor(-2.0), atol=1e-2)
    assert torch.allclose(flatnesses, torch.tensor(0.0), atol=1e-2)


def test_first_filter_is_the_divergence(critic) -> None:
    axis = torch.arange(16) * (2 * torch.pi / 16)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    flow = torch.stack((x.sin() * y.cos() * z.cos(), -x.cos() * y.sin() * z.cos(), torch.zeros_like(x)))
    found = torch.nn.functional.conv3d(flow[None], critic.filters0)[0]
    assert float(found[0].abs().max()) < 1e-5
    assert float(found[1:].abs().amax((1, 2, 3)).max()) > 1e-2


def test_samples_are_standardised() -> None:
    critic = ErrorCritic(3, 4)
    fields = torch.randn(8, 16, 24, 32, 3, generator=torch.Generator().manual_seed(1))
    fields = fields * torch.logspace(-2, 0, 8)[:, None, None, None, None]
    described = critic.described(fields)
    critic.standardise(described)
    seen = critic.standardised(described)
    assert torch.allclose(seen.mean(0), torch.zeros(seen.shape[1]), atol=1e-4)
    assert float(seen.std(0).max()) <= 1
    assert torch.equal(critic(fields), critic.estimate(seen))


def test_only_the_estimate_is_trained() -> None:
    critic = ErrorCritic(3, 4)
    assert {name.split(".")[0] for name, _ in critic.named_parameters()} == {"hidden", "deeper", "head"}
    # A field without anything in it is scored like any other.
    assert bool(torch.isfinite(critic(torch.zeros(1, 16, 16, 16, 3))).all())
