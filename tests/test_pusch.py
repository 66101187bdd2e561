"""5G PUSCH links against Sionna's transmitter, estimator, receiver and transport blocks."""

import copy
import functools
import io
import itertools
import re

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from sionna.phy.nr import (
    PUSCHLSChannelEstimator,
    PUSCHReceiver,
    PUSCHTransmitter,
    TBEncoder,
)

from linksim.errors import InvalidInput, ResultFileError
from linksim.files import save_json
from linksim.link.link import Link
from linksim.link.pusch import configs_of
from linksim.link.pusch_config import pusch_configs
from linksim.link.receiver import create_receiver
from linksim.link.scenario import Pusch, load_scenario, scenario_from_dict
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.output import rate_tables, write_results
from linksim.montecarlo.replay import replay_block
from linksim.report.cells import point_cells
from linksim.report.page import build_page
from linksim.report.runs import read_runs

NO = 0.01
BASE = load_scenario("pusch-cdl-c-4x2-mcs14").replace(
    csi={"type": "perfect"}, code={"cn_update": "boxplus-phi"}, run={"batch_size": 6}
)
# {name: (changes of [pusch], users, layers in all, further changes)}
SLOTS = {
    "two users": ({"num_prbs": 2}, 2, 2),
    "type 2, two layers each": (
        {"num_prbs": 2, "dmrs_type": 2, "num_layers": 2, "dmrs_additional_positions": 2},
        2,
        4,
    ),
    "double DMRS, ports of one group": (
        {"num_prbs": 1, "dmrs_length": 2, "num_cdm_groups_without_data": 1, "num_layers": 2},
        2,
        4,
    ),
    "short slot with data beside DMRS": (
        {
            "num_prbs": 3,
            "mapping_type": "B",
            "symbol_allocation": [2, 7],
            "num_cdm_groups_without_data": 1,
            "dmrs_additional_positions": 3,
        },
        1,
        1,
    ),
    "codebook": (
        {
            "num_prbs": 2,
            "precoding": "codebook",
            "num_antenna_ports": 4,
            "num_layers": 2,
            "tpmi": 14,
        },
        1,
        2,
    ),
    "other ports, 64-QAM": (
        {"num_prbs": 2, "mcs_index": 19, "dmrs_ports": [3, 0], "dmrs_type_a_position": 3},
        2,
        2,
    ),
}


@functools.cache
def link_of(name, csi="perfect"):
    pusch, users, streams = SLOTS[name]
    bits = 6 if pusch.get("mcs_index", 14) == 19 else 4
    return Link(
        BASE.replace(
            pusch=pusch,
            channel={"num_users": users},
            system={"num_streams": streams, "num_bits_per_symbol": bits},
            csi={"type": csi},
        )
    )


@functools.cache
def slot_of(name):
    """Bits, symbols, channels [B, T, F, M, antennas] and noisy grid [B, T, F, M] of a link,
    with the grid that Sionna's transmitter makes of the bits."""
    link = link_of(name)
    front = link.front
    batch = link.draw(link.keys(0, 3.0, 0), tf.constant(NO), 0, 6)
    transmitter = PUSCHTransmitter(configs_of(link.scenario, link.channel), return_bits=False)
    bits = tf.reshape(batch.bits, (6, link.blocks_per_slot, -1))
    x = transmitter(bits)  # [B, users, antennas, T, F]
    x = tf.reshape(x, (6, -1, *x.shape[3:]))
    key = link.keys(0, 3.0, 0)[2]
    grid = front.resource_grid
    h = link.channel.sample_grid(key, 6, grid.num_ofdm_symbols, grid.fft_size, 1 / 14)
    y = tf.linalg.matvec(h, tf.transpose(x, [0, 2, 3, 1]))
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(*y.shape, 2)).astype(np.float32) @ np.array([1, 1j])
    return batch, transmitter, x, h, y + (NO / 2) ** 0.5 * noise.astype(np.complex64)


def of_data(link, x):
    return x.numpy().reshape(x.shape[0], -1, *x.shape[3:])[:, link.front.data]


@pytest.mark.parametrize("name", SLOTS)
def test_what_is_sent_is_what_sionnas_transmitter_sends(name):
    link = link_of(name)
    batch, transmitter, x, h, _ = slot_of(name)
    sent = link.sender.points[batch.symbols.numpy()]
    noiseless = np.einsum("bumk,buk->bum", batch.h.numpy(), sent)
    # Through the channels of antennas, before which Sionna precodes
    expected = of_data(link, tf.linalg.matvec(h, tf.transpose(x, [0, 2, 3, 1])))
    np.testing.assert_allclose(noiseless, expected, atol=1e-5)
    if link.scenario.pusch.precoding == "non-codebook":
        grid = np.moveaxis(x.numpy(), 1, 3)
        np.testing.assert_array_equal(
            sent, grid.reshape(6, -1, grid.shape[3])[:, link.front.data]
        )
        masked = np.delete(x.numpy()[0].reshape(x.shape[1], -1), link.front.data, axis=1)
        pilots = np.delete(link.front.pilots.reshape(x.shape[1], -1), link.front.data, axis=1)
        np.testing.assert_array_equal(masked, pilots)


def sionnas_channels(link, h):
    """[B, T, F, M, antennas] as [B, 1, M, users, antennas of a user, T, F]."""
    h = tf.transpose(h, [0, 3, 4, 1, 2])
    return tf.reshape(h, (*h.shape[:2], link.channel.num_users, -1, *h.shape[3:]))[:, None]


@pytest.mark.parametrize("name", SLOTS)
def test_bits_are_those_of_sionnas_receiver(name):
    """Sionna's LMMSE detector on the same grid and channels, perfectly known."""
    link = link_of(name)
    batch, transmitter, _, h, y = slot_of(name)
    receiver = PUSCHReceiver(transmitter, channel_estimator="perfect")
    sionnas_y = tf.transpose(y, [0, 3, 1, 2])[:, None]
    expected = receiver(sionnas_y, tf.constant(NO), sionnas_channels(link, h))
    detector = create_receiver("sionna-lmmse", link.scenario).detector
    s = tf.fill([6, link.num_uses], NO)
    llrs = detector(tf.constant(of_data(link, y)), batch.h, s)
    decided = tf.reshape(link.decode(llrs), expected.shape)
    np.testing.assert_array_equal(decided, expected)
    # All iterations, or as many as a codeword needs
    fully = link.code.decode_fully(link.codeword_llrs(llrs))
    np.testing.assert_array_equal(tf.reshape(fully, expected.shape), expected)
    assert np.mean(decided.numpy() == batch.bits.numpy().reshape(expected.shape)) > 0.95


@pytest.mark.parametrize("name", [name for name in SLOTS if name != "codebook"])
def test_least_squares_estimates_are_sionnas(name):
    link = link_of(name, "ls")
    _, transmitter, _, _, y = slot_of(name)
    config = configs_of(link.scenario, link.channel)[0]
    dmrs = config.dmrs
    # Sionna's receiver takes as many as are asked for, of which short slots have fewer
    positions = len(config.dmrs_symbol_indices) // dmrs.length - 1
    assert (positions < dmrs.additional_position) == name.startswith("short")
    sionna = PUSCHLSChannelEstimator(
        transmitter.resource_grid,
        dmrs.length,
        positions,
        dmrs.num_cdm_groups_without_data,
        interpolation_type="lin",
    )
    expected, _ = sionna(tf.transpose(y, [0, 3, 1, 2])[:, None], tf.constant(NO))
    h_hat, _ = link.front.estimator(y, tf.constant(NO))
    found = sionnas_channels(link, h_hat)
    np.testing.assert_array_equal(found, expected)


def test_large_transport_blocks_are_segmented_as_sionna_does():
    scenario = BASE.replace(
        pusch={"num_prbs": 51, "mcs_index": 27},
        system={"num_bits_per_symbol": 6},
    )
    link = Link(scenario)
    configs = configs_of(scenario, link.channel)
    config, code = configs[0], link.code
    encoder = TBEncoder(
        config.tb_size, config.num_coded_bits, config.tb.target_coderate, 6, 1, [1, 2], [1, 1]
    )
    assert encoder.num_cbs == 5 and len(set(encoder.cw_lengths)) == 2
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2, (2, code.num_info_bits)).astype(np.float32)
    coded = code.encode(tf.constant(bits)).numpy()
    expected = encoder(tf.constant(bits.reshape(2, 2, -1))).numpy().reshape(2, -1)
    np.testing.assert_array_equal(coded, expected)
    # Users in turn on the streams of each use
    symbols = coded.reshape(2, 2, -1, 6).transpose(0, 2, 1, 3).reshape(2, -1)
    np.testing.assert_array_equal(coded[:, code.sent_order], symbols)
    llrs = (8 * coded - 4 + rng.normal(scale=1.0, size=coded.shape)).astype(np.float32)
    for decode in (code.decode, code.decode_without_stopping, code.decode_fully):
        np.testing.assert_array_equal(decode(tf.constant(llrs)), bits)
    # What the decoder knows of every bit that was sent, and how it goes on
    decoded = code.resume(tf.constant(llrs))
    assert np.all(decoded.holds) and decoded.iterations.shape == (2, 10)
    np.testing.assert_array_equal(code.sent_llrs(decoded.soft) > 0, coded > 0)
    assert scenario.num_info_bits == link.num_info_bits
    assert scenario.num_coded_bits == code.num_coded_bits
    with pytest.raises(InvalidInput, match=f"expected \\[B, {code.num_coded_bits}\\]"):
        code.decode(tf.constant(llrs[:, 1:]))


def test_blocks_of_two_users_are_counted_on_their_own(tmp_path):
    store = tmp_path / "counts.jsonl"
    scenario = BASE.replace(pusch={"num_prbs": 1}, run={"batch_size": 10})
    run = {"snr_db": 3.0, "max_blocks": 40, "xla": "off"}
    results = simulate(scenario, ["mmse", "zf"], store_path=store, **run)
    record = results["records"][0]
    link = Link(scenario)
    k = link.num_info_bits // 2
    assert record["blocks"] == 40 and record["bits"] == 40 * k
    assert record["symbols"] == 40 * link.num_uses
    assert 0 < record["block_errors"] < 40
    # A slot of 0.5 ms; one PRB of 12 subcarriers, 30 kHz each
    delivered = 2 * k * (1 - record["bler"]) / 0.5e-3
    assert record["throughput"] == pytest.approx(delivered)
    assert record["spectral_efficiency"] == pytest.approx(delivered / 360e3)
    assert record["throughput_low"] < delivered < record["throughput_high"]
    assert record["throughput_high"] == pytest.approx(
        2 * k * (1 - record["bler_low"]) / 0.5e-3
    )
    check_throughput_is_shown(results, tmp_path)
    # A replay is of one user's block, and agrees with the counts of the batch
    batch = link.draw(link.keys(0, 3.0, 0), link.no(3.0), 0, 10)
    block = replay_block(scenario, "mmse", 3.0, 1, xla="off", store_path=store)
    np.testing.assert_array_equal(block["bits"], batch.bits.numpy()[0, k:])
    assert block["bit_errors"] == np.sum(block["bits"] != block["bits_hat"])
    assert block["codeword_llr"].shape == (link.code.num_coded_bits // 2,)
    assert block["decoder_llr"].shape[0] == 1 and block["llr"].shape == (144, 2, 4)


def test_detector_and_decoder_iterate_over_transport_blocks(tmp_path):
    scenario = BASE.replace(pusch={"num_prbs": 1}, run={"batch_size": 20})
    store = tmp_path / "counts.jsonl"
    run = {"snr_db": 2.0, "max_blocks": 40, "xla": "off", "store_path": store}
    one, three = simulate(scenario, ["mmse", "mmse/3"], **run)["records"]
    assert one["blocks"] == three["blocks"] == 40
    assert three["block_errors"] < one["block_errors"]
    # A block of the second user, whose errors are held against those of the run
    replayed = replay_block(scenario, "mmse/3", 2.0, 1, xla="off", store_path=store)
    k = Link(scenario).num_info_bits // 2
    assert replayed["bits"].shape == replayed["pass_bits_hat"][0].shape == (k,)
    assert replayed["pass_decoder_iterations"].shape[1:] == (1,)
    assert replayed["bit_errors"] == np.sum(replayed["bits"] != replayed["bits_hat"])


def check_throughput_is_shown(results, folder):
    """In the files, on the terminal and on the page, whose reader checks it."""
    write_results(results, folder)
    assert (folder / "throughput.png").stat().st_size > 5000
    header, row = (folder / "results.csv").read_text().splitlines()[:2]
    record = results["records"][0]
    shown = dict(zip(header.split(","), row.split(",")))
    assert float(shown["spectral_efficiency_low"]) == record["spectral_efficiency_low"]
    console = Console(file=io.StringIO(), width=120)
    for table in rate_tables(results, "throughput"):
        console.print(table)
    assert f"{record['throughput'] / 1e6:.3g} [" in console.file.getvalue()
    (run,) = read_runs([folder])
    cell = point_cells(run, 3.0)["mmse"]["throughput"]
    assert cell.value == pytest.approx(record["throughput"] / 1e6)
    assert "bit/s/Hz" in cell.detail and "Throughput (Mbit/s)" in build_page([run])
    edited = copy.deepcopy(results)
    edited["records"][0]["throughput"] *= 2
    save_json(folder / "results.json", edited)
    with pytest.raises(ResultFileError, match="throughput lies outside of its interval"):
        read_runs([folder])


def test_other_codes_fill_the_slot():
    """A scenario's code is a part of its own: a 5g codeword over all streams, or none."""
    for code, k in (({"type": "none"}, 2 * 4 * 144), ({"type": "5g", "rate": 0.5}, 576)):
        scenario = BASE.replace(pusch={"num_prbs": 1}, code=code)
        link = Link(scenario)
        assert link.num_info_bits == scenario.num_info_bits == k and link.blocks_per_slot == 1
        assert link.throughput_of(0.1, (0.0, 0.2)) == {}


def test_slots_go_through_tapped_delay_lines():
    channel = {"type": "tdl", "model": "C300", "max_doppler_hz": 100.0, "num_users": 2}
    data = BASE.replace(pusch={"num_prbs": 1}).to_dict()
    csi = {"type": "lmmse", "covariance": "model"}
    link = Link(scenario_from_dict({**data, "channel": channel, "csi": csi}))
    batch = link.draw(link.keys(0, 20.0, 0), tf.constant(0.01), 0, 100)
    error = np.mean(np.sum(np.abs(batch.h_hat - batch.h) ** 2, axis=-1))
    assert error == pytest.approx(np.mean(batch.no) - 0.01, rel=0.12)


@pytest.mark.parametrize(
    "table, changes, message",
    [
        ("pusch", {"mcs_index": 29}, "pusch.mcs_index: got 29"),
        ("pusch", {"mcs_index": 28, "mcs_table": 2}, "mcs_index: got 28, which table 2"),
        ("pusch", {"mcs_index": 3}, "num_bits_per_symbol: got 4, expected 2, that of MCS 3"),
        ("pusch", {"num_prbs": 276}, "pusch.num_prbs: got 276"),
        ("pusch", {"num_layers": 2}, "num_streams: got 2, expected 4: channel.num_users = 2"),
        (
            "pusch",
            {"dmrs_ports": [0]},
            "pusch.dmrs_ports: got .0., expected one for each of 2",
        ),
        ("pusch", {"dmrs_ports": [0, 0]}, "expected each port once"),
        ("pusch", {"dmrs_ports": [0, 9]}, "pusch.dmrs_ports: got 9, expected some of"),
        ("pusch", {"num_cdm_groups_without_data": 3}, "type 1 have only two CDM groups"),
        ("pusch", {"dmrs_length": 2, "dmrs_additional_positions": 2}, "expected 0 or 1 with"),
        ("pusch", {"symbol_allocation": [0, 15]}, "pusch.symbol_allocation: got 15"),
        (
            "pusch",
            {"symbol_allocation": [1, 13]},
            "pusch.symbol_allocation: got .1, 13., expected .0, 4. to .0, 14. with mapping_type",
        ),
        (
            "pusch",
            {"mapping_type": "B", "symbol_allocation": [3, 1]},
            "pusch.symbol_allocation: got .3, 1., in which no resource is left for data",
        ),
        (
            "pusch",
            {"num_cdm_groups_without_data": 1, "dmrs_ports": [0, 2]},
            "pusch.dmrs_ports: got 2, expected some of .0, 1.",
        ),
        (
            "pusch",
            {"precoding": "codebook", "num_antenna_ports": 4, "tpmi": 28},
            "pusch.tpmi: got 28, expected an integer from 0 to 27",
        ),
        ("pusch", {"symbol_allocation": [3]}, "the first OFDM symbol and the number"),
        ("pusch", {"symbol_allocation": 3}, "pusch.symbol_allocation: got 3, expected a list"),
        ("pusch", {"mapping_type": "C"}, "pusch.mapping_type: got 'C'"),
        ("pusch", {"precoding": "codebook"}, "num_antenna_ports: got 0, expected 2 or 4"),
        ("pusch", {"tpmi": 2}, "belong to precoding"),
        ("pusch", {"speed": 2}, "unknown key speed"),
        ("code", {"num_info_bits": 100}, "do not belong to a transport-block"),
        ("code", {"rate": 0.5}, "code.rate: got 0.5"),
        ("channel", {"type": "rayleigh"}, "pusch: an OFDM grid needs channel.type"),
        ("channel", {"subcarrier_spacing_khz": 20.0}, "got 20.0, expected one of 15, 30"),
        ("channel", {"num_users": 3}, "num_streams: got 2, expected 3"),
        ("snr", {"definition": "detnet"}, "with a table .pusch."),
        ("ofdm", {}, "has its grid from there"),
    ],
)
def test_what_no_slot_has_is_refused_by_key(table, changes, message):
    with pytest.raises(InvalidInput, match=message):
        Link(BASE.replace(**{table: changes}))


def test_more_streams_than_ports_are_refused():
    channel, system = {"num_users": 5}, {"num_streams": 5}
    with pytest.raises(InvalidInput, match="pusch.num_layers: 5 users with 1 need .* are 4"):
        Link(BASE.replace(channel=channel, system=system))


def test_every_slot_is_made_or_refused_by_its_key():
    """Combinations of keys that are right each, of which [TS38211] does not have all."""
    made = set()
    for mapping, allocation, length, positions, first in itertools.product(
        "AB", ((0, 1), (0, 4), (0, 14), (2, 12), (9, 5), (13, 1)), (1, 2), (0, 1, 3), (2, 3)
    ):
        try:
            pusch = Pusch(
                mapping_type=mapping,
                symbol_allocation=allocation,
                dmrs_length=length,
                dmrs_additional_positions=positions,
                dmrs_type_a_position=first,
            )
            pusch_configs(pusch)
        except InvalidInput as error:
            assert re.match(r"pusch\.\w+: got ", str(error)), error
        else:
            made.add((mapping, allocation))
    assert made == {
        *(("A", (0, n)) for n in (4, 14)),
        *(("B", x) for x in ((0, 4), (0, 14), (2, 12), (9, 5))),
    }


@pytest.mark.parametrize(
    "layers, ports, most",
    [(1, 2, 5), (1, 4, 27), (2, 2, 2), (2, 4, 21), (3, 4, 6), (4, 4, 4)],
)
def test_there_are_as_many_precoders_as_the_tables_have(layers, ports, most):
    sizes = {"precoding": "codebook", "num_layers": layers, "num_antenna_ports": ports}
    (config,) = pusch_configs(Pusch(tpmi=most, **sizes))
    assert config.precoding_matrix.shape == (ports, layers)
    with pytest.raises(InvalidInput, match=f"tpmi: got {most + 1}, expected .* {most}"):
        pusch_configs(Pusch(tpmi=most + 1, **sizes))


def test_rates_that_sionna_does_not_encode_are_refused_where_there_is_a_transport_block():
    """MCS 1 of table 2 has 193/1024."""
    pusch, system = (
        {"mcs_index": 1, "mcs_table": 2, "num_prbs": 24},
        {"num_bits_per_symbol": 2},
    )
    with pytest.raises(InvalidInput, match="pusch: there is no such transport block: .*1/5"):
        Link(BASE.replace(pusch=pusch, system=system))
    assert (
        Link(BASE.replace(pusch=pusch, system=system, code={"type": "none"})).num_uses == 3456
    )


def test_transport_blocks_need_a_slot():
    with pytest.raises(
        InvalidInput, match="code.type: .transport-block. needs a .pusch. table"
    ):
        load_scenario("cdl-c-4x4-qam16").replace(
            code={"type": "transport-block", "num_info_bits": 0}
        )
    codebook = {"precoding": "codebook", "num_antenna_ports": 2}
    with pytest.raises(InvalidInput, match="power of the precoded channel is not known"):
        BASE.replace(pusch=codebook, snr={"definition": "rx"})
