"""Crops are exact pieces of the pictures, drawn as they should be."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import SequentialSampler

from latentpress.train.data.images import (
    CropStream,
    FolderCrops,
    ImageDataModule,
    ImagePool,
    WholeImages,
    find_images,
    read_rgb,
)


def coordinates(height: int, width: int, number: int) -> np.ndarray:
    """A picture whose pixels say where they are: (row, column, picture)."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows, columns, np.full_like(rows, number)], -1).astype(np.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def symmetries(piece: np.ndarray) -> list[np.ndarray]:
    """All eight flips and transpositions."""
    found = []
    for turned in (piece, piece.transpose(1, 0, 2)):
        found += [turned, turned[::-1], turned[:, ::-1], turned[::-1, ::-1]]
    return found


def test_crops_are_pieces_up_to_flips_and_transpositions() -> None:
    sizes = [(9, 7), (5, 12), (6, 6)]
    pictures = [coordinates(h, w, k) for k, (h, w) in enumerate(sizes)]
    pool = ImagePool("cpu", 5, scales=())
    for picture in pictures:
        pool.add(picture)
    crops = pool.finish().crops(4000, generator()).numpy()
    assert crops.shape == (4000, 5, 5, 3)
    assert crops.dtype == np.uint8
    seen: set[tuple[int, int, int, int]] = set()
    for crop in crops:
        top, left, number = crop.reshape(-1, 3).min(0).tolist()
        piece = pictures[number][top : top + 5, left : left + 5]
        assert piece.shape == (5, 5, 3)
        matches = [k for k, form in enumerate(symmetries(piece)) if np.array_equal(crop, form)]
        assert len(matches) == 1
        seen.add((number, top, left, matches[0]))
    # Every piece there is, in every form.
    pieces = sum((h - 4) * (w - 4) for h, w in sizes)
    assert len(seen) == 8 * pieces


def test_pictures_are_drawn_by_their_area_up_to_a_cap() -> None:
    pool = ImagePool("cpu", 4, scales=(), area_cap=200)
    for number, size in enumerate([(10, 10), (20, 30), (5, 10)]):
        pool.add(coordinates(*size, number))
    pool.finish()
    assert pool.weights.tolist() == [100, 200, 50]
    numbers = pool.crops(20000, generator())[:, 0, 0, 2]
    shares = torch.bincount(numbers.long()) / 20000
    assert shares.tolist() == pytest.approx([100 / 350, 200 / 350, 50 / 350], abs=0.015)


def test_same_generator_same_crops() -> None:
    pool = ImagePool("cpu", 4, scales=())
    pool.add(coordinates(20, 30, 0))
    pool.finish()
    assert torch.equal(pool.crops(8, generator(1)), pool.crops(8, generator(1)))
    assert not torch.equal(pool.crops(8, generator(1)), pool.crops(8, generator(2)))


def test_reduced_sizes() -> None:
    pool = ImagePool("cpu", 16, scales=(0.5, 0.25))
    pool.add(np.full((64, 70, 3), 77, np.uint8))
    pool.add(np.full((40, 33, 3), 77, np.uint8))
    pool.finish()
    # Of the second picture a quarter is smaller than a crop.
    assert list(zip(pool.heights.tolist(), pool.widths.tolist(), strict=True)) == [
        (64, 70),
        (32, 35),
        (16, 18),
        (40, 33),
        (20, 16),
    ]
    assert pool.offsets.tolist() == np.cumsum([0, 64 * 70, 32 * 35, 16 * 18, 40 * 33]).tolist()
    assert torch.equal(pool.pixels.unique(), torch.tensor([77], dtype=torch.uint8))


def test_order_of_the_sizes_does_not_matter() -> None:
    pool = ImagePool("cpu", 16, scales=(0.25, 0.5))
    pool.add(np.zeros((40, 40, 3), np.uint8))
    assert pool.finish().heights.tolist() == [40, 20]


def test_downscaling_keeps_slopes() -> None:
    ramp = np.repeat(np.arange(0, 128, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    pool = ImagePool("cpu", 16, scales=(0.5,))
    pool.add(ramp)
    half = pool.finish().pixels[64 * 128 :].view(32, 64, 3)[..., 0].float()
    expected = torch.arange(64) * 2 + 0.5
    assert float((half[:, 2:-2] - expected[2:-2]).abs().max()) <= 1


def test_augmentation_sees_every_batch_and_has_its_own_randomness() -> None:
    pool = ImagePool("cpu", 4, scales=())
    pool.add(coordinates(20, 30, 0))
    pool.finish()

    def marked(crops: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        return crops + torch.randint(100, 120, (len(crops), 1, 1, 1), generator=random, dtype=torch.uint8)

    plain, changed = CropStream(pool, 8, 1), CropStream(pool, 8, 1, marked)
    first = next(iter(plain)).image
    batches = iter(changed)
    found, second = next(batches).image, next(batches).image
    added = (found - first).flatten(1)
    assert bool((added == added[:, :1]).all())
    assert len(added[:, 0].unique()) > 1
    assert int(second[..., 2].min()) >= 100


def test_too_small_pictures() -> None:
    pool = ImagePool("cpu", 16)
    pool.add(np.zeros((15, 400, 3), np.uint8))
    with pytest.raises(ValueError, match="no picture is at least 16 pixels"):
        pool.finish()
    pool.add(np.zeros((16, 16, 3), np.uint8))
    assert pool.finish().crops(3, generator()).shape == (3, 16, 16, 3)


def test_stream_has_all_qualities_in_every_batch() -> None:
    pool = ImagePool("cpu", 4, scales=())
    pool.add(coordinates(20, 30, 0))
    stream = iter(CropStream(pool.finish(), 10, seed=5))
    first, second = next(stream), next(stream)
    for batch in (first, second):
        assert batch.image.shape == (10, 4, 4, 3)
        assert batch.quality.dtype == torch.float32
        assert (batch.quality // 10).tolist() == list(range(10))
    assert not torch.equal(first.image, second.image)
    again = next(iter(CropStream(pool, 10, seed=5)))
    assert torch.equal(again.image, first.image)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    Image.fromarray(coordinates(70, 90, 0)).save(tmp_path / "b.png")
    Image.fromarray(coordinates(100, 65, 1)).save(tmp_path / "below" / "A.PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_find_and_read(folder, tmp_path_factory) -> None:
    paths = find_images(folder)
    assert [p.name for p in paths] == ["b.png", "A.PNG"]
    assert np.array_equal(read_rgb(paths[0]), coordinates(70, 90, 0))
    Image.fromarray(np.full((4, 5), 9, np.uint8)).save(folder / "grey.png")
    assert read_rgb(folder / "grey.png").tolist() == [[[9] * 3] * 5] * 4
    with pytest.raises(FileNotFoundError, match=r"no picture .*\.png"):
        find_images(tmp_path_factory.mktemp("empty"))


def test_folder_crops(folder) -> None:
    torch.manual_seed(0)
    crops = FolderCrops(find_images(folder), 64)
    assert len(crops) == 2
    corners = set()
    for _ in range(200):
        image, quality = crops[0]
        top, left, number = image[0, 0].tolist()
        assert number == 0
        assert np.array_equal(image.numpy(), coordinates(70, 90, 0)[top : top + 64, left : left + 64])
        assert 0 <= float(quality) <= 100
        corners.add((top, left))
    assert {top for top, _ in corners} == set(range(7))
    assert {left for _, left in corners} == set(range(27))


def test_folder_crops_repeat_the_border_of_small_pictures(tmp_path) -> None:
    Image.fromarray(coordinates(20, 70, 0)).save(tmp_path / "small.png")
    image, _ = FolderCrops(find_images(tmp_path), 64)[0]
    assert image.shape == (64, 64, 3)
    assert image.dtype == torch.uint8
    assert image[:, 0, 0].tolist() == [min(row, 19) for row in range(64)]


def test_whole_images_are_cut_to_multiples_of_16(folder) -> None:
    images = WholeImages(find_images(folder))
    assert [tuple(images[k].shape) for k in range(2)] == [(64, 80, 3), (96, 64, 3)]
    assert np.array_equal(images[0].numpy(), coordinates(70, 90, 0)[:64, :80])


def attach(module: ImageDataModule, **state: object) -> ImageDataModule:
    """As a trainer would."""
    defaults = {"strategy": SimpleNamespace(root_device=torch.device("cpu")), "global_step": 0}
    module.trainer = SimpleNamespace(**(defaults | {"global_rank": 0, "world_size": 1} | state))
    return module


def test_data_module_resident(folder) -> None:
    module = attach(ImageDataModule(str(folder), str(folder), crop_size=64, batch_size=4, workers=1))
    batch = next(iter(module.train_dataloader()))
    assert batch.image.shape == (4, 64, 64, 3)
    assert batch.quality.shape == (4,)
    sizes = [tuple(image.shape) for image in module.val_dataloader()]
    assert sizes == [(64, 80, 3), (96, 64, 3)]
    assert isinstance(module.val_dataloader().sampler, SequentialSampler)


def test_resident_crops_differ_between_devices_and_after_a_resume(folder) -> None:
    module = ImageDataModule(str(folder), crop_size=64, batch_size=4, workers=1)
    batches = [
        next(iter(attach(module, **state).train_dataloader())).image
        for state in ({}, {"global_rank": 1}, {"global_step": 7})
    ]
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])
    assert module.val_dataloader() == []


@pytest.mark.parametrize("devices", [1, 3])
def test_data_module_from_files(folder, devices) -> None:
    module = ImageDataModule(str(folder), crop_size=64, batch_size=5, resident=False, workers=0)
    loader = attach(module, world_size=devices).train_dataloader()
    batches = list(loader)
    assert len(batches) >= 1
    # Every device gets at least one whole batch, though there are two pictures only.
    assert len(loader.dataset) // devices >= 5
    for batch in batches:
        assert batch.image.shape == (5, 64, 64, 3)
        assert batch.quality.shape == (5,)


def test_crop_size_must_fit_the_network(folder) -> None:
    with pytest.raises(ValueError, match="multiple of 64, got 100"):
        ImageDataModule(str(folder), crop_size=100)
