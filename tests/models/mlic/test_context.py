"""The slice-wise model as a whole: order of coding, integers next to real numbers, exactness."""

import dataclasses

import pytest
import torch

from latentpress.models.entropy.fixed_point import UNIT, convert, to_fixed_point
from latentpress.models.entropy.gaussian import gaussian_bits, scale_from_raw
from latentpress.models.entropy.latent_model import CodingStep, to_nearest, to_nearest_with_gradient
from latentpress.models.mlic.context import SliceContextModel
from latentpress.models.mlic.design import LocalAttentionDesign, SliceContextDesign
from latentpress.models.mlic.schedule import SliceSchedule, Stage

ALL = SliceContextDesign(
    width=8, channel_context=8, local_attention=LocalAttentionDesign(channels=8, heads=1)
)
NONE = SliceContextDesign(8, 8, None, None, None, None, None, None, None)
OPTIONAL = tuple(field.name for field in dataclasses.fields(SliceContextDesign))[2:9]
GROUPED = SliceSchedule.grouped(4, core=2)

DESIGNS = {
    "all": ALL,
    "none": NONE,
    "own blocks": dataclasses.replace(ALL, own_blocks=1, shared_blocks=0),
    "both kinds of blocks": dataclasses.replace(ALL, own_blocks=1, shared_blocks=1),
    "bias": dataclasses.replace(ALL, local_attention=LocalAttentionDesign(8, 1, "bias")),
    **{f"without {name}": dataclasses.replace(ALL, **{name: None}) for name in OPTIONAL},
}
designs = pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)


def model(
    design: SliceContextDesign = ALL, schedule: SliceSchedule = GROUPED, seed: int = 0
) -> SliceContextModel:
    torch.manual_seed(seed)
    found = SliceContextModel(6, 8, schedule, design)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for name, parameter in found.named_parameters():
            if name.endswith("parameters_of.head.bias"):
                parameter[len(parameter) // 2 :] -= 1.5  # scales around the threshold of skipping
    return found.eval()


def latents(height: int, width: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn((1, height, width, 6), generator=generator)
    return features, torch.randn((1, height, width, 8), generator=generator) * 2


def coded(context, features, y, seen=None) -> torch.Tensor:
    """The encoder's part of coding, without bytes."""
    flat = to_fixed_point(y).flatten()

    def exchange(step: CodingStep) -> torch.Tensor:
        if seen is not None:
            seen.append(step)
        return torch.round((flat[step.positions] - step.mean) / UNIT) * UNIT

    with torch.inference_mode():
        return context.code(to_fixed_point(features), exchange)


@designs
@torch.inference_mode()
def test_integers_are_close_to_real_numbers(design):
    context = model(design)
    features, y = latents(6, 8)
    steps: list[CodingStep] = []
    y_hat = coded(convert(context), features, y, steps) / UNIT
    expected = context.quantise(features, y, to_nearest)
    # One latent rounded to the other side changes what follows, so not every element has to agree.
    assert float(((y_hat - expected.y_hat).abs() < 0.1).double().mean()) > 0.95
    bits = gaussian_bits(torch.round(y - expected.mean), scale_from_raw(expected.raw_scale))
    if expected.coded is not None:
        bits = bits * expected.coded
    found = 0.0
    for step in steps:
        residual = torch.round(y.flatten()[step.positions] - step.mean / UNIT).float()
        found += float(gaussian_bits(residual, scale_from_raw(step.raw_scale / UNIT)).sum())
    assert found == pytest.approx(float(bits.sum()), rel=0.03)


@designs
def test_steps_code_every_element_once(design):
    for height, width in ((1, 1), (3, 5), (4, 2)):
        steps: list[CodingStep] = []
        y_hat = coded(convert(model(design)), *latents(height, width), steps)
        assert y_hat.shape == (1, height, width, 8)
        assert torch.equal(y_hat, y_hat.round())
        assert len(steps) == 2 * len(GROUPED.stages)
        assert [step.part for step in steps] == [0, 0, 0, 0, 1, 1]
        for step in steps:
            assert bool((step.positions.diff() > 0).all())
        positions = torch.cat([step.positions for step in steps])
        assert len(positions.unique()) == len(positions)
        if design.selective is None:
            assert len(positions) == height * width * 8


def test_skipped_elements_take_their_mean_and_are_the_same_for_a_decoder():
    context = convert(model())
    features, y = latents(6, 8)
    steps: list[CodingStep] = []
    y_hat = coded(context, features, y, steps)
    assert 0 < sum(len(step.positions) for step in steps) < y.numel()
    kept = iter(
        [torch.round((to_fixed_point(y).flatten()[s.positions] - s.mean) / UNIT) * UNIT for s in steps]
    )

    def receive(step: CodingStep) -> torch.Tensor:
        return next(kept)

    with torch.inference_mode():
        assert torch.equal(context.code(to_fixed_point(features), receive), y_hat)


def test_threads_change_nothing():
    context = convert(model())
    features, y = latents(40, 36)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            steps: list[CodingStep] = []
            y_hat = coded(context, features, y, steps)
            found.append((y_hat, steps))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert all(torch.equal(a[k], b[k]) for k in range(3))


@torch.no_grad()
def test_predictions_depend_on_what_is_decoded_before_only():
    """A change in one slice at one position reaches later steps, and only stages that see it."""
    schedule = SliceSchedule(4, (Stage((0,)), Stage((1,), (0,)), Stage((2,), (0,)), Stage((3,), (1, 2))))
    context = model(dataclasses.replace(ALL, selective=None), schedule)
    features, y = latents(8, 8)
    changed = y.clone()
    changed[0, 3, 3, 2:4] += 5.0  # an anchor of slice 1
    before, after = (context.quantise(features, x, to_nearest).mean[0] for x in (y, changed))
    moved = [bool((before[..., 2 * k : 2 * k + 2] != after[..., 2 * k : 2 * k + 2]).any()) for k in range(4)]
    assert moved == [False, True, False, True]
    anchors = (torch.arange(8)[:, None] + torch.arange(8)) % 2 == 0
    assert torch.equal(before[anchors][:, 2:4], after[anchors][:, 2:4])


@designs
def test_gradients_reach_every_parameter(design):
    context = model(design, SliceSchedule.grouped(4, core=2)).train()
    features, y = latents(8, 8)

    features.requires_grad_()
    result = context.quantise(features, y, to_nearest_with_gradient)
    bits = gaussian_bits(y - result.mean, scale_from_raw(result.raw_scale))
    if result.coded is not None:
        bits = bits * result.coded
    (bits.sum() + (result.y_hat - y).square().sum()).backward()
    for name, parameter in context.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name
    assert bool(features.grad.any())


@designs
def test_what_is_left_out_has_no_parameters(design):
    names = {name for name, _ in model(design).named_parameters()}
    for part in OPTIONAL:
        present = any(f".{part}." in name for name in names)
        assert present == (getattr(design, part) is not None), part


def test_design_through_json():
    for design in DESIGNS.values():
        assert SliceContextDesign.from_config(dataclasses.asdict(design)) == design


def test_slices_must_share_the_channels():
    with pytest.raises(ValueError, match="shared by 3 slices"):
        SliceContextModel(6, 8, SliceSchedule.serial(3), ALL)


def test_latents_of_a_batch_do_not_mix():
    context = model()
    torch.manual_seed(2)
    features, y = torch.randn(3, 4, 6, 6), torch.randn(3, 4, 6, 8)
    with torch.inference_mode():
        together = context.quantise(features, y, to_nearest)
        for k in range(3):
            alone = context.quantise(features[k : k + 1], y[k : k + 1], to_nearest)
            torch.testing.assert_close(together.y_hat[k : k + 1], alone.y_hat, rtol=1e-3, atol=1e-3)
