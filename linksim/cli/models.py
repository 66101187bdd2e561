"""List the trained models, or show the card of one.

A model is named <model>/<configuration>, such as oampnet2/rayleigh-4x4-qam16.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linksim.cli.common import load_user_code, make_console, make_parser, run_command
from linksim.data import model_folder
from linksim.errors import InvalidInput
from linksim.models import added_model_folders, list_models

if TYPE_CHECKING:
    from rich.console import Console


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The options of a command line; exits for `--help` and wrong ones."""
    parser = make_parser(prog, __doc__, "oampnet2/rayleigh-4x4-qam16")
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="a model, whose card is shown; or a pattern such as 'oampnet2/*' or a "
        "detector's name, which is listed",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str = "linksim models") -> int:
    """Run the command line and return the exit code."""
    args = parse_arguments(argv, prog)
    return run_command(prog, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    load_user_code(args)
    console = make_console()
    if args.name in list_models():
        _show_card(args.name, console)
    else:
        print_catalogue(console, args.name)
    return 0


def print_catalogue(console: Console, name: str | None = None) -> None:
    """Print a table of the models.

    Args:
        console: where to.
        name: of a detector, or a pattern of models' names; None for all.

    Raises:
        InvalidInput: nothing has such a name.
    """
    from rich.text import Text

    cards = list_models()
    if name is not None:
        patterns = (name, f"{name}/*")
        cards = {
            m: c for m, c in cards.items() if any(fnmatch.fnmatch(m, p) for p in patterns)
        }
        if not cards:
            raise InvalidInput(f"NAME: got {name!r}, no model has such a name")
    rows: list[tuple[str, ...]] = [("model", "status", "system", "MI", "MI of mmse")]
    rows += [_row(model, card) for model, card in cards.items()]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        style = "bold" if row is rows[0] else ""
        console.print(Text("  ".join(cells).rstrip(), style), soft_wrap=True)
    console.print("MI is the mutual information per bit on held-out draws.")


def _row(model: str, card: dict[str, Any]) -> tuple[str, ...]:
    rates = (
        card.get("validation", {}).get("mutual_information"),
        card.get("references", {}).get("mmse"),
    )
    texts = ("" if rate is None else f"{rate:.4f}" for rate in rates)
    return model, card.get("status", ""), system_of(card), *texts


def system_of(card: dict[str, Any]) -> str:
    """Antennas, streams and modulation that a model is for, as in "64x16 to 32, 16-QAM"."""
    bits = card["num_bits_per_symbol"]
    low, high = card["streams"] or [card["num_streams"]] * 2
    streams = f"{low}" if low == high else f"{low} to {high}"
    modulation = "BPSK" if bits == 1 else f"{2**bits}-QAM"
    return f"{card['num_rx']}x{streams}, {modulation}"


def _show_card(name: str, console: Console) -> None:
    own = (folder for folder in added_model_folders() if (folder / name).is_dir())
    path = Path(next(own, model_folder())) / name / "card.md"
    text = path.read_text(encoding="utf-8")
    if console.is_terminal:
        from rich.markdown import Markdown

        console.print(Markdown(text))
    else:
        print(text, end="")
