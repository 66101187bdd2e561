"""The tracks of the benchmark of detection: links that are frozen under a name and a version."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from linksim.errors import InvalidInput, check_choice
from linksim.files import json_hash
from linksim.link.scenario import Scenario, load_scenario
from linksim.tables import dataclass_from_table, read_toml

FILE = Path(__file__).resolve().parent / "tracks.toml"
# The block error rates at which detectors are compared; ranks are those at the first
TARGETS = (0.1, 0.01)


@dataclasses.dataclass(frozen=True)
class Track:
    """A link of the benchmark, and how much of it is simulated.

    Attributes:
        name, title: of the track.
        version: changes whenever its numbers would.
        frozen: hash of all that its numbers depend on; see `digest`.
        scenario: name of a shipped scenario.
        points: SNR in dB, ascending.
        snr_db: one of them, at which mutual information, calibration and the time of a block
            are compared; every detector has to be there.
        bound: the detector that gaps are measured against.
        bound_is: what kind of bound that is, in words.
        blocks: the most blocks of a detector at a point.
        few: detectors that are costly here.
        few_blocks: the most blocks of these.
        without: {detector: why it does not take part}.
        changes: {table of the scenario: {key: value}}.
        batch_size: blocks that are drawn together; 0 takes that of the scenario.
        soft_bits: coded bits behind mutual information and calibration.
        seed: of the draws.
    """

    name: str
    title: str
    version: int
    frozen: str
    scenario: str
    points: list[float]
    snr_db: float
    bound: str
    bound_is: str
    blocks: int = 1000
    few: list[str] = dataclasses.field(default_factory=list)
    few_blocks: int = 200
    without: dict[str, str] = dataclasses.field(default_factory=dict)
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    batch_size: int = 0
    soft_bits: int = 100_000
    seed: int = 0

    def make_scenario(self) -> Scenario:
        """The `Scenario` of the track."""
        scenario = load_scenario(self.scenario)
        run = {"min_bler": TARGETS[-1] / 2, "gap_bler": TARGETS[0]}
        if self.batch_size:
            run["batch_size"] = self.batch_size
        return scenario.replace(title=self.title, run=run, **self.changes)

    def digest(self) -> str:
        """A hash of what is drawn, and of how much of it."""
        kept = ("points", "snr_db", "bound", "blocks", "few", "few_blocks", "soft_bits")
        data = {key: getattr(self, key) for key in (*kept, "seed", "version")}
        text = json_hash({**data, "drawn": self.make_scenario().fingerprint()})
        return text.removeprefix("sha256:")[:12]

    def check_frozen(self) -> None:
        """Refuse a track whose numbers would change.

        Raises:
            InvalidInput: its scenario, or its own entry, is not what it was.
        """
        if self.digest() != self.frozen:
            raise InvalidInput(
                f"track {self.name}: its draws or sizes are not those of version "
                f"{self.version}; raise the version in {FILE.name}, and write "
                f'frozen = "{dataclasses.replace(self, version=self.version + 1).digest()}"'
            )

    def with_seed(self, seed: int) -> Track:
        """The track on other draws; its results do not compare with those of the track."""
        changed = dataclasses.replace(self, seed=seed)
        return dataclasses.replace(changed, frozen=changed.digest())

    def quick(self) -> Track:
        """The track with a fifth of the blocks and a quarter of the bits."""
        fifth = {
            "blocks": max(1, self.blocks // 5),
            "few_blocks": max(1, self.few_blocks // 5),
        }
        changed = dataclasses.replace(self, **fifth, soft_bits=max(1, self.soft_bits // 4))
        return dataclasses.replace(changed, frozen=changed.digest())


def load_tracks(path: Path = FILE) -> dict[str, Track]:
    """{name: `Track`} in the order of a file.

    Raises:
        InvalidInput: the file cannot be read, or an entry has unknown or missing keys, or
            values that do not fit together.
    """
    tracks: dict[str, Track] = {}
    for entry in read_toml(path, "tracks").get("track", []):
        track = dataclass_from_table("track", Track, entry)
        if track.name in tracks:
            raise InvalidInput(f"track: {track.name} stands twice in {path}")
        check_choice(f"track {track.name}: snr_db", track.snr_db, track.points)
        tracks[track.name] = track
    return tracks
