"""What the main job shows while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from linksim.montecarlo.output import rate_text


class LiveView:
    """Progress on a terminal: a bar, and a table of the current rates.

    Args:
        console: where it is shown; without a terminal only finished points are.
        points: the run's SNR points in dB.
        rate: the rate to show, "bler" or "ser".
    """

    def __init__(self, console: Console, points: Sequence[float], rate: str) -> None:
        self._console = console
        self._points = list(points)
        self._rate = rate
        self._snr_db: float | None = None  # of the batch that came last
        self._names: tuple[str, ...] = ()  # the detectors of this run
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} points"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("compiling", total=len(self._points))
        self._live = Live(
            self._progress, console=console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def batch(self, snr_db: float, counts: dict[str, Any], active: Sequence[str]) -> None:
        """Show the rates after a batch; the arguments are those of `on_progress`."""
        self._snr_db, self._names = snr_db, tuple(counts)
        if not self._console.is_terminal:
            return
        table = Table(box=None, padding=(0, 2))
        unit = {"bler": "blocks", "ser": "symbols"}[self._rate]
        for column in ("detector", self._rate.upper(), "95 % interval", "errors", unit, ""):
            table.add_column(column, justify="left" if column == "detector" else "right")
        for name, c in counts.items():
            if not c.blocks:
                table.add_row(Text(name))
                continue
            if self._rate == "bler":
                errors, total, (low, high) = c.block_errors, c.blocks, c.bler_interval()
            else:
                errors, total, (low, high) = c.symbol_errors, c.symbols, c.ser_interval()
            table.add_row(
                Text(name),
                rate_text(errors / total),
                f"[{rate_text(low)}, {rate_text(high)}]",
                str(errors),
                str(total),
                "" if name in active else "done",
            )
        self._progress.update(
            self._task,
            description=f"{snr_db:g} dB",
            completed=self._points.index(snr_db),
        )
        self._live.update(Group(self._progress, table))

    def point(self, results: dict[str, Any]) -> None:
        """Print one line for a finished point, also where there is no terminal."""
        # A resumed run also has records of later points and of other detectors
        snr = self._snr_db
        rows = [r for r in results["records"] if r["snr_db"] == snr]
        rows = [r for r in rows if r["detector"] in self._names]
        rates = "  ".join(f"{r['detector']} {rate_text(r[self._rate])}" for r in rows)
        self._console.print(
            f"{snr:g} dB  {self._rate.upper()}  {rates}", soft_wrap=True, markup=False
        )
