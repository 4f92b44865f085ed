"""Descent on latents: it goes down, it starts the same each time, and rounding is as likely as it says."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs import latent_refinement
from latentpress.codecs.effort import EFFORT_MAX
from latentpress.codecs.latent_refinement import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    Latents,
    iterations_of,
    refine_latents,
    stochastic_rounding,
    temperature,
)

START = Latents(torch.tensor([[[[0.2, 0.7, -1.4, 2.8]]]]), torch.tensor([[[[0.4]]]]))


def towards(y, z):
    """An objective whose best integers are known."""

    def objective(y_now, z_now, rounding):
        return (rounding(y_now, y_now) - y).square().sum() + (rounding(z_now, z_now) - z).square().sum()

    return objective


class TestEffort:
    def test_more_is_more(self):
        steps = [iterations_of(effort) for effort in range(EFFORT_MAX + 1)]
        assert steps[0] == 0
        assert steps[-1] == 2000
        assert all(a < b for a, b in pairwise(steps))

    @pytest.mark.parametrize("effort", [-1, 11, 10**9])
    def test_out_of_range(self, effort):
        with pytest.raises(ValueError, match=f"effort must be within 0 and 10, got {effort}"):
            iterations_of(effort)

    @pytest.mark.parametrize("effort", [1.0, "3", None, True, math.nan])
    def test_no_whole_number(self, effort):
        with pytest.raises(TypeError, match="effort must be a whole number"):
            iterations_of(effort)


@given(st.integers(1, 3000), st.data())
def test_temperature_never_rises(steps, data):
    step = data.draw(st.integers(0, steps - 1))
    now, then = temperature(step, steps), temperature(step + 1, steps)
    assert LOWEST_TEMPERATURE - 1e-9 <= then <= now <= HIGHEST_TEMPERATURE


class TestRounding:
    @given(st.floats(-50, 50, width=32), st.sampled_from([0.13, 0.3, 0.5, 1.0]), st.integers(0, 9))
    def test_stays_between_the_neighbours(self, value, heat, seed):
        x = torch.full((20,), value)
        rounded = stochastic_rounding(heat, torch.Generator().manual_seed(seed))(x, x)
        assert bool((rounded >= math.floor(value)).all())
        assert bool((rounded <= math.floor(value) + 1).all())

    @pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.9])
    def test_odds(self, fraction):
        """At temperature 1, which end is nearer is as likely as the fraction says."""
        x = torch.full((40000,), 7 + fraction)
        rounded = stochastic_rounding(1.0, torch.Generator().manual_seed(0))(x, x)
        assert float((rounded > 7.5).float().mean()) == pytest.approx(fraction, abs=0.01)

    def test_cold_is_certain(self):
        x = torch.linspace(-3, 3, 601)
        x = x[(x - x.floor() - 0.5).abs() > 0.05]
        rounded = stochastic_rounding(0.02, torch.Generator().manual_seed(0))(x, x)
        assert torch.allclose(rounded, x.round(), atol=1e-3)

    def test_gradient(self):
        x = torch.tensor([0.4, 2.6, -1.3], requires_grad=True)
        stochastic_rounding(0.5, torch.Generator().manual_seed(0))(x, x).sum().backward()
        assert bool((x.grad > 0).all())


class TestDescent:
    def test_finds_integers(self):
        """Every target is another integer than the nearest one to start from."""
        y, z = torch.tensor([[[[1.0, 0.0, -2.0, 2.0]]]]), torch.tensor([[[[1.0]]]])
        found = refine_latents(START, towards(y, z), 300)
        assert torch.equal(found.y.round(), y)
        assert torch.equal(found.z.round(), z)

    @pytest.mark.parametrize("factor", [1e9, math.inf, math.nan])
    def test_one_gradient_out_of_all_proportion(self, factor):
        """Decoders have cliffs. The steps after one go on as ever."""
        y, z = torch.tensor([[[[1.0, 0.0, -2.0, 2.0]]]]), torch.tensor([[[[1.0]]]])
        calls = []

        def objective(*arguments):
            calls.append(1)
            return towards(y, z)(*arguments) * (factor if len(calls) == 10 else 1)

        found = refine_latents(START, objective, 300)
        assert torch.equal(found.y.round(), y)
        assert torch.equal(found.z.round(), z)

    @pytest.mark.parametrize("lost", [1e9, math.inf, math.nan])
    def test_a_way_into_nowhere(self, lost):
        """One step leads to where all is a thousand times worse and no slope leads away."""
        y, z = torch.tensor([[[[1.0, 0.0, -2.0, 2.0]]]]), torch.tensor([[[[1.0]]]])
        calls = []

        def objective(y_now, z_now, rounding):
            calls.append(y_now[..., 3].item())
            value = 1e4 + 100 * towards(y, z)(y_now, z_now, rounding)
            astray = len(calls) == 50
            y_now.data[..., 3] += 100 * astray
            return value if y_now[..., 3] < 50 or astray else lost + 0 * value

        found = refine_latents(START, objective, 300)
        assert max(calls) > 50
        assert torch.equal(found.y.round(), y)
        assert torch.equal(found.z.round(), z)

    def test_gradients_that_begin_with_none(self):
        y, z = torch.tensor([[[[1.0, 0.0, -2.0, 2.0]]]]), torch.tensor([[[[1.0]]]])
        calls = []

        def objective(*arguments):
            calls.append(1)
            return towards(y, z)(*arguments) * (0 if len(calls) < 5 else 1)

        assert torch.equal(refine_latents(START, objective, 300).y.round(), y)

    def test_start_is_left_alone(self):
        before = Latents(*(x.clone() for x in START))
        refine_latents(START, towards(START.y + 1, START.z), 5)
        assert all(map(torch.equal, START, before))

    def test_repeatable(self):
        state = torch.get_rng_state()
        objective = towards(START.y + 0.6, START.z)
        first, second = (refine_latents(START, objective, 20) for _ in range(2))
        assert all(map(torch.equal, first, second))
        other = refine_latents(START, objective, 20, seed=1)
        assert not torch.equal(first.y, other.y)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_where_gradients_are_off(self, mode):
        objective = towards(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 1))
        expected = refine_latents(START, objective, 10)
        with mode():
            found = refine_latents(Latents(*(x.clone() for x in START)), objective, 10)
        assert all(map(torch.equal, found, expected))

    def test_no_steps(self):
        assert all(map(torch.equal, refine_latents(START, towards(0, 0), 0), START))

    def test_every_step_is_told_and_may_be_the_last(self):
        seen = []

        def stop(step):
            seen.append(step)
            if step == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            refine_latents(START, towards(START.y, START.z), 10, stop)
        assert seen == [0, 1, 2, 3]
        assert torch.is_grad_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestRecorded:
    """On a GPU most steps are replayed."""

    WANTED = Latents(torch.tensor([[[[1.0, 0.0, -2.0, 2.0]]]]), torch.tensor([[[[1.0]]]]))
    STEPS = 60

    def found(self, steps, seen=None):
        start, wanted = (Latents(*(x.cuda() for x in latents)) for latents in (START, self.WANTED))
        objective = towards(*wanted)

        def counted(*arguments):
            if seen is not None:
                seen.append(1)
            return objective(*arguments)

        return refine_latents(start, counted, steps)

    def test_steps_are_recorded(self):
        seen = []
        self.found(self.STEPS, seen)
        assert len(seen) < self.STEPS

    def test_like_launched_steps(self, monkeypatch):
        recorded = self.found(self.STEPS)
        monkeypatch.setattr(latent_refinement, "_WORTH_RECORDING", self.STEPS)
        for one, same in zip(recorded, self.found(self.STEPS), strict=True):
            torch.testing.assert_close(one, same)

    def test_finds_integers(self):
        found = self.found(300)
        assert torch.equal(found.y.round().cpu(), self.WANTED.y)
        assert torch.equal(found.z.round().cpu(), self.WANTED.z)
