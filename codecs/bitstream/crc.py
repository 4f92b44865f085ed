"""CRC32C (Castagnoli) through one library, `google-crc32c`.

Chosen over the alternatives because it is Apache-2.0 licensed (the package named `crc32c` is LGPL), has
wheels for Linux on x86-64 and ARM, macOS and Windows, uses the processor's CRC instruction, falls back to
Python where no wheel fits, and is what zarr-python 3 depends on already.
"""

from __future__ import annotations

import google_crc32c


def crc32c(*chunks: bytes, start: int = 0) -> int:
    """CRC32C of the concatenation of `chunks`, without concatenating them.

    Args:
        *chunks: byte strings, any number, each of any length.
        start: the checksum of what came before.

    Returns:
        The checksum, an integer in [0, 2**32); 0 for no bytes.

    Example:
        >>> hex(crc32c(b"1234", b"56789"))
        '0xe3069283'
    """
    checksum = start
    for chunk in chunks:
        checksum = int(google_crc32c.extend(checksum, chunk))
    return checksum
