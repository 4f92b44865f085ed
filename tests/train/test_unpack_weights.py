"""Weight files made checkpoints again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.models.index.network import build_index_network
from latentpress.train.checkpoint import network_from_checkpoint
from latentpress.train.export_index import export_index
from latentpress.train.export_shape import export_shape
from latentpress.train.field_export import export_field, trained_ratio
from latentpress.train.index_checkpoint import load_network
from latentpress.train.unpack_weights import checkpoints_of, main

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"


def tables_of(weights) -> TableSet:
    prefix = "tables."
    return TableSet.from_arrays(
        {k.removeprefix(prefix): v for k, v in weights.tensors.items() if k.startswith(prefix)}
    )


def assert_same(found, expected) -> None:
    """Every array: integers and float16 to the bit."""
    assert found.tensors.keys() == expected.tensors.keys()
    for name, array in expected.tensors.items():
        assert found.tensors[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found.tensors[name], array, err_msg=name)


def test_an_index_model_exports_to_what_it_was(tmp_path) -> None:
    path = GOLDEN / "index_tiny.safetensors"
    assert main(["--weights", str(path), "--out", str(tmp_path)]) == 0
    config, state = network_from_checkpoint(tmp_path / "index-4.ckpt")
    weights = read_weight_file(path)
    assert_same(export_index(config, state, tables_of(weights)), weights)


@torch.no_grad()
def test_the_first_stage_has_the_codes_of_the_full_book(tmp_path) -> None:
    path = GOLDEN / "index_tiny.safetensors"
    main(["--weights", str(path), "--out", str(tmp_path)])
    config, _ = network_from_checkpoint(tmp_path / "index-1.ckpt")
    network = build_index_network(**config)
    load_network(network, tmp_path / "index-1.ckpt")
    directions = torch.from_numpy(read_weight_file(path).tensors["books.directions"]).float()
    codes = network.quantiser.codebook()
    expected = directions[-len(codes) :] / directions[-len(codes) :].norm(dim=1, keepdim=True)
    torch.testing.assert_close(codes, expected)


def test_fields_export_to_what_they_were(tmp_path) -> None:
    path = GOLDEN / "field_tiny.safetensors"
    assert main(["--weights", str(path), "--out", str(tmp_path)]) == 0
    weights = read_weight_file(path)
    trained = {}
    for ratio in weights.config["networks"]:
        realistic = tmp_path / f"field-{ratio}-realistic.ckpt"
        one = str(realistic) if realistic.is_file() else None
        trained[int(ratio)] = trained_ratio(str(tmp_path / f"field-{ratio}.ckpt"), one)
    # Weights of the first format had a critic among them, which training does not start from.
    kept = {name: array for name, array in weights.tensors.items() if not name.startswith("critic.")}
    assert_same(export_field(trained, tables_of(weights)), WeightFile("field", weights.config, kept))


def test_nothing_is_overwritten(tmp_path, capsys) -> None:
    arguments = ["--weights", str(GOLDEN / "index_tiny.safetensors"), "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert main(arguments) == 1
    assert "is there already" in capsys.readouterr().err


def test_shapes_export_to_what_they_were(tmp_path) -> None:
    path = GOLDEN / "shape_tiny.safetensors"
    assert main(["--weights", str(path), "--out", str(tmp_path)]) == 0
    weights = read_weight_file(path)
    stages = [stage for stage in ("autoencoder", "encoder", "bridge", "prior") if weights.config[stage]]
    trained = {stage: network_from_checkpoint(tmp_path / f"shape-{stage}.ckpt") for stage in stages}
    found = export_shape(
        {"prior": None} | {stage: network.config for stage, network in trained.items()},
        {stage: network.state for stage, network in trained.items()},
        {"geometry": weights.config["geometry_price"], "colour": weights.config["colour_price"]},
        tables_of(weights),
    )
    assert_same(found, weights)


def test_other_families_are_refused() -> None:
    with pytest.raises(ValueError, match="family 'image'"):
        checkpoints_of(WeightFile("image", {}, {}))
