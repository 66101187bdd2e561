"""The [interference] table of a scenario."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from linksim.errors import InvalidInput, check_choice, check_int, check_real
from linksim.tables import check_plain_table

COVARIANCES = ("perfect", "estimated", "ignored")
SHRINKAGES = ("ledoit-wolf", "none")
_NUM_SAMPLES, _SUBCARRIERS = 32, 12
# What has to be as it is in [channel], or has a key of its own
_NOT_ITS_OWN = ("type", "num_users", "subcarrier_spacing_khz")


@dataclass(frozen=True)
class Interference:
    """Co-channel users that the receiver does not detect.

    They have channels of the scenario's kind, with the keys of `channel` changed, and send
    symbols of the scenario's modulation on every resource. `sir_db` is the mean energy that
    is received of one stream that is sent with power 1, over that of all interfering streams
    together.

    The receiver knows the covariance of noise and interference ("perfect"), estimates it
    ("estimated"), or takes all of it for white noise of the true power ("ignored"). Estimates
    are from `num_samples` observations of each channel use, and on a grid from what is left of
    the pilots on `subcarriers` neighbouring subcarriers, 0 for all.
    """

    num_streams: int = 1
    num_users: int = 1
    sir_db: float = 0.0
    covariance: str = "perfect"
    num_samples: int = _NUM_SAMPLES
    subcarriers: int = _SUBCARRIERS
    shrinkage: str = "ledoit-wolf"
    channel: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_int("interference.num_streams", self.num_streams, maximum=4096)
        check_int("interference.num_users", self.num_users)
        if self.num_streams % self.num_users:
            raise InvalidInput(
                f"interference.num_users: got {self.num_users}, expected a divisor of "
                f"interference.num_streams = {self.num_streams}"
            )
        check_real("interference.sir_db", self.sir_db, low=-100, high=200, unit="dB")
        check_choice("interference.covariance", self.covariance, COVARIANCES)
        check_int("interference.num_samples", self.num_samples, maximum=10**5)
        check_int("interference.subcarriers", self.subcarriers, 0, 10**6)
        check_choice("interference.shrinkage", self.shrinkage, SHRINKAGES)
        for key, default in (
            ("num_samples", _NUM_SAMPLES),
            ("subcarriers", _SUBCARRIERS),
            ("shrinkage", "ledoit-wolf"),
        ):
            if getattr(self, key) != default and self.covariance != "estimated":
                raise InvalidInput(
                    f"interference.{key}: got {getattr(self, key)!r}, which belongs to "
                    f'covariance = "estimated", with covariance = "{self.covariance}"'
                )
        if self.channel is None:
            return
        check_plain_table("interference.channel", self.channel)
        for key in _NOT_ITS_OWN:
            if key in self.channel:
                raise InvalidInput(
                    f"interference.channel.{key}: leave it out; type and "
                    "subcarrier_spacing_khz are those of [channel], and num_users is a key "
                    "of [interference]"
                )

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        known = {"estimated": "with estimated covariance", "ignored": "taken for white noise"}
        found = f"interference at SIR {self.sir_db:g} dB"
        return f"{found} {known[self.covariance]}" if self.covariance in known else found

    def check_link(
        self, num_bits_per_symbol: int, num_rx: int, grid: bool, pilots: bool
    ) -> None:
        """Refuse what a link cannot have.

        Args:
            num_bits_per_symbol: of the desired streams.
            num_rx: receive antennas.
            grid: whether there is an OFDM grid.
            pilots: whether it has pilots.
        """
        if num_bits_per_symbol == 1:
            raise InvalidInput(
                "interference: BPSK leaves interference whose real and imaginary part are not "
                "alike, which no covariance says; expected system.num_bits_per_symbol >= 2"
            )
        if grid and self.num_samples != _NUM_SAMPLES:
            raise InvalidInput(
                f"interference.num_samples: got {self.num_samples}, but on a grid the samples "
                "are its pilots; leave it out, and choose interference.subcarriers"
            )
        if not grid and self.subcarriers != _SUBCARRIERS:
            raise InvalidInput(
                f"interference.subcarriers: got {self.subcarriers}, which belongs to an [ofdm] "
                "or [pusch] table; leave it out, and choose interference.num_samples"
            )
        if self.covariance == "estimated" and grid and not pilots:
            raise InvalidInput('interference.covariance: "estimated" needs ofdm.pilot_symbols')
        if self.covariance == "estimated" and not grid:
            self.check_samples("interference.num_samples", self.num_samples, num_rx)

    def check_samples(self, key: str, num_samples: int, num_rx: int) -> None:
        """Refuse too few samples: fewer than antennas without shrinkage, and a single one,
        from which the shrinkage cannot be estimated."""
        if num_samples == 1 and num_rx > 1:
            raise InvalidInput(
                f"{key}: a covariance of {num_rx} antennas is singular when it is estimated "
                "from 1 sample; take more"
            )
        if self.shrinkage == "none" and num_samples < num_rx:
            raise InvalidInput(
                f"{key}: a covariance of {num_rx} antennas is singular when it is estimated "
                f"from {num_samples} samples; take more, or "
                'interference.shrinkage = "ledoit-wolf"'
            )
