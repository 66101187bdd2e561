"""The 5G uplink: slots with the DMRS of a [pusch] table, and Sionna's channel estimation."""

from sionna.phy.nr import PUSCHLSChannelEstimator, PUSCHPilotPattern
from sionna.phy.ofdm import ResourceGrid

from linksim.errors import InvalidInput
from linksim.link.ofdm import OFDMFront, add_knowledge
from linksim.link.pusch_config import CYCLIC_PREFIX_RATIO, precoding_of, pusch_configs
from linksim.link.transport_block import TransportBlocks


def configs_of(scenario, channel):
    """Sionna's `PUSCHConfig` of each user of a scenario with a [pusch] table.

    Raises:
        InvalidInput: there is no such slot, or its modulation is not that of the scenario.
    """
    spacing = channel.subcarrier_spacing / 1e3
    configs = pusch_configs(scenario.pusch, channel.num_users, spacing)
    bits = int(configs[0].tb.num_bits_per_symbol)
    if scenario.system.num_bits_per_symbol != bits:
        raise InvalidInput(
            f"system.num_bits_per_symbol: got {scenario.system.num_bits_per_symbol}, expected "
            f"{bits}, that of MCS {scenario.pusch.mcs_index} in table "
            f"{scenario.pusch.mcs_table}"
        )
    return configs


def create_pusch_front(scenario, channel, interferers=None):
    """The front of a scenario with a [pusch] table: a slot of all its users.

    Args:
        scenario: a `linksim.link.scenario.Scenario` with a [pusch] table.
        channel: its channel, with a column for each antenna of each user.
        interferers: its `linksim.link.interference.Interferers`, or None.

    Returns:
        `linksim.link.ofdm.OFDMFront`; its streams are the layers of the first user, then
        those of the second.
    """
    configs = configs_of(scenario, channel)
    grid = _grid_of(configs)
    front = OFDMFront(channel, grid, CYCLIC_PREFIX_RATIO, precoding_of(configs))
    dmrs = configs[0].dmrs
    # Sionna counts on as many as were asked for; short slots have fewer
    positions = len(configs[0].dmrs_symbol_indices) // dmrs.length - 1

    def least_squares():
        return PUSCHLSChannelEstimator(
            grid,
            dmrs.length,
            positions,
            dmrs.num_cdm_groups_without_data,
            interpolation_type=scenario.pusch.interpolation,
        )

    # Ports of a CDM group share pairs of subcarriers and, with double DMRS, of symbols
    groups = (dmrs.length, 2)
    add_knowledge(front, scenario.csi, least_squares, interferers, groups)
    return front


def _grid_of(configs):
    """The grid of Sionna's `PUSCHTransmitter`, which encodes, too: not all that can be sent
    in a slot is a transport block."""
    config = configs[0]
    return ResourceGrid(
        num_ofdm_symbols=config.l_d,
        fft_size=config.num_subcarriers,
        subcarrier_spacing=config.carrier.subcarrier_spacing * 1e3,
        num_tx=len(configs),
        num_streams_per_tx=config.num_layers,
        pilot_pattern=PUSCHPilotPattern(configs),
    )


def create_transport_blocks(scenario, channel):
    """The `TransportBlocks` of a scenario with a [pusch] table."""
    code = scenario.code
    return TransportBlocks(configs_of(scenario, channel), code.num_iterations, code.cn_update)
