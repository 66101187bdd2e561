"""The scenario of Sionna's tutorial of iterative detection and decoding.

`test_published.py` holds its published block error rates.
"""

import numpy as np
import pytest
import tensorflow as tf
from sionna.phy.utils import ebnodb2no

from linksim.link.link import Link
from linksim.link.scenario import load_scenario


def test_the_scenario_is_the_link_of_the_tutorial():
    link = Link(load_scenario("rayleigh-16x4-qam16-idd"))
    assert (link.blocks_per_slot, link.num_uses) == (4, 12 * 48)
    assert link.code.num_coded_bits == 4 * 2304 and link.num_info_bits == 4 * 1152
    assert link.no(-7.0) == pytest.approx(float(ebnodb2no(-7.0, 4, 0.5)))
    batch = link.draw(link.keys(0, -7.0, 0), tf.constant(0.1), 0, 2)
    h = batch.h.numpy()
    # One channel for all uses of a slot, with the same energy from each user
    np.testing.assert_array_equal(h, np.broadcast_to(h[:, :1], h.shape))
    np.testing.assert_allclose((np.abs(h) ** 2).sum(2), 16.0, rtol=1e-5)
