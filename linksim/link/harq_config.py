"""The [harq] table of a scenario: how blocks that were not decoded are sent again."""

from __future__ import annotations

from dataclasses import dataclass, fields

from linksim.errors import InvalidInput, check_choice, check_int, check_list
from linksim.tables import plain

COMBININGS = ("ir", "chase")
QUANTIZED = ("stored", "all")
_MOST_TRANSMISSIONS, _VERSIONS = 4, (0, 2, 3, 1)


@dataclass(frozen=True)
class Harq:
    """Hybrid ARQ: a block that was not decoded is sent again, and the LLRs add up.

    A block has up to `max_transmissions`; with 1 there is no HARQ. Each has a channel and noise
    of its own. With incremental redundancy, "ir", each sends the bits of its entry of
    `redundancy_versions` ([TS38212], 5.4.2.1), and with "chase" all send the same ones. The
    quantizer of a receiver fills the memory between transmissions ("stored"), while the LLRs
    that have just arrived are decoded as they are; or it quantizes these, too ("all").
    """

    max_transmissions: int = 1
    combining: str = "ir"
    redundancy_versions: tuple = _VERSIONS
    quantized: str = "stored"

    def __post_init__(self) -> None:
        check_int("harq.max_transmissions", self.max_transmissions, 1, _MOST_TRANSMISSIONS)
        check_choice("harq.combining", self.combining, COMBININGS)
        check_choice("harq.quantized", self.quantized, QUANTIZED)
        check_list("harq.redundancy_versions", self.redundancy_versions, "integers")
        object.__setattr__(self, "redundancy_versions", tuple(self.redundancy_versions))
        for version in self.redundancy_versions:
            check_int("harq.redundancy_versions", version, 0, 3)
        for field in fields(self):
            value = getattr(self, field.name)
            if self.max_transmissions == 1 and value != field.default:
                raise InvalidInput(
                    f"harq.{field.name}: got {plain(value)!r} with max_transmissions = 1, "
                    "with which no block is sent again; expected 2 to "
                    f"{_MOST_TRANSMISSIONS} of them, or no such key"
                )
        given = list(self.redundancy_versions)
        if self.combining == "chase" and self.redundancy_versions != _VERSIONS:
            raise InvalidInput(
                f'harq.redundancy_versions: got {given} with combining = "chase", which sends '
                'the same bits each time; expected combining = "ir", or no such key'
            )
        if len(given) < self.max_transmissions:
            raise InvalidInput(
                f"harq.redundancy_versions: got {given}, expected at least one for each of "
                f"max_transmissions = {self.max_transmissions}"
            )

    @property
    def versions(self) -> tuple[int, ...]:
        """The redundancy version of each transmission."""
        if self.combining == "chase":
            return (0,) * self.max_transmissions
        return self.redundancy_versions[: self.max_transmissions]

    def check_code(self, code_type: str) -> None:
        """Refuse a code that these retransmissions cannot be of.

        Args:
            code_type: the scenario's `code.type`.

        Raises:
            InvalidInput: there is no code, or it has no redundancy versions.
        """
        if self.max_transmissions == 1:
            return
        if code_type == "none":
            raise InvalidInput(
                f"harq.max_transmissions: got {self.max_transmissions} without a code, whose "
                "blocks nobody could tell to be wrong; expected another code.type"
            )
        if any(self.versions) and code_type not in ("5g", "transport-block"):
            raise InvalidInput(
                f'harq.combining: got "{self.combining}" with code.type = "{code_type}", which '
                'has no redundancy versions; expected "chase"'
            )
