"""Whether a stream was made by a codec and its weights."""

from __future__ import annotations

from latentpress.codecs.bitstream import CodecId, Container, CorruptStream, CutContainer, UnknownModel


def check_origin(container: Container | CutContainer, codec_id: CodecId, fingerprint: bytes) -> None:
    """Refuses streams of other codecs and other weights.

    Args:
        container: The stream.
        codec_id: Of the codec.
        fingerprint: Of its weights.

    Raises:
        CorruptStream: The stream is another codec's.
        UnknownModel: It needs other weights.
    """
    if container.codec_id != codec_id:
        found, expected = container.codec_id.name.lower(), codec_id.name.lower()
        raise CorruptStream(f"this is a stream of the codec {found}, not {expected}")
    if container.fingerprint != fingerprint:
        raise UnknownModel(
            f"the stream needs the model {container.fingerprint.hex()}, this codec is {fingerprint.hex()}"
        )
