"""Scenarios: what is simulated, read from TOML and validated."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linksim.channels.base import GRID_CHANNELS, list_channels
from linksim.data import scenario_folder
from linksim.errors import (
    InvalidInput,
    check_bits_per_symbol,
    check_choice,
    check_int,
    check_line,
    check_list,
    check_real,
)
from linksim.files import as_path, file_hash, path_text
from linksim.link.coding.alist import alist_size
from linksim.link.coding.wifi import SIZES, wifi_rate
from linksim.link.harq_config import Harq
from linksim.link.interference_config import Interference
from linksim.names import parse_receiver
from linksim.notices import counted
from linksim.snr import SNR_DEFINITIONS
from linksim.tables import (
    check_fields,
    check_plain_table,
    check_table,
    dataclass_from_table,
    plain,
    read_toml,
)

CODES = ("none", "802.11n", "5g", "alist", "transport-block")
CSI_TYPES = ("perfect", "noisy", "ls", "lmmse")
ESTIMATED = ("ls", "lmmse")
CN_UPDATES = ("boxplus", "boxplus-phi", "minsum", "offset-minsum")
INTERPOLATIONS = ("nn", "lin", "lin_time_avg")
FEEDBACKS = ("extrinsic", "posterior")
INTERLEAVERS = ("", "5g")

# Far beyond what anyone simulates: a slip of the keyboard is refused by its key, and not by
# the memory that runs out
MAX_ANTENNAS, MAX_USES, MAX_BITS = 4096, 10**6, 10**7


@dataclass(frozen=True)
class System:
    """Antennas and modulation."""

    num_rx: int
    num_streams: int
    num_bits_per_symbol: int

    def __post_init__(self) -> None:
        check_int("system.num_rx", self.num_rx, maximum=MAX_ANTENNAS)
        check_int("system.num_streams", self.num_streams, maximum=MAX_ANTENNAS)
        check_bits_per_symbol("system.num_bits_per_symbol", self.num_bits_per_symbol)


@dataclass(frozen=True)
class Code:
    """Channel code, decoder and interleaver.

    The "5g" code has `num_info_bits` information bits or the `rate`, and is as long as
    `num_coded_bits` or the OFDM grid says. "802.11n" has the same keys for one of its twelve
    codes, and is the (648, 324) one without them. "alist" is the code of the parity-check
    matrix in `file`. With "none" there is no code, and a block is `uses_per_block` channel
    uses. A "transport-block" is that of the [pusch] table, with its CRCs, its segmentation
    and 5g codewords. With `per_stream` each stream has a block of its own, and the
    `interleaver` "5g" is that of [TS38212], 5.4.2.2.
    """

    type: str = "none"
    num_info_bits: int = 0
    num_coded_bits: int = 0
    num_iterations: int = 20
    cn_update: str = "boxplus"
    interleaver_seed: int = -1
    uses_per_block: int = 1
    rate: float = 0.0
    file: str = ""
    per_stream: bool = False
    interleaver: str = ""

    def __post_init__(self) -> None:
        check_choice("code.type", self.type, CODES)
        self._check_order()
        check_int("code.num_info_bits", self.num_info_bits, 0, MAX_BITS)
        check_int("code.num_coded_bits", self.num_coded_bits, 0, MAX_BITS)
        check_int("code.num_iterations", self.num_iterations, maximum=10000)
        check_choice("code.cn_update", self.cn_update, CN_UPDATES)
        check_int("code.interleaver_seed", self.interleaver_seed, minimum=-1)
        check_int("code.uses_per_block", self.uses_per_block, maximum=MAX_USES)
        check_real("code.rate", self.rate, low=0, high=1)
        object.__setattr__(self, "file", path_text("code.file", self.file))
        if self.rate and self.type not in ("5g", "802.11n"):
            raise InvalidInput(
                f'code.rate: got {self.rate} with code.type = "{self.type}", expected "5g" '
                'or "802.11n", whose rate can be chosen'
            )
        if self.rate and self.num_info_bits:
            raise InvalidInput(
                f"code: got num_info_bits = {self.num_info_bits} and rate = {self.rate}, "
                "expected only one of them; set the other to 0"
            )
        if self.type == "5g" and not (self.num_info_bits or self.rate):
            raise InvalidInput(
                "code.num_info_bits: missing, the 5g code needs it or code.rate"
            )
        if self.type == "802.11n":
            size = self.coded_bits_of(None), self.info_bits_of(self.coded_bits_of(None))
            if size not in SIZES:
                raise InvalidInput(
                    f"code: got (num_coded_bits, num_info_bits) = {size}, expected one of "
                    f"those of 802.11n: {', '.join(map(str, SIZES))}"
                )
        if (self.type == "alist") != bool(self.file):
            raise InvalidInput(
                f'code.file: got {self.file!r} with code.type = "{self.type}", expected a '
                'file with code.type = "alist" alone'
            )
        if self.type == "alist" and (self.num_info_bits or self.num_coded_bits):
            raise InvalidInput(
                "code: num_info_bits and num_coded_bits are those of the matrix in "
                "code.file, leave them out"
            )
        if self.type == "transport-block" and (
            self.num_info_bits or self.num_coded_bits or self.interleaver_seed >= 0
        ):
            raise InvalidInput(
                "code: num_info_bits, num_coded_bits and interleaver_seed do not belong to a "
                "transport-block, whose size follows from the [pusch] table"
            )

    def _check_order(self) -> None:
        if not isinstance(self.per_stream, bool):
            raise InvalidInput(
                f"code.per_stream: got {self.per_stream!r}, expected true or false"
            )
        check_choice("code.interleaver", self.interleaver, INTERLEAVERS)
        for key, given in (("per_stream", self.per_stream), ("interleaver", self.interleaver)):
            if given and self.type in ("none", "transport-block"):
                raise InvalidInput(
                    f'code.{key}: got {given!r} with code.type = "{self.type}", expected an '
                    "LDPC code"
                )
        if self.interleaver and self.interleaver_seed != -1:
            raise InvalidInput(
                f'code.interleaver: got "{self.interleaver}" and interleaver_seed = '
                f"{self.interleaver_seed}, expected only one of them"
            )

    def coded_bits_of(self, num_available: int | None) -> int:
        """Coded bits of a block in which so many bits fit; None where the code decides."""
        if self.type == "alist":
            return alist_size(self.file)[0]
        if self.type == "802.11n":
            return self.num_coded_bits or 648
        coded = self.num_coded_bits if self.type == "5g" else 0
        return coded or num_available or 0

    def info_bits_of(self, num_coded_bits: int) -> int:
        """Information bits of a block; a `rate` is rounded to a whole number of them."""
        if self.type == "none":
            return num_coded_bits
        if self.type == "alist":
            return alist_size(self.file)[1]
        rate = self.rate
        if self.type == "802.11n":
            rate = float(wifi_rate(rate or 0.5))
        return self.num_info_bits or round(rate * num_coded_bits)


@dataclass(frozen=True)
class Loop:
    """How detector and decoder iterate, in receivers of several passes.

    These keys change nothing that is drawn, and nothing of receivers of one pass.
    The decoder has `iterations` in a pass; 0 stands for `code.num_iterations`. `feedback` is
    what the detector gets, times `scale`: what the decoder has added to the LLRs
    ("extrinsic"), or all it knows ("posterior"). `cn_update` is that of the decoder in all
    passes but the first; "" stands for `code.cn_update`.
    """

    iterations: int = 0
    feedback: str = "extrinsic"
    scale: float = 1.0
    cn_update: str = ""

    def __post_init__(self) -> None:
        check_int("loop.iterations", self.iterations, 0, 10000)
        check_choice("loop.feedback", self.feedback, FEEDBACKS)
        check_choice("loop.cn_update", self.cn_update, ("", *CN_UPDATES))
        # Up to here no detector clips what it is told
        check_real("loop.scale", self.scale, low=0, high=2, open_low=True)


@dataclass(frozen=True)
class Ofdm:
    """Resource grid of one slot; all subcarriers carry data."""

    num_symbols: int = 14
    num_subcarriers: int = 48
    pilot_symbols: tuple = (2, 11)
    cyclic_prefix_ratio: float = 0.07
    interpolation: str = "lin"

    def __post_init__(self) -> None:
        check_int("ofdm.num_symbols", self.num_symbols, maximum=1000)
        check_int("ofdm.num_subcarriers", self.num_subcarriers, maximum=MAX_USES)
        check_list("ofdm.pilot_symbols", self.pilot_symbols, "numbers of OFDM symbols")
        object.__setattr__(self, "pilot_symbols", tuple(self.pilot_symbols))
        for index in self.pilot_symbols:
            check_int("ofdm.pilot_symbols", index, minimum=0)
            if index >= self.num_symbols:
                raise InvalidInput(
                    f"ofdm.pilot_symbols: got {index}, expected less than num_symbols "
                    f"= {self.num_symbols}"
                )
        if len(set(self.pilot_symbols)) != len(self.pilot_symbols):
            raise InvalidInput(
                f"ofdm.pilot_symbols: got {list(self.pilot_symbols)}, expected each symbol once"
            )
        if len(self.pilot_symbols) == self.num_symbols:
            raise InvalidInput(
                f"ofdm.pilot_symbols: got all {self.num_symbols} symbols, expected at least "
                "one that is left for data"
            )
        check_real("ofdm.cyclic_prefix_ratio", self.cyclic_prefix_ratio, low=0, high=1)
        check_choice("ofdm.interpolation", self.interpolation, INTERPOLATIONS)


@dataclass(frozen=True)
class Pusch:
    """A slot of the 5G uplink [TS38211]: its resources, transport blocks, DMRS and precoding.

    There are as many users as the channel has; all have the same options but their DMRS
    ports.
    """

    mcs_index: int = 14
    mcs_table: int = 1
    num_prbs: int = 4
    num_layers: int = 1
    mapping_type: str = "A"
    symbol_allocation: tuple = (0, 14)
    dmrs_type: int = 1
    dmrs_length: int = 1
    dmrs_additional_positions: int = 1
    dmrs_type_a_position: int = 2
    dmrs_ports: tuple = ()
    num_cdm_groups_without_data: int = 2
    precoding: str = "non-codebook"
    num_antenna_ports: int = 0
    tpmi: int = 0
    n_cell_id: int = 1
    interpolation: str = "lin"

    def __post_init__(self) -> None:
        for key, low, high in (
            ("mcs_index", 0, 28),
            ("mcs_table", 1, 4),
            ("num_prbs", 1, 275),
            ("num_layers", 1, 4),
            ("dmrs_type", 1, 2),
            ("dmrs_length", 1, 2),
            ("dmrs_additional_positions", 0, 3),
            ("dmrs_type_a_position", 2, 3),
            ("num_cdm_groups_without_data", 1, 3),
            ("num_antenna_ports", 0, 4),
            ("tpmi", 0, 27),
            ("n_cell_id", 0, 1007),
        ):
            check_int(f"pusch.{key}", getattr(self, key), low, high)
        check_choice("pusch.mapping_type", self.mapping_type, ("A", "B"))
        check_choice("pusch.precoding", self.precoding, ("non-codebook", "codebook"))
        check_choice("pusch.interpolation", self.interpolation, INTERPOLATIONS)
        for key, of in (("symbol_allocation", "two integers"), ("dmrs_ports", "ports")):
            check_list(f"pusch.{key}", getattr(self, key), of)
            object.__setattr__(self, key, tuple(getattr(self, key)))
        if len(self.symbol_allocation) != 2:
            raise InvalidInput(
                f"pusch.symbol_allocation: got {list(self.symbol_allocation)}, expected the "
                "first OFDM symbol and the number of symbols"
            )
        first, length = self.symbol_allocation
        check_int("pusch.symbol_allocation", first, 0, 13)
        check_int("pusch.symbol_allocation", length, 1, 14 - first)
        for port in self.dmrs_ports:
            check_int("pusch.dmrs_ports", port, 0, 11)
        if len(set(self.dmrs_ports)) != len(self.dmrs_ports):
            raise InvalidInput(
                f"pusch.dmrs_ports: got {list(self.dmrs_ports)}, expected each port once"
            )
        if self.mapping_type == "B" and self.dmrs_type_a_position != 2:
            raise InvalidInput(
                f"pusch.dmrs_type_a_position: got {self.dmrs_type_a_position} with "
                'mapping_type = "B", whose DMRS begin with the allocation; leave it out'
            )
        if self.dmrs_type == 1 and self.num_cdm_groups_without_data == 3:
            raise InvalidInput(
                "pusch.num_cdm_groups_without_data: got 3, but DMRS of type 1 have only two "
                "CDM groups"
            )
        if self.dmrs_length == 2 and self.dmrs_additional_positions > 1:
            raise InvalidInput(
                "pusch.dmrs_additional_positions: got "
                f"{self.dmrs_additional_positions}, expected 0 or 1 with dmrs_length = 2"
            )
        self._check_precoding()

    def _check_precoding(self) -> None:
        if self.precoding == "codebook":
            if self.num_antenna_ports not in (2, 4):
                raise InvalidInput(
                    f"pusch.num_antenna_ports: got {self.num_antenna_ports}, expected 2 or 4 "
                    'with precoding = "codebook"'
                )
            if self.num_antenna_ports < self.num_layers:
                raise InvalidInput(
                    f"pusch.num_antenna_ports: got {self.num_antenna_ports}, expected at "
                    f"least num_layers = {self.num_layers}"
                )
        elif self.num_antenna_ports or self.tpmi:
            raise InvalidInput(
                "pusch: num_antenna_ports and tpmi belong to precoding = "
                '"codebook"; without it each layer has an antenna'
            )

    @property
    def antennas(self) -> int:
        """Transmit antennas of a user."""
        return self.num_antenna_ports or self.num_layers


@dataclass(frozen=True)
class Csi:
    """What the receiver knows of the channel.

    "noisy" adds Gaussian noise of E||H||^2/E||W||^2 = `error_snr_db` (RE-MIMO,
    eq. 27 and 28). "ls" and "lmmse" estimate from the pilots of the OFDM grid: by least
    squares with interpolation, and with the `covariance` of the channel over time and
    frequency, "measured" on draws or that of the "model"; with `spatial` also over receive
    antennas. Detectors are told the `error` of estimates as a "variance", or as a
    "covariance" over antennas.
    """

    type: str = "perfect"
    error_snr_db: float = 0.0
    covariance: str = "measured"
    spatial: bool = False
    error: str = "variance"

    def __post_init__(self) -> None:
        check_choice("csi.type", self.type, CSI_TYPES)
        check_real("csi.error_snr_db", self.error_snr_db, low=-100, high=200)
        if self.type != "noisy" and self.error_snr_db:
            raise InvalidInput(
                f'csi.error_snr_db: only csi.type = "noisy" takes it, got "{self.type}"'
            )
        check_choice("csi.covariance", self.covariance, ("measured", "model"))
        if not isinstance(self.spatial, bool):
            raise InvalidInput(f"csi.spatial: got {self.spatial!r}, expected true or false")
        for key, default in (("covariance", "measured"), ("spatial", False)):
            if getattr(self, key) != default and self.type != "lmmse":
                raise InvalidInput(
                    f'csi.{key}: only csi.type = "lmmse" takes it, got "{self.type}"'
                )
        check_choice("csi.error", self.error, ("variance", "covariance"))
        if self.error == "covariance" and self.type not in ESTIMATED:
            raise InvalidInput(
                f'csi.error: only csi.type = "ls" and "lmmse" have one, got "{self.type}"'
            )


@dataclass(frozen=True)
class Snr:
    """SNR definition (see `linksim.snr`) and default points in dB."""

    definition: str
    points: tuple

    def __post_init__(self) -> None:
        check_choice("snr.definition", self.definition, SNR_DEFINITIONS)
        check_list("snr.points", self.points, "dB values")
        if not self.points:
            raise InvalidInput("snr.points: empty, expected at least one dB value")
        for point in self.points:
            check_real("snr.points", point, low=-200, high=200)
        points = tuple(sorted({float(p) for p in self.points}))
        object.__setattr__(self, "points", points)


@dataclass(frozen=True)
class Run:
    """Defaults of a run.

    Only `batch_size`, the number of blocks that are drawn together, changes the draws.
    """

    detectors: tuple
    reference: str = ""
    batch_size: int = 100
    target_block_errors: int = 100
    max_blocks: int = 10000
    min_bler: float = 1e-3
    gap_bler: float = 1e-1

    def __post_init__(self) -> None:
        check_list("run.detectors", self.detectors, "names")
        object.__setattr__(self, "detectors", tuple(self.detectors))
        if not self.detectors:
            raise InvalidInput("run.detectors: empty, expected at least one name")
        for name in self.detectors:
            parse_receiver(name, "run.detectors")
        if self.reference != "":
            parse_receiver(self.reference, "run.reference")
        check_int("run.batch_size", self.batch_size, maximum=MAX_USES)
        check_int("run.target_block_errors", self.target_block_errors)
        check_int("run.max_blocks", self.max_blocks)
        check_real("run.min_bler", self.min_bler, low=0, high=1)
        check_real("run.gap_bler", self.gap_bler, low=0, high=1, open_low=True)


@dataclass(frozen=True)
class Scenario:
    """A complete, validated description of one link.

    Attributes name the tables of the TOML file. `name` is the file's name.
    """

    name: str
    title: str
    system: System
    channel: dict
    snr: Snr
    run: Run
    code: Code = field(default_factory=Code)
    csi: Csi = field(default_factory=Csi)
    ofdm: Ofdm | None = None
    loop: Loop = field(default_factory=Loop)
    pusch: Pusch | None = None
    interference: Interference | None = None
    harq: Harq = field(default_factory=Harq)

    def __post_init__(self) -> None:
        check_line("name", self.name)
        check_line("title", self.title)
        check_fields(_TABLES, self)
        check_table("channel", self.channel)
        if "type" not in self.channel:
            raise InvalidInput("channel.type: missing")
        check_choice("channel.type", self.channel["type"], list_channels())
        self.harq.check_code(self.code.type)
        self._check_used()
        if self.ofdm is not None:
            self._check_grid("ofdm")
            self._check_ofdm(self.ofdm)
        if self.pusch is not None:
            self._check_grid("pusch")
            self._check_pusch(self.pusch)
        elif self.code.type == "transport-block":
            raise InvalidInput('code.type: "transport-block" needs a [pusch] table')
        if self.csi.type in ESTIMATED and self.pusch is None:
            if self.ofdm is None:
                raise InvalidInput(
                    f'csi.type: "{self.csi.type}" needs an [ofdm] table with pilots, or a '
                    "[pusch] table"
                )
            if not self.ofdm.pilot_symbols:
                raise InvalidInput(f'csi.type: "{self.csi.type}" needs ofdm.pilot_symbols')
        if self.interference is not None:
            system, grid = self.system, self.ofdm is not None or self.pusch is not None
            pilots = self.ofdm is None or bool(self.ofdm.pilot_symbols)
            sizes = system.num_bits_per_symbol, system.num_rx
            self.interference.check_link(*sizes, grid, pilots)

    def _check_used(self) -> None:
        """Refuse keys that change nothing next to those of other tables."""
        if self.loop != Loop() and self.code.type == "none":
            raise InvalidInput(
                'loop: detector and decoder cannot iterate with code.type = "none"; leave the '
                "table out, or take another code"
            )
        for name, grid in (("ofdm", self.ofdm), ("pusch", self.pusch)):
            if grid is not None and grid.interpolation != "lin" and self.csi.type != "ls":
                raise InvalidInput(
                    f'{name}.interpolation: only csi.type = "ls" takes it, got '
                    f'"{self.csi.type}"'
                )

    def _check_grid(self, table: str) -> None:
        if self.channel["type"] not in GRID_CHANNELS:
            raise InvalidInput(
                f"{table}: an OFDM grid needs channel.type = {', '.join(GRID_CHANNELS[:-1])} "
                f"or {GRID_CHANNELS[-1]}"
            )
        if SNR_DEFINITIONS[self.snr.definition].per_realization:
            raise InvalidInput(
                f'snr.definition: got "{self.snr.definition}", whose noise follows each '
                f"channel use, expected another one with a table [{table}]"
            )

    def _check_pusch(self, pusch: Pusch) -> None:
        if self.ofdm is not None:
            raise InvalidInput("ofdm: a scenario with a [pusch] table has its grid from there")
        users = self.channel.get("num_users", 1)
        check_int("channel.num_users", users)
        if self.system.num_streams != users * pusch.num_layers:
            raise InvalidInput(
                f"system.num_streams: got {self.system.num_streams}, expected "
                f"{users * pusch.num_layers}: channel.num_users = {users} times "
                f"pusch.num_layers = {pusch.num_layers}"
            )
        if pusch.dmrs_ports and len(pusch.dmrs_ports) != self.system.num_streams:
            raise InvalidInput(
                f"pusch.dmrs_ports: got {list(pusch.dmrs_ports)}, expected one for each of "
                f"{self.system.num_streams} streams, or none"
            )
        if pusch.precoding == "codebook" and (
            self.snr.definition in ("rx", "frobenius") or self.csi.type == "noisy"
        ):
            raise InvalidInput(
                'pusch.precoding: with "codebook" the power of the precoded channel is not '
                'known, which snr.definition = "rx" and "frobenius" and csi.type = "noisy" need'
            )

    def _check_ofdm(self, ofdm: Ofdm) -> None:
        streams = self.system.num_streams
        if ofdm.pilot_symbols and ofdm.num_subcarriers % streams:
            raise InvalidInput(
                f"ofdm.num_subcarriers: got {ofdm.num_subcarriers}, expected a multiple of "
                f"system.num_streams = {streams}: each stream has its own pilots, on one of "
                f"every {streams} subcarriers"
            )

    @property
    def description(self) -> str:
        """Title, code, its size and rate as far as they are known, and CSI in one line."""
        parts = [self.title or self.name]
        if self.code.type == "none":
            parts.append("uncoded")
        elif self.code.type == "transport-block":
            pusch = self.pusch
            assert pusch is not None  # it was checked
            parts.append(f"MCS {pusch.mcs_index} of table {pusch.mcs_table}")
            parts.append(counted(pusch.num_prbs, "PRB"))
        else:
            name = {"5g": "5G", "alist": Path(self.code.file).stem}
            parts.append(f"{name.get(self.code.type, self.code.type)} LDPC")
            # Reports are also made where the file of a code is not
            with contextlib.suppress(InvalidInput):
                n, k = self.num_coded_bits, self.num_info_bits
                where = " on each stream" if self.code.per_stream else ""
                parts[-1:] = [f"{parts[-1]} ({n}, {k}){where}", f"rate {k / n:.3g}"]
        if self.csi.type == "noisy":
            parts.append(f"CSI error {self.csi.error_snr_db:g} dB")
        elif self.csi.type in ESTIMATED:
            spatial = ", antennas together" if self.csi.spatial else ""
            parts.append(f"{self.csi.type.upper()} channel estimation{spatial}")
        if self.interference is not None:
            parts.append(self.interference.description)
        if self.harq.max_transmissions > 1:
            parts.append(f"HARQ with up to {self.harq.max_transmissions} transmissions")
        return ", ".join(parts)

    @property
    def num_tx(self) -> int:
        """Transmit antennas of all users: one for each stream, unless streams are precoded."""
        if self.pusch is None:
            return self.system.num_streams
        return self.system.num_streams // self.pusch.num_layers * self.pusch.antennas

    @property
    def num_coded_bits(self) -> int:
        """Coded bits of a block, or of a slot of transport blocks."""
        uses = self.code.uses_per_block
        if self.pusch is not None:
            # Here and not above, because it loads Sionna
            from linksim.link.pusch_config import num_data_resources

            uses = num_data_resources(self.pusch)
        elif self.ofdm is not None:
            data_symbols = self.ofdm.num_symbols - len(self.ofdm.pilot_symbols)
            uses = data_symbols * self.ofdm.num_subcarriers
        streams = 1 if self.code.per_stream else self.system.num_streams
        return self.code.coded_bits_of(uses * streams * self.system.num_bits_per_symbol)

    @property
    def num_info_bits(self) -> int:
        """Information bits of a block, or of a slot of transport blocks."""
        if self.code.type == "transport-block":
            # Here and not above, because it loads Sionna
            from linksim.link.pusch_config import pusch_configs

            assert self.pusch is not None  # it was checked
            users = self.channel.get("num_users", 1)
            return users * int(pusch_configs(self.pusch)[0].tb_size)
        return self.code.info_bits_of(self.num_coded_bits)

    @property
    def iterations_per_pass(self) -> int:
        """Decoder iterations of each pass, in receivers of several passes."""
        return self.loop.iterations or self.code.num_iterations

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, as in the TOML file plus `name`."""
        tables = dataclasses.asdict(self)
        for table in ("ofdm", "pusch", "interference"):
            if tables[table] is None:
                del tables[table]
        # Later keys, which older fingerprints do not have
        for key in ("rate", "file", "per_stream", "interleaver"):
            if not tables["code"][key]:
                del tables["code"][key]
        later = ("covariance", "measured"), ("spatial", False), ("error", "variance")
        for key, default in later:
            if tables["csi"][key] == default:
                del tables["csi"][key]
        if self.loop == Loop():
            del tables["loop"]
        elif not self.loop.cn_update:
            del tables["loop"]["cn_update"]
        if self.harq == Harq():
            del tables["harq"]
        return tables

    def replace(self, name: str | None = None, **tables: Any) -> Scenario:
        """A changed copy: `scenario.replace(csi={"type": "noisy", ...})`.

        Args:
            name: of the copy. Without a new name it shares the folder of results.
            tables: for each table, a dictionary of the keys to change.

        Raises:
            InvalidInput: for unknown tables or keys, or invalid values.
        """
        data = copy.deepcopy(self.to_dict())
        for table, changes in tables.items():
            if isinstance(data.get(table), dict) and isinstance(changes, dict):
                data[table].update(changes)
            else:
                data[table] = changes
        data["name"] = self.name if name is None else name
        return scenario_from_dict(data)

    def drawn(self) -> dict[str, Any]:
        """Everything that changes a batch of draws. The run's targets, points, detectors
        and title do not."""
        data = self.to_dict()
        data["batch_size"] = self.run.batch_size
        data["snr_definition"] = self.snr.definition
        data["code"] |= self._code_size()
        data["code"].pop("rate", 0)
        for name, table, key in _files_of(data):
            if table.get(key):
                table[key] = file_hash(name, table[key])
        tables = self.channel, self.channel.get("options")
        unnormalized = any(isinstance(t, dict) and t.get("normalize") is False for t in tables)
        if unnormalized and (
            self.snr.definition in ("rx", "frobenius") or self.csi.type == "noisy"
        ):
            # Their power was taken for 1 once: counts of that time are of other noise
            data["power"] = "with the antennas' gains"
        if self.csi.type in ESTIMATED:
            # It was that of interpolated noise once, without what interpolation gets wrong
            data["error_variance"] = "of interpolation, too"
        for key in ("name", "title", "run", "snr", "loop", "harq"):
            data.pop(key, None)
        if self.harq.max_transmissions > 1:
            quantized = self.harq.quantized
            data["harq"] = {"versions": list(self.harq.versions), "quantized": quantized}
        return data

    def _code_size(self) -> dict[str, int]:
        """The keys of the code's size, so that each code goes by one name."""
        if self.code.type == "802.11n":
            n, k = self.num_coded_bits, self.num_info_bits
            # As they were when there was only one
            n, k = (0, 0) if (n, k) == (648, 324) else (n, k)
            return {"num_coded_bits": n, "num_info_bits": k}
        return {"num_info_bits": self.num_info_bits} if self.code.rate else {}

    def fingerprint(self) -> str:
        """A hash of what is `drawn`."""
        text = json.dumps(self.drawn(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_TABLES = {
    "system": System,
    "code": Code,
    "ofdm": Ofdm,
    "loop": Loop,
    "pusch": Pusch,
    "harq": Harq,
    "csi": Csi,
    "interference": Interference,
    "snr": Snr,
    "run": Run,
}


def scenario_from_dict(data: Mapping[str, Any]) -> Scenario:
    """A `Scenario` from nested dictionaries; unknown keys are refused."""
    data = dict(data) if isinstance(data, Mapping) else data
    check_table("scenario", data)
    unknown = sorted(set(data) - set(_TABLES) - {"name", "title", "channel"})
    if unknown:
        raise InvalidInput(
            f"scenario: unknown key {', '.join(unknown)}; expected some of: title, "
            f"channel, {', '.join(_TABLES)}"
        )
    for key in ("system", "channel", "snr", "run"):
        if key not in data:
            raise InvalidInput(f"scenario: table [{key}] is missing")
    parsed = {}
    for table, kind in _TABLES.items():
        if table in data:
            parsed[table] = dataclass_from_table(table, kind, data[table])
    check_plain_table("channel", data["channel"])
    return Scenario(
        name=data.get("name", "unnamed"),
        title=data.get("title", ""),
        channel=plain(data["channel"]),
        **parsed,
    )


@contextlib.contextmanager
def naming_scenario(scenario: Scenario) -> Iterator[None]:
    """Name the scenario, which is its file, in what a mistake in it raises later: its parts
    check their keys when they are made."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"scenario {scenario.name}: {error}") from None


def _files_of(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The keys that name files, in the tables of a scenario: (name, table, key)."""
    code, channel = data.get("code"), data.get("channel")
    interference = data.get("interference")
    if isinstance(code, dict):
        yield "code.file", code, "file"
    if isinstance(channel, dict):
        if channel.get("type") == "file":
            yield "channel.path", channel, "path"
        # The channel that "fixed" draws its matrices from
        if channel.get("of") == "file" and isinstance(channel.get("options"), dict):
            yield "channel.options.path", channel["options"], "path"
        theirs = interference.get("channel") if isinstance(interference, dict) else None
        if channel.get("type") == "file" and isinstance(theirs, dict):
            yield "interference.channel.path", theirs, "path"


def _located(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A scenario's tables with the files that they name relative to its folder."""
    data = copy.deepcopy(data)
    for name, table, key in _files_of(data):
        if isinstance(table.get(key), str) and table[key]:
            table[key] = str((folder / as_path(name, table[key])).absolute())
    return data


def list_scenarios() -> list[str]:
    """Names of the shipped scenarios."""
    return sorted(p.stem for p in scenario_folder().glob("*.toml"))


def load_scenario(name_or_path: str | Path) -> Scenario:
    """A shipped scenario by name, or one from a TOML file.

    Args:
        name_or_path: a name of `list_scenarios()`, or a path ending in `.toml`.

    Raises:
        InvalidInput: unknown name, unreadable file, unknown key, invalid value.
    """
    path = as_path("scenario", name_or_path)
    if path.suffix != ".toml":
        check_choice("scenario", str(name_or_path), list_scenarios(), "a .toml file or ")
        path = scenario_folder() / f"{name_or_path}.toml"
    data = read_toml(path, "scenario")
    if "name" in data:
        raise InvalidInput(f"{path.name}: unknown key name; the file's name is the name")
    try:
        return scenario_from_dict({**_located(data, path.parent), "name": path.stem})
    except InvalidInput as error:
        raise InvalidInput(f"{path.name}: {error}") from None
