"""Tests of recorder.py."""

import numpy as np

from atari import recorder


def test_a_path_in_a_few_characters():
    geopath = np.array([[1, 0, 1, 1], [0, 0, 0, 1]])
    assert recorder.active_modules(geopath) == "023 3"
    wide = np.zeros([2, 12])
    wide[0, [1, 11]] = wide[1, 10] = 1
    assert recorder.active_modules(wide) == "1,11 10"
