"""The [pusch] table of a scenario as Sionna's configurations, one for each user."""

import numpy as np
from sionna.phy.nr import CarrierConfig, PUSCHConfig, PUSCHDMRSConfig, TBConfig

from linksim.errors import InvalidInput

# kHz, [TS38211], Table 4.2-1
_SPACINGS = (15, 30, 60, 120, 240, 480, 960)
# A slot of 14 symbols with normal cyclic prefixes lasts as long as 15 useful symbols
SYMBOLS_PER_SLOT = 14
CYCLIC_PREFIX_RATIO = 1 / 14
# Largest TPMI by (layers, antenna ports), [TS38211], Tables 6.3.1.5-1 to 6.3.1.5-7
_MOST_TPMI = {(1, 2): 5, (1, 4): 27, (2, 2): 2, (2, 4): 21, (3, 4): 6, (4, 4): 4}


def pusch_configs(pusch, num_users=1, subcarrier_spacing_khz=30.0):
    """Sionna's `PUSCHConfig` of each user.

    Users have the DMRS ports of the scenario in turn, or else the first ones that there are,
    and radio network temporary identifiers 1, 2, ..., so that each has a scrambling of its
    own.

    Args:
        pusch: a `linksim.link.scenario.Pusch`.
        num_users: number of users.
        subcarrier_spacing_khz: one of those of 5G.

    Raises:
        InvalidInput: what [TS38211] or Sionna does not have.
    """
    if subcarrier_spacing_khz not in _SPACINGS:
        raise InvalidInput(
            f"channel.subcarrier_spacing_khz: got {subcarrier_spacing_khz}, expected one of "
            f"{', '.join(map(str, _SPACINGS))} with a [pusch] table"
        )
    _check_slot(pusch)
    try:
        return _configs(pusch, num_users, int(subcarrier_spacing_khz))
    except (AssertionError, ValueError, IndexError) as error:
        if isinstance(error, InvalidInput):
            raise
        # An index beyond a table of Sionna's says nothing about itself
        reason = str(error) if isinstance(error, AssertionError) else ""
        raise InvalidInput(
            "pusch: there is no such slot; check symbol_allocation, mapping_type and the "
            f"dmrs keys{': ' if reason else ''}{reason}"
        ) from None


def _check_slot(pusch):
    """Refuse, by their keys, combinations that [TS38211] does not have."""
    first, length = pusch.symbol_allocation
    got = f"pusch.symbol_allocation: got {[first, length]}, expected"
    if pusch.mapping_type == "A" and (first or length < 4):
        raise InvalidInput(f'{got} [0, 4] to [0, 14] with mapping_type = "A"; "B" has others')
    if pusch.mapping_type == "B" and pusch.dmrs_length == 2 and length < 5:
        raise InvalidInput(
            f'{got} at least 5 symbols with dmrs_length = 2 and mapping_type = "B"'
        )
    late = pusch.mapping_type == "A" and pusch.dmrs_type_a_position == 3
    if late and pusch.dmrs_additional_positions == 3:
        raise InvalidInput(
            "pusch.dmrs_additional_positions: got 3, expected 0 to 2 with "
            "dmrs_type_a_position = 3"
        )
    if pusch.precoding == "codebook":
        most = _MOST_TPMI[pusch.num_layers, pusch.num_antenna_ports]
        if pusch.tpmi > most:
            raise InvalidInput(
                f"pusch.tpmi: got {pusch.tpmi}, expected 0 to {most} with num_layers = "
                f"{pusch.num_layers} and num_antenna_ports = {pusch.num_antenna_ports}"
            )


def _configs(pusch, num_users, spacing):
    configs = []
    streams = num_users * pusch.num_layers
    for user in range(num_users):
        dmrs = PUSCHDMRSConfig(
            config_type=pusch.dmrs_type,
            length=pusch.dmrs_length,
            additional_position=pusch.dmrs_additional_positions,
            type_a_position=pusch.dmrs_type_a_position,
            num_cdm_groups_without_data=pusch.num_cdm_groups_without_data,
        )
        allowed = dmrs.allowed_dmrs_ports
        ports = pusch.dmrs_ports or tuple(allowed[:streams])
        for port in ports:
            if port not in allowed:
                raise InvalidInput(f"pusch.dmrs_ports: got {port}, expected some of {allowed}")
        if len(ports) < streams:
            raise InvalidInput(
                f"pusch.num_layers: {num_users} users with {pusch.num_layers} need as many DMRS "
                f"ports, but there are {len(allowed)}: take another dmrs_type, dmrs_length or "
                "num_cdm_groups_without_data"
            )
        first = user * pusch.num_layers
        dmrs.dmrs_port_set = list(ports[first : first + pusch.num_layers])
        mcs = {"mcs_index": pusch.mcs_index, "mcs_table": pusch.mcs_table}
        config = PUSCHConfig(
            CarrierConfig(
                subcarrier_spacing=spacing,
                n_size_grid=pusch.num_prbs,
                n_cell_id=pusch.n_cell_id,
            ),
            dmrs,
            TBConfig(channel_type="PUSCH", **mcs),
            num_layers=pusch.num_layers,
            num_antenna_ports=pusch.antennas,
            mapping_type=pusch.mapping_type,
            symbol_allocation=list(pusch.symbol_allocation),
            precoding=pusch.precoding,
            tpmi=pusch.tpmi,
            n_rnti=user + 1,
        )
        config.check_config()
        if not config.dmrs_symbol_indices:
            raise InvalidInput(
                f"pusch.symbol_allocation: got {list(pusch.symbol_allocation)}, in which there "
                "are no DMRS; expected more symbols"
            )
        if not config.num_res_per_prb:
            raise InvalidInput(
                f"pusch.symbol_allocation: got {list(pusch.symbol_allocation)}, in which no "
                "resource is left for data; expected more symbols than those of the DMRS"
            )
        configs.append(config)
    _check_mcs(configs[0])
    return configs


def _check_mcs(config):
    try:
        _ = config.tb.num_bits_per_symbol, config.tb.target_coderate
    except Exception as error:  # Sionna raises TensorFlow's
        reason = str(error).splitlines()[0]
        raise InvalidInput(
            f"pusch.mcs_index: got {config.tb.mcs_index}, which table {config.tb.mcs_table} "
            f"does not have: {reason}"
        ) from None


def num_data_resources(pusch):
    """Data resources of a slot.

    Raises:
        InvalidInput: the slot does not exist, or has none.
    """
    config = pusch_configs(pusch)[0]
    return int(config.num_res_per_prb * config.num_resource_blocks)


def precoding_of(configs):
    """What the antennas of all users send of each stream, complex64 [antennas, streams];
    None without precoding."""
    if configs[0].precoding != "codebook":
        return None
    blocks = [config.precoding_matrix for config in configs]
    ports, layers = blocks[0].shape
    whole = np.zeros((len(blocks) * ports, len(blocks) * layers), np.complex64)
    for user, block in enumerate(blocks):
        whole[user * ports : (user + 1) * ports, user * layers : (user + 1) * layers] = block
    return whole
