"""Published symbol error rates of MMSE and AMP: i.i.d., 16-QAM, 64 antennas."""

import pytest

from linksim.link.scenario import load_scenario
from linksim.montecarlo.engine import simulate

# {(K, SNR in dB): (SER of MMSE, SER of AMP)}, [Pratik21], Fig. 7
PUBLISHED = {
    (16, 9.0): (0.0436, 0.0246),
    (16, 11.0): (0.00973, 0.00356),
    (16, 13.0): (0.00105, 3.7e-4),
    (32, 11.0): (0.1506, 0.0813),
    (32, 13.0): (0.0643, 0.0143),
    (32, 15.0): (0.0182, 0.0015),
}


def rates(num_streams, snr_db, detectors, max_blocks):
    results = simulate(
        load_scenario(f"massive-64x{num_streams}-qam16"),
        detectors,
        snr_db=snr_db,
        target_block_errors=10**6,
        max_blocks=max_blocks,
    )
    return {r["detector"]: r for r in results["records"]}


@pytest.mark.parametrize("num_streams, snr_db", [(16, 9.0), (32, 11.0), (32, 13.0)])
def test_published_mmse(num_streams, snr_db):
    """`mmse-biased`, with half of the noise, has the published SER; `mmse` is better."""
    got = rates(num_streams, snr_db, ["mmse-biased", "mmse"], 3000)
    published = PUBLISHED[num_streams, snr_db][0]
    record = got["mmse-biased"]
    # Two intervals, because the published value has a sampling error too
    margin = record["ser_high"] - record["ser_low"]
    assert record["ser"] == pytest.approx(published, abs=margin)
    assert got["mmse"]["ser"] < record["ser"]  # on the same draws


@pytest.mark.slow
@pytest.mark.parametrize("num_streams, snr_db", PUBLISHED)
def test_published_mmse_and_amp(num_streams, snr_db):
    """AMP is as good as published or better: scaling each channel lowers its SER by up to
    20 %."""
    got = rates(num_streams, snr_db, ["mmse-biased", "amp"], 40000)
    mmse, amp = PUBLISHED[num_streams, snr_db]
    record = got["mmse-biased"]
    # Two intervals, because the published value has a sampling error too
    margin = record["ser_high"] - record["ser_low"]
    assert record["ser"] == pytest.approx(mmse, abs=margin)
    assert 0.75 * amp < got["amp"]["ser_high"] and got["amp"]["ser_low"] < amp
