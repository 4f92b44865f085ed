"""Tables fitted to what is really coded."""

import math

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream import SymbolEncoder, gaussian_tables
from latentpress.codecs.card import ModelCard, read_card
from latentpress.codecs.image import ImageCodec
from latentpress.codecs.latent_coder import Observation
from latentpress.codecs.registry import load
from latentpress.codecs.symbol_coders import SYMBOL_LIMIT
from latentpress.codecs.weights import read_weight_file
from latentpress.models.entropy.gaussian import SCALE_COUNT, scale_table
from latentpress.train import fit_tables as module
from latentpress.train.data.images import find_images, read_rgb
from latentpress.train.export import export_image
from latentpress.train.fit_tables import (
    SymbolCounts,
    blended_tables,
    count_symbols,
    fit_tables,
    fit_with_report,
    tables_of,
    with_tables,
)

GAUSSIAN = gaussian_tables(scale_table().numpy())


def observation(symbols, indexes) -> Observation:
    symbols = np.asarray(symbols, np.int32)
    indexes = np.broadcast_to(np.asarray(indexes, np.uint8), symbols.shape).copy()
    return Observation(symbols, indexes, torch.zeros(symbols.shape))


def counted(symbols, indexes) -> SymbolCounts:
    counts = SymbolCounts()
    counts.add(observation(symbols, indexes))
    return counts


def laplacian(count: int, index: int, seed: int) -> np.ndarray:
    """Symbols that are more peaked than the Gaussian of their table, with heavier tails."""
    scale = float(scale_table()[index])
    return np.round(np.random.default_rng(seed).laplace(0, scale / math.sqrt(2), count)).astype(np.int32)


def test_counts() -> None:
    counts = counted([0, 3, -3, 3, SYMBOL_LIMIT, -SYMBOL_LIMIT], [5, 5, 5, 5, 63, 63])
    counts.add(observation([3], 5))
    assert counts.total == 7
    assert counts.counts[5, SYMBOL_LIMIT + 3] == 3
    assert counts.counts[5, SYMBOL_LIMIT - 3] == 1
    assert counts.counts[63, [0, -1]].tolist() == [1, 1]
    both = counts + counts
    assert both.total == 14
    assert counts.total == 7


def test_bits_are_what_the_coder_writes() -> None:
    rng = np.random.default_rng(0)
    indexes = rng.integers(0, SCALE_COUNT, 30000).astype(np.uint8)
    symbols = np.round(rng.laplace(0, 1, 30000) * scale_table().numpy()[indexes] * 1.5).astype(np.int32)
    symbols[:40] *= 400  # far outside
    symbols = symbols.clip(-SYMBOL_LIMIT, SYMBOL_LIMIT)
    for tables in (GAUSSIAN, blended_tables(counted(symbols, indexes), 100)):
        encoder = SymbolEncoder()
        encoder.put(symbols, indexes, tables)
        assert counted(symbols, indexes).bits(tables) == pytest.approx(8 * len(encoder.finish()), abs=96)


def test_nothing_counted_leaves_the_gaussians() -> None:
    assert blended_tables(SymbolCounts(), 300) == GAUSSIAN


def test_strong_prior_is_hardly_moved() -> None:
    fitted = blended_tables(counted(laplacian(1000, 20, 0), 20), 1e12)
    support = GAUSSIAN.support(20)
    inside = fitted.table(20)[support.start - fitted.support(20).start :][: len(support)]
    np.testing.assert_allclose(inside, GAUSSIAN.table(20)[:-1], atol=64)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_prior_weight_must_be_positive(weight) -> None:
    with pytest.raises(ValueError, match="prior_weight must be positive"):
        blended_tables(SymbolCounts(), weight)


def test_tables_are_symmetric_and_wide_enough() -> None:
    counts = SymbolCounts()
    for index in range(0, SCALE_COUNT, 3):
        counts.add(observation(laplacian(2000, index, index), index))
    fitted = blended_tables(counts, 50)
    assert len(fitted) == SCALE_COUNT
    for index in range(SCALE_COUNT):
        support, least = fitted.support(index), GAUSSIAN.support(index)
        assert support.start <= least.start
        assert support.stop >= least.stop
        assert support.start == -(support.stop - 1)
        table = fitted.table(index)[:-1].astype(np.int64)
        # The last unit of a remainder can go to one side only.
        assert int(np.abs(table - table[::-1]).max()) <= 1
        beyond = table[len(table) // 2 - least.start :]
        assert bool((np.diff(beyond) <= 1).all())


def test_support_grows_to_what_is_seen_again_and_not_to_a_single_symbol() -> None:
    counts = counted([9, -9, 500, 0, 0, 0], 10)
    fitted = blended_tables(counts, 10)
    assert fitted.support(10) == range(-9, 10)
    assert fitted.table(10)[-1] > 2**24 / 50  # the escape has the single symbol
    assert 0 < counts.bits(fitted) < counts.bits(GAUSSIAN)


def test_fitted_tables_save_on_what_they_have_not_seen() -> None:
    index = 30
    fitted = blended_tables(counted(laplacian(20000, index, 0), index), 300)
    unseen = counted(laplacian(20000, index, 1), index)
    assert unseen.bits(fitted) < 0.995 * unseen.bits(GAUSSIAN)


def test_prior_helps_when_there_is_little_data() -> None:
    few = counted(laplacian(60, 40, 0), 40)
    unseen = counted(laplacian(20000, 40, 1), 40)
    assert unseen.bits(blended_tables(few, 300)) < unseen.bits(blended_tables(few, 0.1))


@pytest.fixture
def weights(tiny_config, tiny_state):
    return export_image(tiny_config, tiny_state)


@pytest.fixture
def pictures(photographs) -> list[torch.Tensor]:
    return [torch.from_numpy(read_rgb(p).copy()).permute(2, 0, 1) for p in find_images(photographs)]


def test_every_symbol_of_a_picture_is_counted(weights, pictures) -> None:
    counts = count_symbols(ImageCodec(weights), pictures, [20, 80])
    positions = [(p.shape[1] + 15) // 16 * ((p.shape[2] + 15) // 16) for p in pictures]
    coarse = [(p.shape[1] + 63) // 64 * ((p.shape[2] + 63) // 64) for p in pictures]
    assert counts.total == 2 * (8 * sum(positions) + 4 * sum(coarse))


def test_fit_of_a_codec(weights, pictures) -> None:
    codec = ImageCodec(weights)
    tables = fit_tables(codec, pictures, [0, 50, 100], prior_weight=20)
    counts = count_symbols(codec, pictures, [0, 50, 100])
    assert tables == blended_tables(counts, 20)
    assert counts.bits(tables) < counts.bits(tables_of(weights))
    fitted = with_tables(weights, tables)
    assert tables_of(fitted) == tables
    assert fitted.fingerprint() != weights.fingerprint()
    assert with_tables(fitted, tables_of(weights)).fingerprint() == weights.fingerprint()
    again = ImageCodec(fitted)
    data = again.compress(pictures[0], quality=40)
    assert again.decompress(data).shape == pictures[0].shape
    again.verify(data)


def test_report(weights, pictures) -> None:
    codec, current = ImageCodec(weights), tables_of(weights)
    done: list[int] = []
    many = [pictures[k % 2].roll(7 * k, 2) for k in range(10)]
    tables, report = fit_with_report(codec, current, iter(many), [30, 90], progress=done.append)
    assert done == list(range(1, 11))
    assert (report.pictures, report.held_out) == (10, 2)
    assert report.prior_weight in module.PRIOR_WEIGHTS
    counts = count_symbols(codec, many, [30, 90])
    assert report.symbols == counts.total
    assert report.saving == pytest.approx(100 * (1 - counts.bits(tables) / counts.bits(current)))
    assert report.saving > 0
    kept = count_symbols(codec, many[4::5], [30, 90])
    others = count_symbols(codec, [p for k, p in enumerate(many) if k % 5 != 4], [30, 90])
    held_out = kept.bits(blended_tables(others, report.prior_weight)) / kept.bits(current)
    assert report.held_out_saving == pytest.approx(100 * (1 - held_out))
    assert "10 pictures" in str(report)


def test_report_without_pictures_to_hold_out(weights, pictures) -> None:
    _, report = fit_with_report(ImageCodec(weights), tables_of(weights), pictures, [50], (123.0,))
    assert report.held_out == 0
    assert report.prior_weight == 123
    assert math.isnan(report.held_out_saving)
    with pytest.raises(ValueError, match="no pictures"):
        fit_with_report(ImageCodec(weights), tables_of(weights), [])


def test_command_line(weights, photographs, tmp_path, capsys) -> None:
    source, out = tmp_path / "tiny.safetensors", tmp_path / "fitted.safetensors"
    source.write_bytes(weights.to_bytes())
    arguments = ["--weights", str(source), "--data", str(photographs), "--out", str(out)]
    module.main([*arguments, "--qualities", "0", "50", "--limit", "1", "--prior-weight", "50"])
    assert "prior weight 50" in capsys.readouterr().out
    fitted = read_weight_file(out)
    assert load(out).fingerprint == fitted.fingerprint() != weights.fingerprint()
    assert not out.with_suffix(".json").exists()

    card = ModelCard(
        "tiny", "image", weights.config, weights.fingerprint().hex(), 1, 1, "", "", "", "", (1, 2)
    )
    source.with_suffix(".json").write_text(card.to_json())
    module.main([*arguments, "--qualities", "50"])
    assert read_card(out).fingerprint == read_weight_file(out).fingerprint().hex()
    assert read_card(out).bytes == out.stat().st_size
    assert read_card(out).name == "fitted"
    with pytest.raises(SystemExit):
        module.main([*arguments[:3], str(tmp_path / "nowhere"), *arguments[4:]])
