"""What the commands share: the parser, own detectors and models, and how they end."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from linksim.cli.stop import exit_at_once
from linksim.errors import InvalidInput, ResultFileError, WorkerError, without_framework
from linksim.notices import muted

if TYPE_CHECKING:
    from rich.console import Console


class _HelpFormatter(argparse.HelpFormatter):
    """Shows the defaults of options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        told = isinstance(default, (str, int, float)) and not isinstance(default, bool)
        if told and default != argparse.SUPPRESS and action.option_strings:
            return f"{action.help} (default: %(default)s)"
        return action.help


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and takes `--snr -4:4:2`, where argparse sees an option
    in a value with a minus sign."""

    def error(self, message: str) -> NoReturn:
        """End the program with code 2."""
        self.exit(2, f"{self.prog}: {message}; --help shows the options\n")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As argparse's, after values with a minus sign were joined to their options."""
        joined: list[str] = []
        for text in sys.argv[1:] if args is None else args:
            option = joined[-1] if joined else ""
            if re.match(r"-[.\d]", text) and option.startswith("--") and "=" not in option:
                joined[-1] = f"{option}={text}"
            else:
                joined.append(text)
        return super().parse_args(joined, namespace)


DEFAULT_SCENARIO = "cdl-c-8x4-qam16"


def make_parser(prog: str, doc: str, example: str) -> argparse.ArgumentParser:
    """The parser of a command, with the options that all commands have.

    Args:
        prog: the program's name in messages.
        doc: the module's docstring; its first paragraph is the description.
        example: arguments of an example.
    """
    parser = Parser(
        prog=prog,
        description=doc.split("\n\n")[0],
        epilog=f"Example: {prog} {example}",
        formatter_class=_HelpFormatter,
    )
    own = parser.add_argument_group("your own detectors and models")
    own.add_argument(
        "--models",
        action="append",
        default=[],
        metavar="DIR",
        help="find trained models in this folder too, which is laid out as models/; may be "
        "given several times",
    )
    own.add_argument(
        "--import",
        action="append",
        dest="imports",
        default=[],
        metavar="FILE.py",
        help="run this file first; it can register detectors with "
        "linksim.register_detector; may be given several times",
    )
    return parser


def load_user_code(args: argparse.Namespace) -> None:
    """Do what `--models` and `--import` ask for.

    Raises:
        InvalidInput: there is no such folder or file.
    """
    if args.models:
        from linksim.models import add_model_folder

        for folder in args.models:
            add_model_folder(folder)
    if args.imports:
        start_keras()
        from linksim.data import import_file

        for path in args.imports:
            import_file(path)


def make_console() -> Console:
    """A console without rich's highlighting of numbers, and without its emoji codes, such
    as ":100:" in a path."""
    from rich.console import Console

    return Console(highlight=False, emoji=False)


def print_entry(console: Console, name: str, text: str, width: int = 0) -> None:
    """Print one line: a name in bold, padded to `width`, and a text.

    Both are printed as they are: what looks like rich's markup is text of a user.
    """
    from rich.text import Text

    head = f"{name:{width}} " if name else ""
    console.print(Text.assemble((head, "bold"), text), soft_wrap=True)


def run_command(
    prog: str,
    command: Callable[[], int],
    interrupted: str = "interrupted",
    mendable: tuple[type[Exception], ...] = (
        InvalidInput,
        ResultFileError,
        WorkerError,
        OSError,
    ),
) -> int:
    """Run a command and return its exit code.

    The code is 2 after an exception that the user can do something about, which is
    printed as one line, and 130 after Ctrl-C.

    Args:
        prog: the program's name in messages.
        command: returns the exit code.
        interrupted: what to print after Ctrl-C.
        mendable: the exceptions that become a line; others pass.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A title that the terminal has no characters for is no reason to end
            stream.reconfigure(errors="backslashreplace")
    _interrupted.append(f"{prog}: {interrupted}")
    try:
        return command()
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except mendable as error:
        complain(prog, error)
        return 2
    except KeyboardInterrupt:
        complain(prog, interrupted)
        return 130
    finally:
        _interrupted.pop()


# What the commands in hand print after Ctrl-C
_interrupted: list[str] = []


def interrupted_line() -> str:
    """What the command in hand prints after Ctrl-C."""
    return _interrupted[-1] if _interrupted else "interrupted"


def complain(prog: str, message: object) -> None:
    """Print a line on stderr that begins with the program's name."""
    print(f"{prog}: {message}", file=sys.stderr)


def start_keras(*modules: str) -> None:
    """Import Keras and its backend without the notes that TensorFlow prints at its start.

    Args:
        modules: to import too. What takes long to import is to be named here, where Ctrl-C
            ends the process at once.

    Raises:
        InvalidInput: there is no such backend, or it is not installed.
    """
    with exit_at_once(interrupted_line()), muted():
        try:
            import keras
        except (ImportError, ValueError) as error:
            chosen = os.environ.get("KERAS_BACKEND")
            raise InvalidInput(
                f"KERAS_BACKEND: Keras cannot start with {chosen!r} ({error}); the simulator "
                "needs KERAS_BACKEND=tensorflow"
            ) from None

        if keras.backend.backend() == "tensorflow":
            from linksim.link.devices import find_devices

            find_devices()
        for module in modules:
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise without_framework("KERAS_BACKEND", error) from None
