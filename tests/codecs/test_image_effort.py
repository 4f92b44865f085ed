"""Effort at encode time: better pictures for their bits, in streams that any decoder reads."""

import pytest
import torch

from latentpress.codecs import image_transforms
from latentpress.codecs.bitstream import Limits, read_container
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.image_refinement import RatePoint, slope
from latentpress.codecs.image_trials import MOST_REFINEMENTS, Trials
from latentpress.codecs.picture_input import picture_input
from latentpress.codecs.registry import inspect


def squared_error(codec, x, data) -> float:
    return float((codec.decompress(data).double() - x.double()).square().mean())


def quality_of(data: bytes) -> float:
    return dict(inspect(data).parameters)["quality"]


def loss(codec, x, data, multiplier) -> float:
    bits = len(read_container(data).payload) * 8
    return bits / (x.shape[1] * x.shape[2]) + multiplier * squared_error(codec, x, data)


def multiplier_at(codec, x, tenths) -> float:
    trials = Trials(codec, picture_input(x), 0, lambda *_: None)
    return trials._slope_at(tenths)


class TestQuality:
    @pytest.mark.parametrize("lower", [False, True])
    @pytest.mark.parametrize(("quality", "channels"), [(20, 3), (70, 3), (70, 1)])
    def test_loss_goes_down(self, tiny_codec, picture, quality, channels, lower, monkeypatch):
        monkeypatch.setattr(image_transforms, "has_bfloat16_instructions", lambda: lower)
        x = picture(40, 57, channels)
        multiplier = multiplier_at(tiny_codec, x, quality * 10)
        losses = [
            loss(tiny_codec, x, tiny_codec.compress(x, quality=quality, effort=effort), multiplier)
            for effort in (0, 4)
        ]
        assert losses[1] < 0.99 * losses[0]

    def test_any_decoder_reads_it(self, tiny_codec, tiny_weights, picture):
        """An untouched codec decodes to exactly what the encoder took the picture to be."""
        x = picture(33, 50)
        trial = Trials(tiny_codec, picture_input(x), 20, lambda *_: None).best_at(600)
        data = tiny_codec.compress(x, quality=60, effort=1)
        assert read_container(data).payload == trial.payload
        assert data != tiny_codec.compress(x, quality=60)
        other = ImageCodec(tiny_weights)
        _, y_hat = other._decode_latent(data, limits=Limits())
        assert torch.equal(y_hat, trial.y_hat)
        assert torch.equal(other.decompress(data), tiny_codec.decompress(data))
        assert quality_of(data) == 60

    def test_what_was_settled_on_is_what_is_coded(self, tiny_codec, picture):
        """The coder's own rounding, which may go down to save bits, moves none of the refined latents."""
        x = picture(33, 50).float() / 255
        plain = tiny_codec.encode_payload(x, 600)
        latents = tiny_codec.refined_latents(x, plain, 0.01, 20)
        coded = tiny_codec._coder.encode(*latents, plain.quality)
        assert float((coded.y_hat - latents.y).abs().max()) < 0.1

    def test_no_effort_is_what_it_always_was(self, tiny_codec, picture):
        x = picture()
        for options in ({"quality": 30}, {"target_bytes": 600}, {"target_psnr": 26}):
            assert tiny_codec.compress(x, effort=0, **options) == tiny_codec.compress(x, **options)

    def test_the_same_each_time(self, tiny_codec, tiny_weights, picture):
        x = picture(20, 30)
        other = ImageCodec(tiny_weights)
        state = torch.get_rng_state()
        data = tiny_codec.compress(x, effort=1)
        assert other.compress(x, effort=1) == data
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_worse_result_is_not_taken(self, tiny_codec, picture, monkeypatch):
        x = picture(20, 30)

        def spoil(*arguments):
            latents = ImageCodec.refined_latents(tiny_codec, *arguments)
            return latents._replace(y=latents.y + 3)

        plain = tiny_codec.compress(x, quality=60)
        assert tiny_codec.compress(x, quality=60, effort=1) != plain
        monkeypatch.setattr(tiny_codec, "refined_latents", spoil)
        assert tiny_codec.compress(x, quality=60, effort=1) == plain

    @pytest.mark.parametrize("shape", [(3, 1, 1), (1, 5, 3), (3, 17, 2)])
    def test_small_pictures(self, tiny_codec, shape):
        x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        for options in ({"quality": 0}, {"quality": 100}, {"target_bytes": 400}):
            assert tiny_codec.decompress(tiny_codec.compress(x, effort=1, **options)).shape == x.shape

    @pytest.mark.parametrize("mode", ["inference", "no_grad", "autocast"])
    def test_whatever_mode_is_on(self, tiny_codec, tiny_weights, picture, mode):
        x = picture(20, 30)
        modes = {
            "inference": torch.inference_mode(),
            "no_grad": torch.no_grad(),
            "autocast": torch.autocast("cpu", torch.bfloat16),
        }
        with modes[mode]:
            codec = ImageCodec(tiny_weights)
            data = codec.compress(x, quality=60, effort=1)
        codec.verify(data)
        if mode != "autocast":  # the analysis before it is rounded then
            assert data == tiny_codec.compress(x, quality=60, effort=1)

    @pytest.mark.parametrize("effort", [-1, 11])
    def test_out_of_range(self, tiny_codec, picture, effort):
        with pytest.raises(ValueError, match=f"effort must be within 0 and 10, got {effort}"):
            tiny_codec.compress(picture(), effort=effort)
        with pytest.raises(TypeError, match=r"effort must be a whole number, got 2\.5"):
            tiny_codec.compress(picture(), effort=2.5)


class TestTargets:
    @pytest.mark.parametrize("options", [{"target_bytes": 500}, {"target_bytes": 1001}, {"target_bpp": 2.0}])
    def test_bytes(self, tiny_codec, picture, options):
        x = picture()
        limit = options.get("target_bytes", options.get("target_bpp", 0) * 40 * 56 / 8)
        plain = tiny_codec.compress(x, **options)
        data = tiny_codec.compress(x, effort=3, **options)
        assert len(data) <= limit
        assert squared_error(tiny_codec, x, data) < squared_error(tiny_codec, x, plain)

    def test_metadata_counts(self, tiny_codec, picture):
        data = tiny_codec.compress(picture(), effort=1, target_bytes=700, metadata={"icc": bytes(150)})
        assert 650 < len(data) <= 700

    def test_psnr(self, tiny_codec, picture):
        x = picture()
        plain = tiny_codec.compress(x, target_psnr=26)
        data = tiny_codec.compress(x, effort=3, target_psnr=26)
        assert squared_error(tiny_codec, x, data) <= 255**2 * 10**-2.6
        assert len(data) < len(plain)

    def test_what_only_effort_can_meet(self, tiny_codec, picture):
        """Less than the analysis reaches at quality 0 is tried, and is said if it is not enough."""
        x = picture()
        smallest = len(tiny_codec.compress(x, quality=0))
        with pytest.raises(ValueError, match=r"40 bytes cannot be met: .* has \d+$") as caught:
            tiny_codec.compress(x, effort=1, target_bytes=40)
        assert int(str(caught.value).split()[-1]) <= smallest
        with pytest.raises(ValueError, match="dB cannot be met: quality 100 reaches"):
            tiny_codec.compress(x, effort=1, target_psnr=60)


class TestProgress:
    @pytest.mark.parametrize("options", [{}, {"target_bytes": 600}, {"target_psnr": 26}])
    def test_fractions(self, tiny_codec, picture, options):
        seen = []
        tiny_codec.compress(
            picture(20, 30), effort=1, progress=lambda *report: seen.append(report), **options
        )
        fractions = [fraction for fraction, _ in seen]
        assert fractions == sorted(fractions)
        assert (fractions[0], fractions[-1]) == (0, 1)
        steps = [stage for _, stage in seen if "refining" in stage]
        assert steps[0].endswith("step 1 of 20")
        assert len(steps) % 20 == 0
        assert len(steps) <= (20 * MOST_REFINEMENTS if options else 20)

    def test_quality_takes_as_long_as_it_said(self, tiny_codec, picture):
        seen = []
        tiny_codec.compress(picture(20, 30), effort=1, progress=lambda *report: seen.append(report))
        fractions = [fraction for fraction, _ in seen[:-1]]
        assert fractions == pytest.approx([k / 24 for k in range(24)])

    def test_cancel(self, tiny_codec, picture):
        class Enough(Exception):
            pass

        def stop(fraction, stage):
            if "step 7" in stage:
                raise Enough

        x = picture(20, 30)
        before = x.clone()
        expected = tiny_codec.compress(x, effort=1)
        state = {name: tensor.clone() for name, tensor in tiny_codec.network.state_dict().items()}
        for options in ({}, {"target_bytes": 600}):
            with pytest.raises(Enough):
                tiny_codec.compress(x, effort=1, progress=stop, **options)
        assert torch.equal(x, before)
        after = tiny_codec.network.state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in state.items())
        assert all(parameter.grad is None for parameter in tiny_codec.network.parameters())
        assert torch.is_grad_enabled()
        assert tiny_codec.compress(x, effort=1) == expected


class TestSlope:
    def test_of_two_points(self):
        assert slope(RatePoint(0.5, 60.0), RatePoint(0.75, 50.0)) == 0.025

    @pytest.mark.parametrize("fine", [(0.5, 50.0), (0.4, 50.0), (0.75, 60.0), (0.75, 61.0)])
    def test_where_there_is_none(self, fine):
        assert slope(RatePoint(0.5, 60.0), RatePoint(*fine)) is None

    def test_a_picture_that_no_bits_make_better(self, tiny_codec, picture, monkeypatch):
        monkeypatch.setattr(Trials, "squared_error", lambda *_: 1.0)
        x = picture(20, 30)
        assert tiny_codec.compress(x, effort=1) == tiny_codec.compress(x)
