"""Weight files: safetensors with the network's configuration, and the fingerprint that streams carry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentpress.codecs.bitstream import FINGERPRINT_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

# numpy and safetensors are imported where arrays are: reading the header of a stream asks for names only.

FORMAT = "latentpress-weights-1"
"""Names the arithmetic as well: networks that compute otherwise from the same numbers need another format."""

ADDITION = "addition."
"""Begins the names of arrays that weights got later, and that streams made before do without."""

APPEARANCE = "appearance."
"""Begins the names of arrays that change how decoded pictures look and nothing that is in a stream."""

SHARED = "shared"
"""Entry of a weight file that has some of its arrays in another, see `latentpress.codecs.shared_weights`."""

_NUMPY_TYPES = {"BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "F16", "F32", "F64"}


@dataclass(frozen=True)
class WeightFile:
    """The content of a weight file.

    Attributes:
        family: Codec family, such as ``image``.
        config: Arguments that build the network.
        tensors: Arrays by name: transforms in float16 or float32, entropy networks and tables in integers.
    """

    family: str
    config: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]

    def fingerprint(self) -> bytes:
        """First 8 bytes of the SHA-256 over format, family, configuration and all arrays of the model.

        Additions and appearance are left out. So it stays what it was when weights get some, and with it all
        streams that need none.
        """
        return self._digest(name for name in self.tensors if not name.startswith((ADDITION, APPEARANCE)))

    def extended_fingerprint(self) -> bytes:
        """The same with additions, for streams that need them; equal if there are none.

        No stream needs the appearance, so that is in neither.
        """
        return self._digest(name for name in self.tensors if not name.startswith(APPEARANCE))

    def added(self) -> dict[str, NDArray[Any]]:
        """The additions, by their names without the prefix."""
        return {k.removeprefix(ADDITION): v for k, v in self.tensors.items() if k.startswith(ADDITION)}

    def appearance(self) -> dict[str, NDArray[Any]]:
        """The arrays of the appearance, by their names without the prefix."""
        return {k.removeprefix(APPEARANCE): v for k, v in self.tensors.items() if k.startswith(APPEARANCE)}

    def _digest(self, names: Iterable[str]) -> bytes:
        import numpy as np

        described = json.dumps([FORMAT, self.family, self.config], sort_keys=True)
        digest = hashlib.sha256(described.encode())
        for name in sorted(names):
            array = np.ascontiguousarray(self.tensors[name])
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{name}:{little.dtype.str}:{little.shape};".encode())
            digest.update(little.tobytes())
        return digest.digest()[:FINGERPRINT_BYTES]

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        import numpy as np
        from safetensors.numpy import save

        return save({k: np.ascontiguousarray(v) for k, v in self.tensors.items()}, self.metadata())

    def metadata(self) -> dict[str, str]:
        """What a file says beside the arrays."""
        config = json.dumps(self.config, sort_keys=True)
        return {"format": FORMAT, "family": self.family, "config": config}


def read_weight_file(path: str | Path, shared: bool = True) -> WeightFile:
    """Reads a weight file.

    Args:
        path: The file.
        shared: Whether it may have some of its arrays in another file, which is read as well.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a weight file of this library.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            # Whether numpy has bfloat16 depends on what else was imported; here it never has.
            kinds = {file.get_slice(name).get_dtype() for name in names}
            if not kinds <= _NUMPY_TYPES:
                raise ValueError(
                    f"{path} holds numbers that numpy does not have: {', '.join(kinds - _NUMPY_TYPES)}"
                )
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is not a weight file of latentpress (format {metadata.get('format')!r})")
    try:
        family, config = metadata["family"], json.loads(metadata["config"])
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not say which network it belongs to: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} does not say which network it belongs to: its config is no object")
    found = WeightFile(family, config, tensors)
    if SHARED not in metadata:
        return found
    if not shared:
        raise ValueError(f"{path} has arrays in a third file")
    from latentpress.codecs.shared_weights import with_shared

    try:
        return with_shared(found, metadata[SHARED], path.parent)
    except ValueError as error:
        raise ValueError(f"{path} is incomplete: {error}") from error


def shipped_weights() -> dict[str, Path]:
    """Paths of the weight files that come with the library, by name, in alphabetical order."""
    folder = Path(str(resources.files("latentpress.assets"))) / "weights"
    # By names, not by paths: a hyphen comes before the dot of a suffix.
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.stem)}
