"""Sources are cited by keys of REFERENCES.bib."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Where somebody reads a citation
KINDS = ("*.py", "*.md", "*.toml", "*.ipynb", "*.cfg")
FOLDERS = ("linksim", "models", "simulations", "tests", "results")
# A key: a name, two digits of a year, perhaps a letter
KEY = re.compile(r"\[([A-Z][A-Za-z]+\d\d[a-z]?|T[RS]38\d{3})(?=[],;])")
# A name of a file that begins with a number and goes on with its hash
HASHED = re.compile(r"\b\d{3}_[0-9a-f]{16}")


def texts():
    yield ROOT / "README.md", (ROOT / "README.md").read_text(encoding="utf-8")
    for folder in FOLDERS:
        for kind in KINDS:
            for path in sorted((ROOT / folder).rglob(kind)):
                if "runs" not in path.parts:
                    yield path, path.read_text(encoding="utf-8")


def keys_of_bibliography():
    text = (ROOT / "REFERENCES.bib").read_text(encoding="utf-8")
    return re.findall(r"^@\w+\{(\w+),$", text, re.MULTILINE)


def test_the_bibliography_is_in_order():
    keys = keys_of_bibliography()
    assert len(keys) > 20
    assert keys == sorted(set(keys), key=str.lower)


def test_every_key_has_an_entry():
    known, used = set(keys_of_bibliography()), set()
    for path, text in texts():
        found = set(KEY.findall(text))
        assert found <= known, (str(path), found - known)
        used |= found
    assert {"Pratik21", "Mohammad20", "Goutay20", "Zilberstein21", "Arvinte20"} <= used


def test_no_source_is_a_hashed_file():
    for path, text in texts():
        assert not HASHED.search(text), path
