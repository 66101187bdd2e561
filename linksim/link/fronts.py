"""Which front a scenario has.

This loads Sionna only for a scenario with an OFDM grid or PUSCH, so that trainings run
without it.
"""

from linksim.link.draw import FlatFront, NoisyCSI
from linksim.link.interference import InterferedFront, create_interferers
from linksim.snr import SNR_DEFINITIONS


def create_front(scenario, channel):
    """The front of a scenario, with its kind of CSI.

    Args:
        scenario: a `linksim.link.scenario.Scenario`.
        channel: its `linksim.channels.Channel`, or one in its place.

    Returns:
        `linksim.link.draw.Front`.
    """
    interferers = None
    if scenario.interference is not None:
        interferers = create_interferers(scenario, channel)
    if scenario.pusch is not None:
        from linksim.link.pusch import create_pusch_front  # loads Sionna

        front = create_pusch_front(scenario, channel, interferers)
    elif scenario.ofdm is None:
        definition = SNR_DEFINITIONS[scenario.snr.definition]
        front = FlatFront(channel, definition.per_realization)
        if interferers is not None:
            front = InterferedFront(front, interferers)
    else:
        from linksim.link.ofdm import create_ofdm_front  # loads Sionna

        front = create_ofdm_front(scenario, channel, interferers)
    if scenario.csi.type == "noisy":
        front = NoisyCSI(front, scenario.csi.error_snr_db)
    return front
