"""The time budget, its learning rate, and averaged weights, in real runs of Lightning's trainer."""

from types import SimpleNamespace

import lightning
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

from latentpress.train import schedule
from latentpress.train.schedule import AveragedWeights, TimeBudget, TimedCheckpoint, learning_rate_factor

SECONDS_A_LOOK = 7.5  # an eighth of a minute, which floating point adds exactly


class Toy(lightning.LightningModule):
    """Moves a matrix by a known amount each step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Linear(2, 2)
        self.lr = 0.1
        self.rates: list[float] = []
        self.history: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []

    def training_step(self, batch, batch_index):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return self.network(batch).square().sum()

    def on_train_batch_end(self, outputs, batch, batch_index) -> None:
        self.history.append(self.network.weight.detach().clone())

    def validation_step(self, batch, batch_index) -> None:
        self.validated.append(self.network.weight.detach().clone())

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=self.lr)


def batches(count: int = 1000) -> DataLoader:
    torch.manual_seed(1)
    return DataLoader([torch.randn(2) for _ in range(count)], batch_size=None)


@pytest.fixture
def clock(monkeypatch) -> None:
    """Time passes only when somebody looks."""
    now = SimpleNamespace(seconds=0.0)

    def monotonic() -> float:
        now.seconds += SECONDS_A_LOOK
        return now.seconds

    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=monotonic, time=lambda: now.seconds))


fractions = st.floats(0, 1)


@given(fractions, fractions, st.floats(0, 0.99), fractions)
def test_learning_rate_never_rises(first, second, constant_until, final) -> None:
    low, high = sorted((first, second))
    before = learning_rate_factor(low, constant_until, final)
    after = learning_rate_factor(high, constant_until, final)
    assert 1 >= before >= after - 1e-12
    assert after >= final - 1e-12


@given(st.floats(0, 0.99), fractions)
def test_learning_rate_at_its_ends(constant_until, final) -> None:
    assert learning_rate_factor(constant_until, constant_until, final) == 1
    assert learning_rate_factor(1, constant_until, final) == pytest.approx(final)
    assert learning_rate_factor(1.5, constant_until, final) == pytest.approx(final)
    middle = (1 + constant_until) / 2
    assert learning_rate_factor(middle, constant_until, final) == pytest.approx((1 + final) / 2)


def test_constant_until_the_end() -> None:
    assert learning_rate_factor(1.0, 1.0, 0.0) == 1.0


def budget(**options) -> TimeBudget:
    return TimeBudget(**({"minutes": 1, "warmup_steps": 0, "share_every": 1} | options))


@pytest.mark.usefixtures("clock")
def test_budget_ends_a_run(make_trainer) -> None:
    trainer, module = make_trainer(callbacks=[budget()]), Toy()
    trainer.fit(module, batches())
    # The first two steps are not counted, eight eighths of a minute are.
    assert trainer.global_step == 10
    spent = [0, 0, *(k / 8 for k in range(1, 9))]
    assert module.rates == pytest.approx([0.1 * learning_rate_factor(s, 0.3, 0.01) for s in spent])


@pytest.mark.usefixtures("clock")
def test_resumed_run_continues_its_clock(make_trainer, tmp_path) -> None:
    path = tmp_path / "broken.ckpt"
    first = make_trainer(callbacks=[budget()], max_steps=5)
    first.fit(Toy(), batches())
    first.save_checkpoint(path)
    again = budget()
    second, module = make_trainer(callbacks=[again]), Toy()
    second.fit(module, batches(), ckpt_path=path)
    # Three eighths were spent; five are left, after two steps that are not counted.
    assert second.global_step == 5 + 7
    assert module.rates[0] == pytest.approx(0.1 * learning_rate_factor(3 / 8, 0.3, 0.01))
    assert again.spent == 1.0


@pytest.mark.usefixtures("clock")
def test_deadline_takes_the_place_of_minutes(make_trainer) -> None:
    callback = budget(deadline=4.25 * SECONDS_A_LOOK, minutes=1e6)
    trainer, module = make_trainer(callbacks=[callback]), Toy()
    trainer.fit(module, batches())
    # The fifth look is past the deadline; the batch that it precedes still counts.
    assert trainer.global_step == 5
    assert callback.minutes == callback.spent == 3 / 8
    # At the third look one step is behind and a look and a quarter lie ahead.
    assert module.rates[2] == pytest.approx(0.1 * learning_rate_factor(1 / 2.25, 0.3, 0.01))
    assert module.rates[-1] == pytest.approx(0.001)


def test_finished_budget_starts_anew() -> None:
    callback = budget()
    callback.load_state_dict({"spent": 1.0})
    assert callback.spent == 0
    callback.load_state_dict({"spent": 0.75})
    assert callback.spent == 0.75
    assert callback.state_dict() == {"spent": 0.75}


@pytest.mark.usefixtures("clock")
def test_time_between_looks_is_counted_once(make_trainer) -> None:
    callback = budget(share_every=3, minutes=0.25)
    trainer = make_trainer(callbacks=[callback])
    trainer.fit(Toy(), batches())
    # Looks at steps 0, 3, 6, 9; those at 6 and 9 count.
    assert trainer.global_step == 10


@pytest.mark.usefixtures("clock")
def test_warm_up(make_trainer) -> None:
    trainer, module = make_trainer(callbacks=[budget(warmup_steps=4, minutes=100)], max_steps=6), Toy()
    trainer.fit(module, batches())
    assert module.rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


@pytest.mark.usefixtures("clock")
def test_validation_is_not_counted(make_trainer) -> None:
    callback = budget(minutes=100)
    trainer = make_trainer(callbacks=[callback], max_steps=8, val_check_interval=1)
    trainer.fit(Toy(), batches(), batches(1))
    # Each of the seven looks after the first follows a validation, which moved the clock on and was left out.
    assert callback.spent == pytest.approx(6 / 8)


@pytest.mark.parametrize("every", [1, 3])
def test_average_is_right(make_trainer, every) -> None:
    callback = AveragedWeights(decay=0.7, every=every)
    module = Toy()
    expected = module.network.weight.detach().clone()
    make_trainer(callbacks=[callback], max_steps=10).fit(module, batches())
    for step, weight in enumerate(module.history, start=1):
        if step % every == 0:
            decay = min(0.7, (1 + step) / (10 + step)) ** every
            expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(callback.average["weight"], expected)


def test_validation_uses_the_average_and_leaves_no_trace(make_trainer) -> None:
    seen: list[torch.Tensor] = []

    class Watch(lightning.Callback):
        def on_validation_end(self, trainer, module) -> None:
            seen.append(module.network.weight.detach().clone())

    callback = AveragedWeights(decay=0.9, every=1)
    trainer = make_trainer(callbacks=[callback, Watch()], max_steps=4, val_check_interval=4)
    module = Toy()
    trainer.fit(module, batches(), batches(1))
    assert torch.equal(module.validated[0], callback.average["weight"])
    assert not torch.equal(module.validated[0], module.history[-1])
    assert torch.equal(seen[0], module.history[-1])
    assert torch.equal(module.network.weight.detach(), module.history[-1])


def test_average_survives_a_resume(make_trainer, tmp_path) -> None:
    path = tmp_path / "broken.ckpt"
    data = DataLoader([torch.tensor([0.5, -0.25])] * 100, batch_size=None)
    straight = AveragedWeights(decay=0.9, every=1)
    make_trainer(callbacks=[straight], max_steps=6).fit(Toy(), data)
    first = make_trainer(callbacks=[AveragedWeights(decay=0.9, every=1)], max_steps=3)
    first.fit(Toy(), data)
    first.save_checkpoint(path)
    resumed = AveragedWeights(decay=0.9, every=1)
    second = make_trainer(callbacks=[resumed], max_steps=6)
    second.fit(Toy(), data, ckpt_path=path)
    assert second.global_step == 6
    torch.testing.assert_close(resumed.average, straight.average)


def test_checkpoint_every_few_minutes_and_at_the_end(make_trainer, tmp_path, clock) -> None:
    class Watch(lightning.Callback):
        """Notes after which steps there is a newer checkpoint."""

        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_train_batch_end(self, trainer, module, *_) -> None:
            path = tmp_path / "checkpoints" / "last.ckpt"
            if path.exists():
                step = torch.load(path, weights_only=False)["global_step"]
                if step not in self.steps:
                    self.steps.append(step)

    watch = Watch()
    # A look is an eighth of a minute; the clock is looked at every second step, and once more after a save.
    checkpoint = TimedCheckpoint(minutes=3 / 8, share_every=2)
    make_trainer(callbacks=[checkpoint, watch], max_steps=15).fit(Toy(), batches())
    assert watch.steps == [6, 12]
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    assert last["global_step"] == 15
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
