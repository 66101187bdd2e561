"""What a scenario amounts to, in lines of text."""

from linksim.link.link import Link
from linksim.notices import counted
from linksim.snr import SNR_DEFINITIONS, no_to_snr_db, snr_db_to_no


def describe_link(scenario):
    """Lines about a scenario's sizes, code, SNR and channel, for people to read.

    Args:
        scenario: a `linksim.link.scenario.Scenario`.

    Returns:
        list of str.

    Raises:
        InvalidInput: the link cannot be built.
    """
    link, system = Link(scenario), scenario.system
    blocks = link.blocks_per_slot
    kind = "transport blocks" if scenario.code.type == "transport-block" else "blocks"
    what = "block" if blocks == 1 else f"slot of {blocks} {kind}"
    lines = [
        f"{scenario.name}: {scenario.description}",
        f"{counted(system.num_rx, 'receive antenna')}, {counted(system.num_streams, 'stream')}, "
        f"{counted(system.num_bits_per_symbol, 'bit')} per symbol",
        f"{what}: {counted(link.num_uses, 'channel use')}, "
        f"{counted(link.num_info_bits, 'information bit')} in "
        f"{counted(link.code.num_coded_bits, 'coded bit')}, rate {link.code.coderate:.4g}",
    ]
    own = SNR_DEFINITIONS[scenario.snr.definition]
    no = snr_db_to_no(scenario.snr.definition, 0.0, link.budget)
    most = link.throughput_of(0.0, (0.0, 0.0))
    if "throughput" in most:
        lines.append(
            f"without errors: {most['throughput'] / 1e6:.4g} Mbit/s, "
            f"{most['spectral_efficiency']:.4g} bit/s/Hz"
        )
    if len(link.codes) > 1:
        versions = ", ".join(map(str, scenario.harq.versions))
        lines.append(
            f"HARQ: up to {len(link.codes)} transmissions of a block, redundancy versions "
            f"{versions}; {most['bits_per_use']:.4g} bits per channel use without errors"
        )
    lines.append(f"SNR: {scenario.snr.definition}, {own.source}")
    others = [
        f"{no_to_snr_db(name, no, link.budget):.2f} dB by {name}"
        for name, definition in SNR_DEFINITIONS.items()
        if name != scenario.snr.definition and not definition.per_realization
    ]
    mean = "a mean N0" if own.per_realization else "an N0"
    lines.append(f"0 dB means {mean} of {no:.4g}; {', '.join(others)}")
    if scenario.csi.type == "noisy":
        lines.append(
            f"channel knowledge: E|h|^2 / E|error|^2 = {scenario.csi.error_snr_db:g} dB"
        )
    if scenario.interference is not None:
        table = scenario.interference
        power = link.channel.power * 10 ** (-table.sir_db / 10)
        lines.append(
            f"interference: {counted(table.num_streams, 'stream')} of "
            f"{counted(table.num_users, 'user')}, with "
            f"E|interference|^2 = {power:.4g} on an antenna, {table.sir_db:g} dB below a stream "
            f"sent with power 1; covariance {table.covariance}"
        )
    return lines + [
        f"channel {scenario.channel['type']}: {t}" for t in link.channel.describe()
    ]
