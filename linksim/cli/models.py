"""List the trained models, or show the card of one.

A model is named <model>/<configuration>, such as oampnet2/rayleigh-4x4-qam16.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from linksim.cli.common import load_user_code, make_console, make_parser, run_command
from linksim.errors import InvalidInput, did_you_mean
from linksim.models import STATUSES, list_cards, status_of, streams_of
from linksim.training.cards import card_text

if TYPE_CHECKING:
    from rich.console import Console

# Detectors whose mutual information on the same draws stands in cards
_REFERENCES = ("mmse", "ep", "ml")


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
    return run_command(prog, lambda: _run(parse_arguments(argv, prog)))


def _run(args: argparse.Namespace) -> int:
    load_user_code(args)
    console = make_console()
    card = list_cards().get(args.name)
    if card is not None:
        _show_card(card, console)
    else:
        print_catalogue(console, args.name)
    return 0


def print_catalogue(console: Console, name: str | None = None) -> None:
    """Print a table of the models, recommended ones first.

    Args:
        console: where to.
        name: of a detector, or a pattern of models' names; None for all.

    Raises:
        InvalidInput: nothing has such a name.
    """
    from rich.text import Text

    cards = list_cards()
    if name is not None:
        patterns = (name, f"{name}/*")
        cards = {
            m: c for m, c in cards.items() if any(fnmatch.fnmatch(m, p) for p in patterns)
        }
        if not cards:
            names = [*list_cards(), *{m.split("/")[0]: None for m in list_cards()}]
            raise InvalidInput(
                f"NAME: got {name!r}, no model has such a name{did_you_mean(name, names)}"
            )
    rows: list[tuple[str, ...]] = [("model", "status", "system", "MI", *_REFERENCES)]
    for model in sorted(cards, key=lambda m: STATUSES.index(status_of(cards[m]))):
        rows.append(_row(model, cards[model]))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        style = "bold" if row is rows[0] else ""
        console.print(Text("  ".join(cells).rstrip(), style), soft_wrap=True)
    console.print(
        "MI is the mutual information per bit on held-out draws, beside that of other detectors.",
        soft_wrap=True,
    )


def _row(model: str, card: dict[str, Any]) -> tuple[str, ...]:
    references = card.get("references", {})
    rates = [card.get("validation", {}).get("mutual_information")]
    rates += [references.get(name) for name in _REFERENCES]
    texts = ("" if rate is None else f"{rate:.4f}" for rate in rates)
    return model, status_of(card), system_of(card), *texts


def system_of(card: dict[str, Any]) -> str:
    """Antennas, streams and modulation that a model is for, as in "64x16-32, 16-QAM"."""
    bits = card["num_bits_per_symbol"]
    modulation = "BPSK" if bits == 1 else f"{2**bits}-QAM"
    return f"{card['num_rx']}x{streams_of(card)}, {modulation}"


def _show_card(card: dict[str, Any], console: Console) -> None:
    text = card_text(card)
    if console.is_terminal:
        from rich.markdown import Markdown

        console.print(Markdown(text))
    else:
        print(text, end="")
