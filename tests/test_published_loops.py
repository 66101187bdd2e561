"""The link of Sionna's tutorial of iterative detection and decoding, with our detectors.

`test_published.py` holds its published block error rates.
"""

import numpy as np
import pytest

from simulations.idd_link import OURS, spread, tutorial_link
from simulations.published import published_files


def test_the_file_has_the_receivers_that_are_held():
    receivers = published_files()["sionna-idd-16x4"]["receivers"]
    assert set(receivers) == set(OURS)
    for points in receivers.values():
        assert [p["ebno_db"] for p in points] == [-7.0, -6.0]


def test_codewords_that_fail_together_count_less():
    assert spread(np.array([0, 4, 0, 4] * 50)) == pytest.approx(4.0, rel=0.01)
    assert spread(np.array([1, 3, 2, 2] * 50)) == 1.0 == spread(np.zeros(8, int))


def test_further_passes_mend_codewords():
    found = tutorial_link("mmse").count(-7.0, 1, 16)
    one, two, three = (found["mmse", passes].sum() for passes in (1, 2, 3))
    assert found["mmse", 1].shape == (16,) and 5 < one < 45
    assert three <= two < one / 2
