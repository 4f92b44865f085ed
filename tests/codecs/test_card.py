"""Model cards."""

import json
import subprocess
import sys

import pytest

from latentpress.codecs.card import (
    Measurement,
    ModelCard,
    RateDifference,
    RatePoint,
    card_path,
    read_card,
)

CARD = ModelCard(
    name="tiny",
    family="image",
    config={"channels": 8, "depth": 1},
    fingerprint="0123456789abcdef",
    parameters=1234,
    bytes=2600,
    date="2025-01-31",
    license="Apache-2.0",
    training_data="Noise – of many colours",
    training="Two steps.\nThen no more.",
    lambda_range=(0.001, 0.1),
    measurements=(
        Measurement(
            "kodak",
            24,
            "2025-02-01T10:00:00+00:00",
            (RatePoint(0.0, 0.1, 28.5, 0.91), RatePoint(100.0, 2.0, None, None)),
            (RateDifference("vtm", -1.25, 28.5, 41.0),),
        ),
    ),
)


def test_round_trip() -> None:
    assert ModelCard.from_json(CARD.to_json()) == CARD


def test_file_beside_the_weights(tmp_path) -> None:
    weights = tmp_path / "tiny.safetensors"
    path = card_path(weights)
    assert path == tmp_path / "tiny.json"
    path.write_text(CARD.to_json(), "utf-8")
    assert read_card(weights) == read_card(path) == CARD
    with pytest.raises(FileNotFoundError):
        read_card(tmp_path / "absent.safetensors")


def test_json_is_plain() -> None:
    content = json.loads(CARD.to_json())
    assert content["format"] == "latentpress-card-1"
    assert content["config"] == {"channels": 8, "depth": 1}
    assert content["measurements"][0]["points"][0] == {
        "quality": 0.0,
        "bpp": 0.1,
        "psnr": 28.5,
        "ms_ssim": 0.91,
    }
    assert CARD.to_json().endswith("}\n")


def test_cards_are_frozen() -> None:
    with pytest.raises(AttributeError):
        CARD.name = "other"


def broken(**changes: object) -> str:
    content = json.loads(CARD.to_json())
    for name, value in changes.items():
        if value is None:
            del content[name]
        else:
            content[name] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a model card"),
        ("{}", "not a model card"),
        (broken(format="latentpress-card-9"), "its format is not 'latentpress-card-1'"),
        (broken(name=None), "not a complete model card: .*'name'"),
        (broken(lambda_range=None), "not a complete model card: 'lambda_range'"),
        (broken(lambda_range=[1, 2, 3]), "too many values"),
        (broken(measurements=[{"data": "x"}]), "not a complete model card: 'points'"),
        (broken(colour="blue"), "unexpected keyword argument 'colour'"),
        ("not JSON", "Expecting value"),
    ],
)
def test_what_is_no_card(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        ModelCard.from_json(text)


def test_reading_a_card_needs_no_torch() -> None:
    program = "import latentpress.codecs.card, sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("field", ["measurements", "config", "lambda_range"])
@pytest.mark.parametrize("value", [6, [6], "text", None])
def test_fields_of_another_type(field, value):
    content = json.loads(CARD.to_json()) | {field: value}
    with pytest.raises(ValueError, match="not a complete model card"):
        ModelCard.from_json(json.dumps(content))


def test_nested_too_deeply():
    with pytest.raises(ValueError, match=r"not a model card|too deeply"):
        ModelCard.from_json("[" * 100_000)
