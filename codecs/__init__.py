"""How data becomes bytes and back: the codecs and the bitstream they share."""
