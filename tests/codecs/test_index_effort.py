"""An encoder that measures what finer indices do, and weights with a pattern and a lattice to take away."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs import index_refinement
from latentpress.codecs.bitstream import DEFAULT_LIMITS
from latentpress.codecs.index import TEXTURE_PATTERN, IndexCodec
from latentpress.codecs.index_refinement import MARGIN, TILE, IndexRefinement, areas_of
from latentpress.codecs.weights import ADDITION, APPEARANCE
from latentpress.models.index.granularity import CELL, QUARTER, uniform_maps
from latentpress.models.wasserstein import wasserstein_distortion
from latentpress.scripts.index_lattice import prominences
from latentpress.train.index_lattice import lattice_directions, with_lattice
from latentpress.train.index_texture import common_pattern, with_pattern


@pytest.mark.parametrize("effort", [1, 2])
@pytest.mark.parametrize("packets", [1, 3])
def test_a_target_is_met_with_effort_too(tiny_index_codec, picture, packets, effort) -> None:
    x = picture(96, 80)
    data = tiny_index_codec.compress(x, target_bytes=400, packets=packets, effort=effort)
    assert 250 < len(data) <= 400
    assert tiny_index_codec.decompress(data).shape == x.shape


def test_shares_of_the_area_are_kept(tiny_index_codec, picture) -> None:
    data = tiny_index_codec.compress(picture(64, 64), granularity=(0.5, 0.25, 0.25), effort=4)
    grains = tiny_index_codec._receive(data, DEFAULT_LIMITS).grains
    cells = (64 // CELL) ** 2
    assert int(grains.split.sum()) == cells // 2
    assert int(grains.fine.sum()) == cells


def test_small_books_need_no_effort(tiny_index_codec, picture) -> None:
    x = picture(48, 48)
    streams = [tiny_index_codec.compress(x, quality=5, effort=effort) for effort in (0, 1)]
    assert streams[0] == streams[1]


@pytest.mark.parametrize(("effort", "error"), [(-1, ValueError), (11, ValueError), (0.5, TypeError)])
def test_what_is_no_effort_is_refused(tiny_index_codec, picture, effort, error) -> None:
    with pytest.raises(error, match="effort"):
        tiny_index_codec.compress(picture(16, 16), effort=effort)


def test_shipped_weights_put_detail_where_it_helps() -> None:
    from skimage import data

    from latentpress import load

    codec = load("index")
    image = torch.from_numpy(data.astronaut()[:256, 128:384].copy()).permute(2, 0, 1)
    distortions = []
    for effort in (0, 1):
        found = codec.decompress(codec.compress(image, target_bpp=0.15, effort=effort))
        x, y = (part[None].float() / 255 for part in (image, found))
        distortions.append(float(wasserstein_distortion(x, y)))
    assert distortions[1] < 0.9 * distortions[0]


def test_shipped_weights_get_nearer_with_refined_indices() -> None:
    from skimage import data

    from latentpress import load

    codec = load("index")
    image = torch.from_numpy(data.astronaut()[64:192, 160:288].copy()).permute(2, 0, 1)
    distortions = []
    for effort in (1, 3):
        stream = codec.compress(image, target_bpp=0.2, effort=effort)
        assert len(stream) <= 0.2 * 128 * 128 / 8
        # A codec that knows nothing of the effort.
        x, y = (part[None].float() / 255 for part in (image, load("index").decompress(stream)))
        distortions.append(float(wasserstein_distortion(x, y)))
    assert distortions[1] < 0.85 * distortions[0]


def test_refined_indices_are_better_and_only_where_the_map_has_them(tiny_index_codec, picture) -> None:
    model = tiny_index_codec.model
    image = picture(64, 64).permute(1, 2, 0)[None].float() / 255
    features = model.encoder.features(image)
    coarse, _medium, fine = uniform_maps(4, 4, image.device)
    for grains, changed in ((coarse, 0), (fine, 2)):
        refinement = IndexRefinement(model, lambda x, _: x, image, model.books.full, features)
        before = refinement.indexes
        assert torch.equal(before.medium, model.finer_indexes(features)[0])
        refinement.run(grains, 8, lambda _: None)
        same = [torch.equal(a, b) for a, b in zip(before, refinement.indexes, strict=True)]
        assert same == [number != changed for number in range(3)]
        book = torch.tensor([model.books.full])
        target = image.permute(0, 3, 1, 2)
        found = [
            float(
                wasserstein_distortion(
                    target, model.synthesise(x, grains, book).clamp(0, 1).permute(0, 3, 1, 2)
                )
            )
            for x in (before, refinement.indexes)
        ]
        assert found[1] < found[0]


@given(st.integers(1, 150), st.integers(1, 150))
def test_areas_are_a_partition(rows: int, columns: int) -> None:
    seen = torch.zeros(rows, columns, dtype=torch.int32)
    for area in areas_of(rows, columns):
        seen[area.inner_rows, area.inner_columns] += 1
        for outer, inner, size in (
            (area.rows, area.inner_rows, rows),
            (area.columns, area.inner_columns, columns),
        ):
            assert outer.start == max(0, inner.start - MARGIN)
            assert outer.stop == min(size, inner.stop + MARGIN)
            assert inner.stop - inner.start <= TILE
    assert bool((seen == 1).all())


def test_pictures_of_several_areas(tiny_index_codec, picture, monkeypatch) -> None:
    monkeypatch.setattr(index_refinement, "TILE", 3)
    x = picture(80, 112)
    data = tiny_index_codec.compress(x, quality=80, effort=2)
    assert data != tiny_index_codec.compress(x, quality=80, effort=1)
    assert tiny_index_codec.decompress(data).shape == x.shape


def test_progress_of_a_refinement_rises_and_can_end_it(tiny_index_codec, picture) -> None:
    seen: list[tuple[float, str]] = []

    def stop(fraction: float, stage: str) -> None:
        seen.append((fraction, stage))
        if [name for _, name in seen].count("refining") == 9:
            raise KeyboardInterrupt

    tiny_index_codec.compress(picture(48, 48), effort=2, progress=lambda *step: seen.append(step))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert any(stage == "refining" for _, stage in seen)
    assert fractions[-1] == 1
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        tiny_index_codec.compress(picture(48, 48), effort=10, progress=stop)


def test_a_pattern_is_an_addition(tiny_index_weights, tiny_index_codec, picture) -> None:
    """Streams and fingerprint stay, coarse cells change and finer ones do not."""
    pictures = [picture(64, 64).permute(1, 2, 0), picture(48, 96).permute(1, 2, 0)]
    found = common_pattern(tiny_index_codec.model, pictures)
    assert found.decoded > found.true
    weights = with_pattern(tiny_index_weights, found.pattern)
    assert ADDITION + TEXTURE_PATTERN in weights.tensors
    codec = IndexCodec(weights)
    assert codec.fingerprint == tiny_index_codec.fingerprint
    x = picture(64, 64)
    for quality, same in ((14, False), (100, True)):
        data = codec.compress(x, quality=quality)
        assert data == tiny_index_codec.compress(x, quality=quality)
        assert torch.equal(codec.decompress(data), tiny_index_codec.decompress(data)) == same


def test_a_lattice_is_part_of_the_appearance(tiny_residual_weights, picture) -> None:
    """Streams and both fingerprints stay, medium quarters change and fine ones do not."""
    plain = IndexCodec(tiny_residual_weights)
    found = lattice_directions(plain, [picture(128, 160).permute(1, 2, 0) for _ in range(3)])
    weights = with_lattice(tiny_residual_weights, found)
    codec = IndexCodec(weights)
    assert codec.lattice is not None
    assert codec.fingerprint == plain.fingerprint
    assert codec.extended_fingerprint == plain.extended_fingerprint
    x = picture(64, 64)
    for options, same in (
        ({"quality": 14}, False),
        ({"granularity": (0.0, 1.0, 0.0)}, False),
        ({"quality": 90}, True),
        ({"quality": 100}, True),
    ):
        data = codec.compress(x, **options)
        assert data == plain.compress(x, **options)
        assert torch.equal(codec.decompress(data), plain.decompress(data)) == same
    assert with_lattice(weights, None).tensors.keys() == tiny_residual_weights.tensors.keys()


def test_half_a_lattice_is_refused(tiny_index_weights) -> None:
    tensors = {**tiny_index_weights.tensors, f"{APPEARANCE}lattice.medium": np.zeros((0, 192), np.float16)}
    with pytest.raises(ValueError, match=r"lattice\.coarse"):
        IndexCodec(dataclasses.replace(tiny_index_weights, tensors=tensors))


def test_shipped_weights_have_a_fainter_lattice() -> None:
    """Less than half of the prominence that it has without the directions."""
    from skimage import data

    from latentpress import load

    codec = load("index")
    image = torch.from_numpy(data.astronaut()[:256, 128:384].copy()).permute(2, 0, 1)
    stream = codec.compress(image, granularity=(0.0, 1.0, 0.0))
    everywhere = torch.ones(32, 32).bool()

    def prominence(picture: torch.Tensor) -> float:
        return float(prominences(picture.float(), everywhere, QUARTER).mean().exp())

    after = prominence(codec.decompress(stream))
    codec.lattice = None
    assert after < 0.5 * prominence(codec.decompress(stream))
