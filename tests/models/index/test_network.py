"""Encoder, decoder and the networks made of them."""

import pytest
import torch

from latentpress.models.index.granularity import fractions_of_detail, patch_entropy, route
from latentpress.models.index.model import adopt_network, build_index_model
from latentpress.models.index.network import build_index_network
from latentpress.models.index.prior import GrainIndexes

TINY = {
    "codes": 64,
    "code_channels": 4,
    "encoder_fine_channels": 8,
    "encoder_medium_channels": 8,
    "encoder_coarse_channels": 8,
    "encoder_fine_depth": 1,
    "encoder_medium_depth": 1,
    "encoder_coarse_depth": 1,
    "decoder_fine_channels": 8,
    "decoder_medium_channels": 8,
    "decoder_coarse_channels": 8,
    "decoder_fine_depth": 1,
    "decoder_medium_depth": 1,
    "decoder_coarse_depth": 1,
    "condition_channels": 4,
}


def grains_at(image: torch.Tensor, detail: float):
    return route(patch_entropy(image), *fractions_of_detail(torch.full((len(image),), detail)))


@pytest.fixture
def picture() -> torch.Tensor:
    torch.manual_seed(3)
    return torch.rand(2, 48, 64, 3)


@pytest.mark.parametrize("detail", [0.0, 0.5, 1.0])
def test_usage_counts_the_indices_of_the_map(picture, detail) -> None:
    network = build_index_network(**TINY)
    grains = grains_at(picture, detail)
    output = network(picture, grains)
    assert output.image.shape == picture.shape
    expected = grains.coarse_mask().sum() + grains.medium_mask().sum() + grains.fine_mask().sum()
    assert int(output.usage.sum()) == int(expected)


def test_every_parameter_has_a_gradient(picture) -> None:
    network = build_index_network(**TINY)
    output = network(picture, grains_at(picture, 0.5))
    (output.image.square().mean() + output.codebook_error).backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert not missing


def test_codes_outside_the_map_do_not_matter(picture) -> None:
    torch.manual_seed(0)
    network = build_index_network(**TINY).eval()
    grains = grains_at(picture, 0.4)
    codes = network.quantise(picture).vectors()
    masks = (grains.coarse_mask(), grains.medium_mask(), grains.fine_mask())
    other = type(codes)(
        *(torch.where(m[..., None], c, torch.randn_like(c)) for m, c in zip(masks, codes, strict=True))
    )
    assert torch.equal(network.decoder(codes, grains), network.decoder(other, grains))
    changed = type(codes)(codes.coarse + 1, codes.medium, codes.fine)
    assert not torch.equal(network.decoder(codes, grains), network.decoder(changed, grains))


def test_a_picture_does_not_depend_on_its_batch(picture) -> None:
    torch.manual_seed(0)
    network = build_index_network(**TINY).eval()
    both = network(picture, grains_at(picture, 0.5)).image
    one = network(picture[1:], grains_at(picture[1:], 0.5)).image
    torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-5)


def test_a_model_with_the_full_book_is_the_network_it_came_from(picture) -> None:
    torch.manual_seed(0)
    network = build_index_network(**TINY).eval()
    model = build_index_model(8, 8, 8, 1, 1, 1, **TINY).eval()
    adopt_network(model, network)
    model.books.fill(network.quantiser.codebook(), torch.ones(64), network.encoder.heads[0])
    grains = grains_at(picture, 0.5)
    book = torch.tensor([model.books.full] * 2)
    with torch.no_grad():
        indexes = model.analyse(picture, book)
        torch.testing.assert_close(
            model.synthesise(indexes, grains, book), network(picture, grains).image, rtol=1e-4, atol=1e-5
        )


def test_smaller_books_are_coarser_pictures_of_the_same_shape(picture) -> None:
    model = build_index_model(8, 8, 8, 1, 1, 1, **TINY).eval()
    grains = grains_at(picture, 0.0)
    for number, entry in enumerate(model.books.books):
        book = torch.tensor([number] * 2)
        indexes: GrainIndexes = model.analyse(picture, book)
        assert int(indexes.coarse.max()) < entry.size
        assert model.synthesise(indexes, grains, book).shape == picture.shape
