"""Words of the range coder with fewer bytes, for payloads so short that two bytes count."""

from __future__ import annotations

import numpy as np

from latentpress.codecs.bitstream import CorruptStream

_WORD = 4


def packed_words(words: bytes) -> bytes:
    """Words with their most significant byte first, the last without its zero bytes: about two fewer.

    Of a last word that is zero one byte stays, so that the number of words can be told.
    """
    data = np.frombuffer(words, "<u4").astype(">u4").tobytes()
    while data.endswith(b"\0") and len(data) % _WORD != 1:
        data = data[:-1]
    return data


def unpacked_words(data: bytes) -> bytes:
    """The words again.

    Raises:
        CorruptStream: A zero byte was not left out.
    """
    if data.endswith(b"\0") and len(data) % _WORD != 1:
        raise CorruptStream("the coded symbols end with a zero byte")
    padded = data + bytes(-len(data) % _WORD)
    return np.frombuffer(padded, ">u4").astype("<u4").tobytes()
