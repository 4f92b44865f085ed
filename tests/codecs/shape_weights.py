"""A tiny shape codec whose generator makes spheres: untrained, but its fields have a surface."""

from typing import Any

import torch

CONFIGS: dict[str, dict[str, Any]] = {
    "autoencoder": {
        "geometry_channels": 4,
        "colour_channels": 2,
        "width": 32,
        "depth": 1,
        "coarse_channels": 4,
        "middle_channels": 4,
        "fine_channels": 4,
        "encoder_width": 32,
        "encoder_fine_width": 32,
        "encoder_depth": 1,
    },
    "encoder": {"channels": 32, "cell_channels": 4, "middle_channels": 4, "depth": 1, "grid_channels": 4},
    "bridge": {
        "encoder_channels": 32,
        "geometry_channels": 4,
        "colour_channels": 2,
        "code_channels": 6,
        "code_groups": 3,
        "colour_code_channels": 4,
        "colour_code_groups": 2,
        "width": 32,
        "forward_depth": 1,
        "reverse_depth": 1,
        "colour_width": 32,
        "colour_depth": 1,
        "prior_width": 8,
        "prior_depth": 1,
    },
    "prior": {"geometry_channels": 4, "colour_channels": 2, "width": 32, "depth": 1},
}

PRICES = {"geometry": [6e-5, 2.5e-7], "colour": [1e-4, 2e-6]}


def build_networks(seed: int) -> dict[str, torch.nn.Module]:
    """The stages' networks, their codes spread widely enough to cost bytes."""
    from latentpress.models.shape.bridge import build_shape_bridge
    from latentpress.models.shape.flow_prior import build_flow_prior
    from latentpress.models.shape.generator import build_shape_autoencoder
    from latentpress.models.shape.point_encoder import build_implicit_autoencoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = {
            "autoencoder": build_shape_autoencoder(**CONFIGS["autoencoder"]),
            "encoder": build_implicit_autoencoder(**CONFIGS["encoder"]),
            "bridge": build_shape_bridge(**CONFIGS["bridge"]),
            "prior": build_flow_prior(**CONFIGS["prior"]),
        }
        with torch.no_grad():
            distance = networks["autoencoder"].generator.distance
            _make_sphere(distance)
            bridge = networks["bridge"]
            bridge.forward_mapping.head.weight.mul_(6)
            for prior in (bridge.geometry_prior, bridge.colour_prior):
                prior.head.weight.mul_(0.3)
                # Scales that rise with the quality, as trained ones do.
                line = torch.linspace(-0.5, 0.8, len(prior.bias.knots))[:, None]
                prior.bias.knots.add_(torch.randn(prior.bias.knots.shape[1]) * 0.2 + line * 0.1)
    return networks


def _make_sphere(distance: Any) -> None:
    """Makes the distance mostly that of an octahedron, the sum of rectified coordinates."""
    for layer in (distance.stem, distance.hidden, distance.head):
        layer.weight.mul_(3.0 if layer is distance.stem else 0.5)
        layer.bias.zero_()
    width = distance.stem.out_features
    for axis in range(3):
        for sign, row in ((1.0, 2 * axis), (-1.0, 2 * axis + 1)):
            distance.stem.weight[row, -3 + axis] = 8 * sign
            distance.hidden.weight[row % width, row] = 1.0
            distance.head.weight[0, row % width] = 1.0
    distance.head.bias.fill_(-9.0)


def make_weights(seed: int = 1) -> Any:
    """A weight file of the tiny codec."""
    from latentpress.train.export_shape import export_shape

    states = {name: network.state_dict() for name, network in build_networks(seed).items()}
    return export_shape(CONFIGS, states, PRICES)
