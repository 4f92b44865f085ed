"""Limits: counted in exact integers, checked before anything is allocated."""

import numpy as np
import pytest

from latentpress.codecs.bitstream import LimitExceeded, Limits

CHECKS = {
    "max_pixels": lambda limits, size: limits.check_pixels(size, 1),
    "max_voxels": lambda limits, size: limits.check_voxels((1, size, 1)),
    "max_vertices": lambda limits, size: limits.check_vertices(size),
    "max_faces": lambda limits, size: limits.check_faces(size),
    "max_sections": lambda limits, size: limits.check_sections(size),
    "max_section_bytes": lambda limits, size: limits.check_section_bytes(size),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_limit_itself_passes_and_one_more_does_not(name):
    limits = Limits(**{name: 1000})
    assert CHECKS[name](limits, 1000) == 1000
    with pytest.raises(LimitExceeded, match=f"1001 .* 1000 \\({name}\\)"):
        CHECKS[name](limits, 1001)


def test_fixed_width_sizes_do_not_wrap_around():
    limits = Limits()
    with pytest.raises(LimitExceeded):
        limits.check_pixels(np.uint32(2**31), np.uint32(2))
    with pytest.raises(LimitExceeded):
        limits.check_voxels(np.array([2**40, 2**40], np.int64))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="negative"):
        Limits().check_pixels(-1, -1)
    with pytest.raises(TypeError):
        Limits().check_pixels(1.5, 2)
    with pytest.raises(TypeError, match="max_pixels must be an int, got float"):
        Limits(max_pixels=1e9)
    with pytest.raises(ValueError, match="max_faces"):
        Limits(max_faces=-1)
