"""The architecture: which room may import which, and who loads TensorFlow."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From top to bottom. A room, that is a package or a module of linksim, imports rooms of its
# own line and of the lines below.
LAYERS = (
    {"simulations"},
    {"cli"},
    {"export", "montecarlo", "report", "training"},
    {"link"},
    {"names", "registry"},
    {"channels", "complexity", "detectors", "quantization"},
    {"eqnet"},
    {"factories", "figures", "models", "provenance", "torch_onnx", "workers"},
    {
        "backend",
        "constellation",
        "data",
        "errors",
        "files",
        "information",
        "lazy",
        "locks",
        "notices",
        "replaced",
        "snr",
        "start",
        "tables",
        "linksim",
    },
)
# All else in linksim works with every backend of Keras
USES_TENSORFLOW = (
    *("link", "complexity", "export", "report", "backend.py"),
    *("channels/impulse.py", "channels/arrays.py", "channels/cdl.py"),
    *("channels/tdl.py", "channels/urban.py"),
)
# What lists detectors, models and scenarios has to answer at once
WITHOUT_KERAS = (
    "linksim",
    "linksim.channels.base",
    "linksim.data",
    "linksim.errors",
    "linksim.factories",
    "linksim.link.scenario",
    "linksim.models",
    "linksim.names",
    "linksim.quantization.registry",
    "linksim.registry",
    "linksim.snr",
    "linksim.tables",
)

FILES = sorted([*ROOT.glob("linksim/**/*.py"), *ROOT.glob("simulations/**/*.py")])
RANKS = {room: rank for rank, rooms in enumerate(reversed(LAYERS)) for room in rooms}


def room_of(file):
    """The package or module of linksim that a file belongs to, or "simulations"."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "simulations":
        return "simulations"
    return "linksim" if parts[1] == "__init__" else parts[1]


def imports_of(file, inside_functions):
    """Dotted names of what a file imports when it runs, not for type checkers alone."""
    found = set()
    waiting = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = file.relative_to(ROOT).parts[: -node.level]
                module = ".".join([*package, *module.split(".")]).strip(".")
            found.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        elif inside_functions or not isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        ):
            waiting.extend(ast.iter_child_nodes(node))
    return found


def file_of(name, importer):
    """The file of this repository that an imported name is in, or None."""
    parts = name.split(".")
    # Scripts import their neighbours by their own names
    for folder in (ROOT, importer.parent, ROOT / "simulations"):
        for end in range(len(parts), 0, -1):
            path = folder.joinpath(*parts[:end])
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if candidate in FILES:
                    return candidate
    return None


def imported_files(file, inside_functions):
    """Files of this repository that a file imports."""
    found = {file_of(name, file) for name in imports_of(file, inside_functions)}
    return found - {None, file}


def check_no_cycle(graph):
    """Fail, naming the cycle, if a graph {node: what it needs} has one."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("they import each other: " + " <- ".join(map(str, error.args[1])))


def test_imports_are_found_at_both_levels(tmp_path):
    file = FILES[0]
    assert file_of("linksim.errors.InvalidInput", file) == ROOT / "linksim/errors.py"
    assert file_of("linksim.report", file) == ROOT / "linksim/report/__init__.py"
    assert file_of("numpy.linalg", file) is None
    text = "import a.b\ndef f():\n    from c import d\nif a:\n    from e import f, g\n"
    text += "if typing.TYPE_CHECKING:\n    import h\n"
    (tmp_path / "m.py").write_text(text)
    assert imports_of(tmp_path / "m.py", False) == {"a.b", "e.f", "e.g"}
    assert imports_of(tmp_path / "m.py", True) == {"a.b", "c.d", "e.f", "e.g"}


def test_no_files_import_each_other():
    """Not even inside a function, which only hides the cycle from Python."""
    check_no_cycle(
        {
            file.relative_to(ROOT): {
                other.relative_to(ROOT) for other in imported_files(file, True)
            }
            for file in FILES
        }
    )


def test_no_rooms_import_each_other():
    graph = {}
    for file in FILES:
        others = {room_of(other) for other in imported_files(file, True)}
        graph.setdefault(room_of(file), set()).update(others - {room_of(file)})
    check_no_cycle(graph)


def test_imports_go_downwards():
    rooms = {room_of(file) for file in FILES}
    assert rooms <= set(RANKS), f"say in LAYERS where {rooms - set(RANKS)} belong"
    upwards = [
        f"{file.relative_to(ROOT)} imports {other.relative_to(ROOT)}"
        for file in FILES
        for other in sorted(imported_files(file, True))
        if RANKS[room_of(other)] > RANKS[room_of(file)]
    ]
    assert not upwards


def test_tensorflow_and_sionna_stay_in_their_rooms():
    allowed = tuple(ROOT / "linksim" / name for name in USES_TENSORFLOW)
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in FILES
        if room_of(file) != "simulations" and not {*file.parents, file} & set(allowed)
        for name in sorted(imports_of(file, True))
        if name.split(".")[0] in ("tensorflow", "sionna")
    ]
    assert not wrong


def loaded_by(modules):
    """Which of the heavy packages a process loads that imports some modules."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(*{'keras', 'tensorflow', 'sionna', 'torch', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    return done.stdout.split()


def test_importing_linksim_loads_no_framework():
    assert loaded_by(["linksim"]) == []


def test_what_lists_names_loads_no_framework():
    assert loaded_by(WITHOUT_KERAS) == []
