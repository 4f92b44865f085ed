"""Schedules of slices."""

import dataclasses
import json

import pytest

from latentpress.models.mlic.schedule import SliceSchedule, Stage


def test_serial():
    schedule = SliceSchedule.serial(3)
    assert schedule.stages == (Stage((0,)), Stage((1,), (0,)), Stage((2,), (0, 1)))
    assert schedule.parts == 1


def test_grouped():
    schedule = SliceSchedule.grouped(5, core=2)
    assert schedule.stages[-1] == Stage((2, 3, 4), (0, 1), 1)
    assert schedule.parts == 2


@pytest.mark.parametrize("schedule", [SliceSchedule.serial(4), SliceSchedule.grouped(8, 4)])
def test_through_json(schedule):
    text = json.dumps(dataclasses.asdict(schedule))
    assert SliceSchedule.from_config(json.loads(text)) == schedule


@pytest.mark.parametrize(
    ("slices", "stages"),
    [
        (2, (Stage((0,)),)),
        (2, (Stage((1,)), Stage((0,)))),
        (2, (Stage((0, 1)), Stage((1,)))),
        (2, (Stage((0,), (1,)), Stage((1,)))),
        (2, (Stage((0,)), Stage((1,), (1,)))),
        (1, (Stage(()), Stage((0,)))),
        (3, (Stage((0,)), Stage((1,)), Stage((2,), (1, 0)))),
        (2, (Stage((0,), (), 1), Stage((1,), (0,), 1))),
        (2, (Stage((0,)), Stage((1,), (0,), 2))),
        (3, (Stage((0,)), Stage((1,), (), 1), Stage((2,)))),
    ],
)
def test_impossible_orders(slices, stages):
    with pytest.raises(ValueError, match="stage"):
        SliceSchedule(slices, stages)
