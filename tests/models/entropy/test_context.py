"""The four-step context model: a partition, and no look into the future."""

import pytest
import torch

from latentpress.models.entropy.context import STEPS, ContextModel, step_mask
from latentpress.models.entropy.gaussian import round_with_gradient
from latentpress.models.image.network import build_image_network

SIZES = [(1, 1), (1, 4), (3, 5), (4, 4), (7, 2)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [4, 12])
def test_masks_partition_the_latent(size, channels) -> None:
    masks = torch.stack([step_mask(step, *size, channels) for step in range(STEPS)])
    assert masks.shape == (STEPS, *size, channels)
    assert torch.equal(masks.sum(0), torch.ones(*size, channels, dtype=torch.long))


def test_every_position_codes_a_quarter_of_its_channels_in_each_step() -> None:
    for step in range(STEPS):
        mask = step_mask(step, 3, 5, 8)
        assert torch.equal(mask.sum(-1), torch.full((3, 5), 2))
        # The four positions of a square code four different quarters.
        quarters = mask[:2, :2].reshape(4, 4, 2).all(-1).long().argmax(-1)
        assert sorted(quarters.tolist()) == [0, 1, 2, 3]


def test_second_step_has_diagonal_neighbours_of_its_quarter() -> None:
    first, second = (step_mask(step, 6, 6, 4) for step in range(2))
    row, column, channel = (int(v) for v in second[1:-1, 1:-1].nonzero()[0] + torch.tensor([1, 1, 0]))
    for i in (-1, 1):
        for j in (-1, 1):
            assert first[row + i, column + j, channel]


def test_latent_channels_must_be_divisible() -> None:
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        ContextModel(8, 6, 1)


def run(model: ContextModel, features: torch.Tensor, y: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Codes a latent as the network does: prediction and decoded latent of every step."""
    y_hat = torch.zeros_like(y)
    found = []
    for step in range(STEPS):
        prediction = model(step, features, y_hat)
        mask = step_mask(step, y.shape[1], y.shape[2], y.shape[3])
        decoded = round_with_gradient(y - prediction.mean) + prediction.mean
        y_hat = torch.where(mask, decoded, y_hat)
        found.append((prediction.mean[0][mask], prediction.raw_scale[0][mask], y_hat))
    return found


@pytest.mark.parametrize("size", [(3, 5), (4, 4)])
@pytest.mark.parametrize("later", range(STEPS))
@torch.no_grad()
def test_a_step_depends_on_earlier_steps_only(size, later) -> None:
    torch.manual_seed(later)
    model = ContextModel(8, 8, depth=2)
    features, y = torch.randn(1, *size, 8), torch.randn(1, *size, 8) * 3
    mask = step_mask(later, *size, 8)
    changed = torch.where(mask, y + torch.randn_like(y) * 50, y)
    before, after = run(model, features, y), run(model, features, changed)
    for step in range(STEPS):
        same = [torch.equal(a, b) for a, b in zip(before[step][:2], after[step][:2], strict=True)]
        assert same == [step <= later] * 2, f"step {step} after a change in step {later}"


@torch.no_grad()
def test_first_step_ignores_the_latent() -> None:
    model = ContextModel(8, 8, depth=1)
    features = torch.randn(1, 2, 3, 8)
    first, other = (model(0, features, torch.randn(1, 2, 3, 8)) for _ in range(2))
    assert torch.equal(first.mean, other.mean)
    assert torch.equal(first.raw_scale, other.raw_scale)


@pytest.mark.parametrize("step", range(STEPS))
@torch.no_grad()
def test_training_network_feeds_no_later_element(step, monkeypatch) -> None:
    """In the network, what step k is given holds nothing of steps k and later."""
    torch.manual_seed(0)
    network = build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1).eval()
    image = torch.rand(1, 48, 80, 3)
    seen = {}
    forward = network.context.forward

    def recording(number, features, y_hat):
        seen[number] = y_hat.clone()
        return forward(number, features, y_hat)

    monkeypatch.setattr(network.context, "forward", recording)
    network(image, torch.tensor([80.0]))
    coded = sum(step_mask(k, 3, 5, 8).int() for k in range(step)) if step else torch.zeros(3, 5, 8)
    assert not seen[step][0][coded == 0].any()
    if step:
        assert seen[step][0][coded == 1].any()


def test_encoder_gives_each_step_what_the_decoder_has() -> None:
    """The coder's own path: a later element changed in the encoder changes no earlier symbol or table."""
    from latentpress.codecs.bitstream import gaussian_tables
    from latentpress.codecs.latent_coder import LatentCoder
    from latentpress.models.entropy.fixed_point import convert
    from latentpress.models.entropy.gaussian import scale_table

    torch.manual_seed(1)
    network = build_image_network(16, 16, 8, 1, 1, 4, 8, 8, 1)
    parts = [convert(getattr(network, name)) for name in ("hyper_prior", "hyper_synthesis", "context")]
    coder = LatentCoder(*parts, gaussian_tables(scale_table().numpy()), 8)
    height, width = 5, 3
    y, z = torch.randn(1, height, width, 8) * 4, torch.randn(1, 2, 1, 4) * 3
    quality = torch.tensor([50.0])

    def groups(latent: torch.Tensor) -> list[tuple[bytes, bytes]]:
        found = []
        coder.encode(latent, z, quality, lambda o: found.append((o.symbols.tobytes(), o.indexes.tobytes())))
        return found

    before = groups(y)
    assert len(before) == 1 + STEPS
    for later in range(STEPS):
        mask = step_mask(later, height, width, 8)
        after = groups(torch.where(mask, y + 40, y))
        assert after[: 1 + later] == before[: 1 + later]
        assert after[1 + later][1] == before[1 + later][1]  # the tables of the step itself
        assert after[1 + later][0] != before[1 + later][0]
