"""A run that is made to diverge goes back and ends well."""

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from latentpress.train.divergence import DivergenceGuard
from latentpress.train.schedule import AveragedWeights


class Slope(lightning.LightningModule):
    """Moves a weight towards zero; at ``poison`` something throws it far off, once."""

    def __init__(self, poison: int | None, value: float) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.network.weight, 1.0)
        self.lr = 0.01
        self.poison = poison
        self.value = value
        self.automatic_optimization = False

    def training_step(self, batch, batch_index) -> None:
        optimizer = self.optimizers()
        optimizer.param_groups[0]["lr"] = self.lr
        loss = self.network(batch).square().sum()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        if self.global_step == self.poison:
            with torch.no_grad():
                self.network.weight.fill_(self.value)
        self.log("loss", loss.detach())

    def configure_optimizers(self):
        return torch.optim.Adam(self.network.parameters(), lr=self.lr)


@pytest.fixture
def fit(make_trainer):
    def fit(module: Slope, guard: DivergenceGuard, steps: int = 60) -> AveragedWeights:
        average = AveragedWeights(every=1)
        trainer = make_trainer(callbacks=[average, guard], max_steps=steps, log_every_n_steps=1)
        trainer.fit(module, DataLoader([torch.ones(1)] * 1000, batch_size=None))
        return average

    return fit


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 50.0])
def test_goes_back_and_goes_on(fit, value) -> None:
    module, guard = Slope(poison=20, value=value), DivergenceGuard(minutes=0, window=3)
    with pytest.warns(UserWarning, match="the loss is lost at step 2"):
        average = fit(module, guard)
    assert guard.divergences == 1
    assert module.lr == pytest.approx(0.005)
    assert 0 < float(module.network.weight.detach()) < 0.9
    # The average forgot the poison as well.
    assert 0 < float(average.average["weight"]) < 1


def test_a_healthy_run_is_left_alone(fit) -> None:
    module, guard = Slope(poison=None, value=0.0), DivergenceGuard(minutes=0)
    fit(module, guard)
    assert guard.divergences == 0
    assert module.lr == 0.01


def test_without_a_copy_the_run_ends(fit) -> None:
    module, guard = Slope(poison=0, value=float("nan")), DivergenceGuard()
    with torch.no_grad():
        module.network.weight.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="the loss is lost at step 1"):
        fit(module, guard)


def test_gives_up_in_the_end(fit) -> None:
    class Hopeless(Slope):
        def on_train_batch_end(self, outputs, batch, batch_index) -> None:
            if self.global_step % 5 == 4:
                with torch.no_grad():
                    self.network.weight.fill_(float("nan"))

    with (
        pytest.warns(UserWarning, match="the loss is lost"),
        pytest.raises(RuntimeError, match="the loss is lost"),
    ):
        fit(Hopeless(None, 0.0), DivergenceGuard(minutes=0, most=3))
