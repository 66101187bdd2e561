"""Antenna arrays of channels through Sionna."""

from sionna.phy.channel.tr38901 import AntennaArray

from linksim.errors import InvalidInput, check_choice, check_int, check_real

POLARIZATIONS = ("single", "dual")
PATTERNS = ("38.901", "omni")


def uplink_arrays(carrier, num_rx, num_tx, rx, tx):
    """The arrays of an uplink, as keyword arguments of Sionna's channel models.

    Each is a uniform rectangle of elements, or of cross-polarized pairs.

    Args:
        carrier: carrier frequency in Hz.
        num_rx: antennas of the receiver.
        num_tx: antennas of a user.
        rx, tx: what the keys that begin with "rx" and "tx" have: polarization, one of
            `POLARIZATIONS`; pattern, one of `PATTERNS`; rows of elements, from which the
            columns follow; distance of rows and of columns in wavelengths.

    Raises:
        InvalidInput: a value out of range, or antennas that do not fill the rows.
    """
    return {
        "ut_array": _array("tx", num_tx, carrier, *tx),
        "bs_array": _array("rx", num_rx, carrier, *rx),
        "direction": "uplink",
    }


def _array(side, num_antennas, carrier, polarization, pattern, rows, *spacings):
    check_choice(f"channel.{side}_polarization", polarization, POLARIZATIONS)
    check_choice(f"channel.{side}_pattern", pattern, PATTERNS)
    check_int(f"channel.{side}_rows", rows)
    for direction, spacing in zip(("row", "column"), spacings):
        name = f"channel.{side}_{direction}_spacing"
        check_real(name, spacing, low=0.01, high=100, unit="wavelengths")
    pair = 2 if polarization == "dual" else 1
    if num_antennas % pair:
        raise InvalidInput(
            f"channel.{side}_polarization: dual needs an even number of antennas, got "
            f"{num_antennas}"
        )
    if num_antennas // pair % rows:
        raise InvalidInput(
            f"channel.{side}_rows: got {rows}, expected a divisor of the "
            f"{num_antennas // pair} elements of an array"
        )
    return AntennaArray(
        num_rows=rows,
        num_cols=num_antennas // pair // rows,
        polarization=polarization,
        polarization_type="cross" if polarization == "dual" else "V",
        antenna_pattern=pattern,
        carrier_frequency=carrier,
        vertical_spacing=spacings[0],
        horizontal_spacing=spacings[1],
    )
