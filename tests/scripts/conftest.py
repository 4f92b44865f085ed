"""A codec for testing the command line: lossless or coarse pixels in a real container, and no weights."""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import latentpress
import latentpress.codecs
from latentpress.codecs.bitstream import (
    CodecId,
    CorruptStream,
    Limits,
    SectionType,
    UnknownModel,
    read_container,
    write_container,
)

FINGERPRINT = bytes(range(8))
METADATA = {"icc": SectionType.ICC, "exif": SectionType.EXIF, "xmp": SectionType.XMP}


@dataclass(frozen=True)
class Part:
    name: str
    bytes: int


@dataclass(frozen=True)
class StandinHeader:
    codec: str
    codec_id: int
    version: int
    fingerprint: str
    total_bytes: int
    overhead_bytes: int
    sections: tuple[Part, ...]
    parameters: Mapping[str, int | float | str]


@dataclass
class StandinCodec:
    """Quality 100 is lossless; each 10 less drops about one bit a sample."""

    calls: list[dict[str, object]] = field(default_factory=list)
    fingerprint: bytes = FINGERPRINT
    name: str = "image"

    def compress(
        self,
        x: torch.Tensor,
        *,
        quality: float = 50.0,
        progress: Callable[[float, str], None] | None = None,
        metadata: Mapping[str, bytes] | None = None,
        **options: object,
    ) -> bytes:
        self.calls.append({"quality": quality, "metadata": metadata, **options})
        step = 2 ** round((100 - quality) / 20)
        coarse = (x.to(torch.int32) // step * step + step // 2).clamp(0, 255).to(torch.uint8)
        head = json.dumps({"shape": list(x.shape), "quality": quality}).encode()
        payload = len(head).to_bytes(2, "little") + head + zlib.compress(coarse.numpy().tobytes())
        sections = [(METADATA[name], content) for name, content in (metadata or {}).items()]
        return write_container(CodecId.IMAGE, FINGERPRINT, [*sections, (SectionType.PAYLOAD, payload)])

    def decompress(
        self, data: bytes, limits: Limits | None = None, progress: Callable[[float, str], None] | None = None
    ) -> torch.Tensor:
        shape, _, body = parse(data)
        (limits or Limits()).check_pixels(shape[1], shape[2])
        return torch.frombuffer(bytearray(zlib.decompress(body)), dtype=torch.uint8).reshape(shape)

    def verify(self, data: bytes) -> None:
        try:
            zlib.decompress(parse(data)[2])
        except zlib.error as error:
            raise CorruptStream("symbols are damaged") from error


def parse(data: bytes) -> tuple[list[int], float, bytes]:
    container = read_container(data)
    if container.fingerprint != FINGERPRINT:
        raise UnknownModel(f"no weights with fingerprint {container.fingerprint.hex()}")
    size = int.from_bytes(container.payload[:2], "little")
    head = json.loads(container.payload[2 : 2 + size])
    return head["shape"], head["quality"], container.payload[2 + size :]


def inspect(data: bytes, limits: Limits | None = None) -> StandinHeader:
    container = read_container(data)
    (channels, height, width), quality, _ = parse(data)
    return StandinHeader(
        "image",
        int(container.codec_id),
        container.version,
        container.fingerprint.hex(),
        len(data),
        container.overhead,
        tuple(Part(SectionType(s.type).name.lower(), len(s.payload)) for s in container.sections),
        {"width": width, "height": height, "channels": channels, "quality": quality},
    )


def read_metadata(data: bytes) -> dict[str, bytes]:
    container = read_container(data)
    return {name: part for name, kind in METADATA.items() if (part := container.get(kind)) is not None}


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> StandinCodec:
    """Makes the library load the stand-in whatever is asked for, and returns it."""
    standin = StandinCodec()

    def load(name: str, device: str = "cpu") -> StandinCodec:
        if name != "image":
            raise ValueError(f"no weights named '{name}'")
        return standin

    monkeypatch.setitem(latentpress.__dict__, "load", load)
    monkeypatch.setitem(latentpress.__dict__, "inspect", inspect)
    monkeypatch.setitem(latentpress.codecs.__dict__, "read_metadata", read_metadata)
    return standin


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small colour picture of odd size, 37 wide and 23 high, with a different corner each."""
    path = tmp_path / "photo.png"
    Image.fromarray(gradient(23, 37)).save(path)
    return path


def gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 // (width - 1), y * 255 // (height - 1), (x * y) % 256]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.fixture
def small_index_weights(tmp_path):
    """A weight file of an index codec that was never trained."""
    from latentpress.models.index.model import build_index_model
    from latentpress.models.index.quantiser import unit_vectors
    from latentpress.train.export_index import export_index

    torch.manual_seed(0)
    small = {f"{part}_{width}_channels": 8 for part in ("encoder", "decoder", "prior")
             for width in ("fine", "medium", "coarse")}  # fmt: skip
    small |= {name.replace("channels", "depth"): 1 for name in small}
    model = build_index_model(codes=64, code_channels=4, condition_channels=4, **small)
    model.books.fill(unit_vectors(torch.randn(64, 4)), torch.ones(64), model.encoder.heads[0])
    path = tmp_path / "small.safetensors"
    path.write_bytes(export_index(model.config, model.state_dict()).to_bytes())
    return path
