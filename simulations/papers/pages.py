#!/usr/bin/env python3
"""Write the pages of results/papers: which claims of each paper hold.

The verdicts are in verdicts/<paper>.toml. This script writes results/papers/README.md and
the short page of each paper; `<paper>.py --only claims` writes the same verdicts in full,
with the tables that they stand on, into the paper's claims.md.
"""

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from linksim.files import write_atomically
from linksim.tables import read_toml

FOLDER = Path(__file__).resolve().parent / "verdicts"
PAPERS = ("remimo", "wesnet", "hypermimo", "hypermimo_lr", "eqnet")


def load_verdicts(paper):
    """The verdicts on a paper's claims, read from verdicts/<paper>.toml.

    Returns:
        A dictionary: "title", "source" (a key of REFERENCES.bib), "about" (a few lines),
        "intro" (how it was measured), "claims" (each with "id", "claim", "verdict",
        "number", "measured", "holds") and "notes" (each with "title", "text").
    """
    return read_toml(FOLDER / f"{paper}.toml", "verdicts")


def full_verdicts(paper):
    """Lines of claims.md: every claim with all that was measured."""
    data = load_verdicts(paper)
    lines = ["", "## Verdicts", "", data["intro"].strip()]
    for claim in data["claims"]:
        lines += ["", f"### {claim['id']}", "", _claim_text(claim["claim"]), ""]
        lines += ["**Measured.**", "", claim["measured"].strip(), ""]
        lines += [f"**Verdict.** {claim['holds'].strip()}"]
    for note in data.get("notes", []):
        lines += ["", f"### {note['title']}", "", note["text"].strip()]
    return lines


def paper_page(paper):
    """The short page of a paper, Markdown of at most thirty lines."""
    data = load_verdicts(paper)
    lines = [f"# Claims of {data['title']} [{data['source']}]", "", data["about"].strip(), ""]
    lines += ["| id | claim | verdict | measured |", "|---|---|---|---|"]
    for claim in data["claims"]:
        link = f"[{claim['id']}](claims.md#{_anchor(claim['id'])})"
        cells = (link, claim["claim"], claim["verdict"], claim["number"])
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "[claims.md](claims.md) has all numbers with their intervals; figures are"]
    lines += [f"named as in the paper. `simulations/papers/{paper}.py` makes everything here."]
    return "\n".join(lines) + "\n"


def index_page():
    """The index of results/papers: a verdict for each claim."""
    lines = ["# Claims of the papers", ""]
    lines += [
        "Which claims of five papers hold here. Rows whose id is in brackets are no claims"
    ]
    lines += [
        "of the paper but measurements beside them. The page of a paper gives one number"
    ]
    lines += [
        "for each row; its claims.md has all numbers. These pages are written by `python"
    ]
    lines += ["simulations/papers/pages.py`.", ""]
    lines += ["| paper | id | verdict |", "|---|---|---|"]
    for paper in PAPERS:
        data = load_verdicts(paper)
        name = f"[{data['title']}]({paper}/README.md)"
        for claim in data["claims"]:
            shown = f"({claim['id']})" if claim["claim"].startswith("(") else claim["id"]
            lines.append(f"| {name} | {shown} | {claim['verdict']} |")
            name = ""
    return "\n".join(lines) + "\n"


def _claim_text(claim):
    """A claim as a paragraph; what stands in brackets is no claim of the paper."""
    if claim.startswith("("):
        return f"**Beside the claims.** {claim[1].upper()}{claim[2:-1]}."
    return f"**Claim.** {claim}."


def _anchor(title):
    """The anchor that a heading gets where Markdown is shown."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", default="results/papers", metavar="DIR", type=Path)
    args = parser.parse_args(argv)
    pages = {f"{paper}/README.md": paper_page(paper) for paper in PAPERS}
    for file, page in {"README.md": index_page(), **pages}.items():
        path = args.output / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
