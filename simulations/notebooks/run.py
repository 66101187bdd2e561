#!/usr/bin/env python3
"""Run notebooks from top to bottom and keep their outputs, without times and versions.

It needs `pip install -e ".[notebooks]"`; `make notebooks` installs that and runs it. Notebooks
whose names end in `_sionna2` are for an environment with PyTorch and Sionna 2.x; each environment
runs its own.
"""

import argparse
import importlib.metadata
import os
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# Of the notebooks on Sionna 2.x and PyTorch
SIONNA_2 = "_sionna2"


def notebook_names():
    """Names of the notebooks without their suffix, in reading order."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def runs_here(name):
    """Whether a notebook is for the Sionna of this interpreter."""
    for package in ("sionna", "sionna-no-rt"):
        try:
            major = int(importlib.metadata.version(package).partition(".")[0])
        except importlib.metadata.PackageNotFoundError:
            continue
        return (major >= 2) == name.endswith(SIONNA_2)
    return not name.endswith(SIONNA_2)


def execute(name, folder=FOLDER):
    """Run a notebook and write it with its outputs.

    Args:
        name: one of `notebook_names()`.
        folder: where the executed notebook goes; by default it replaces the old one.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed, and nothing was written.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(
        notebook,
        timeout=None,  # cells may take long on a busy machine
        kernel_name="python3",
        record_timing=False,
        # Keeps TensorFlow's start-up notes, written below Python, out of the outputs
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
    )
    # Prefer the checkout around this file to an installed linksim
    paths = [str(FOLDER.parent.parent), os.environ.get("PYTHONPATH", "")]
    client.execute(
        cwd=str(FOLDER),
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "torch" if name.endswith(SIONNA_2) else "tensorflow",
            "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        },
    )
    nbformat.write(tidy(notebook), Path(folder) / f"{name}.ipynb")


def tidy(notebook):
    """Remove versions and times from a notebook, and join pieces of its text outputs."""
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
    """Join neighbouring pieces of a stream, because where they are cut depends on timing."""
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
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="notebooks; default: all of this Sionna"
    )
    parser.add_argument(
        "--output",
        default=FOLDER,
        metavar="DIR",
        help="folder for the executed notebooks; default: in place",
    )
    args = parser.parse_args(argv)
    known = notebook_names()
    names = [Path(name).stem for name in args.names]
    names = names or [name for name in known if runs_here(name)]
    unknown = [name for name in names if name not in known]
    if unknown:
        print(
            f"run.py: no notebook {', '.join(unknown)}; there are: {', '.join(known)}",
            file=sys.stderr,
        )
        return 2
    elsewhere = [name for name in names if not runs_here(name)]
    if elsewhere:
        print(
            f"run.py: {', '.join(elsewhere)}: for another version of Sionna than that of "
            f"{sys.executable}; names that end in {SIONNA_2} need 2.x, others 1.2",
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
