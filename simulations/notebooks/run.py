#!/usr/bin/env python3
"""Run notebooks from top to bottom and keep their outputs, without what only dates them.

Needs `pip install -e ".[notebooks]"`; `make notebooks` does all of it.
"""

import argparse
import os
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def notebook_names():
    """Names of the notebooks, without the suffix, in the order they are read in."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def execute(name, folder=FOLDER):
    """Run a notebook and write it with its outputs.

    Args:
        name: one of `notebook_names()`.
        folder: where the executed notebook goes; by default it takes the place of the old.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; nothing is written.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(
        notebook,
        timeout=None,  # a shared machine may take its time
        kernel_name="python3",
        record_timing=False,
        # TensorFlow's notes at the start, written below Python, stay out of the outputs
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
    )
    # The checkout around this file comes before an installed linksim
    paths = [str(FOLDER.parent.parent), os.environ.get("PYTHONPATH", "")]
    client.execute(
        cwd=str(FOLDER),
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        },
    )
    nbformat.write(tidy(notebook), Path(folder) / f"{name}.ipynb")


def tidy(notebook):
    """The notebook without versions and times, and with each text output in one piece."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return notebook


def _joined(outputs):
    """Neighbouring pieces of a stream as one: where they are cut is a matter of timing."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else None
        streams = output.output_type == "stream" and last and last.output_type == "stream"
        if streams and last.name == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="Example: run.py 2_harq_relay"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    parser.add_argument("--output", default=FOLDER, metavar="DIR", help="default: in place")
    args = parser.parse_args(argv)
    known = notebook_names()
    names = [Path(name).stem for name in args.names] or known
    unknown = [name for name in names if name not in known]
    if unknown:
        print(
            f"run.py: no notebook {', '.join(unknown)}; there are: {', '.join(known)}",
            file=sys.stderr,
        )
        return 2
    try:
        import nbclient
    except ImportError:
        print('run.py: needs pip install -e ".[notebooks]"', file=sys.stderr)
        return 2
    Path(args.output).mkdir(parents=True, exist_ok=True)
    for name in names:
        started = time.perf_counter()
        try:
            execute(name, args.output)
        except nbclient.exceptions.CellExecutionError as error:
            print(f"run.py: {name}: {error}", file=sys.stderr)
            return 1
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
