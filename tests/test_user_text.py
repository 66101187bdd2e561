"""Text of a user is data wherever it is printed, drawn or written."""

import csv
import html
import io
import json
import re
from html.parser import HTMLParser

import pytest
from matplotlib.cbook import is_math_text
from rich.console import Console
from rich.markdown import Markdown

import linksim.figures
from linksim.cli.common import make_console, print_entry
from linksim.cli.live import LiveView
from linksim.detectors import MMSEDetector
from linksim.files import load_json, write_atomically
from linksim.models import list_cards
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.output import gap_table, rate_tables, write_results
from linksim.report import write_report
from linksim.training.cards import card_text
from tests.small_runs import SMALL

# LaTeX, rich's markup, its names of pictures, HTML, Jinja, Plotly's variables, Markdown
TITLES = [
    *(r"$\foo$", r"\$5 $x^2$", "[red]dose[/red] [/]", "at :100: :smile:", "a%{x}b %s %d"),
    *("<b>bold</b> &amp; </script>", "{{ 7 * 7 }}", "*a* _b_ `c` #1 |d| [e](f)", "_hidden"),
]
NAMES = ["$a$", "[red]x[red]", "<i>&amp;", "%{x}", "_hidden", "{{ 7 * 7 }}", "a|b*c*"]


@pytest.fixture(scope="module")
def results():
    detectors = [(name, MMSEDetector(2, 2)) for name in NAMES]
    options = {"snr_db": [0, 8], "max_blocks": 20, "xla": "off", "reference": NAMES[1]}
    return simulate(SMALL, detectors, **options)


def titled(results, title):
    scenario = {**results["scenario"], "title": title}
    return {**results, "scenario": scenario}


@pytest.mark.parametrize("title", TITLES)
def test_pictures(results, title, tmp_path, monkeypatch):
    drawn, save = [], linksim.figures.save_figure

    def keep(figure, path):
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(linksim.figures, "save_figure", keep)
    write_results(titled(results, title), tmp_path, ["ser"])
    assert (tmp_path / "ser.png").read_bytes()[:4] == b"\x89PNG"
    (figure,) = drawn
    texts = [figure.get_suptitle(), *(t.get_text() for t in figure.legends[0].get_texts())]
    assert not any(is_math_text(text) for text in texts)
    shown = [text.replace(r"\$", "$").lstrip("\u200b") for text in texts]
    assert shown == [f"{title}, uncoded", *NAMES]


def test_terminal(results, capsys):
    console = make_console()
    console.width = 400
    for title in TITLES:
        print_entry(console, title, title)
        assert capsys.readouterr().out == f"{title} {title}\n"
    view = LiveView(console, [0.0, 8.0], "ser")
    view.batch(0.0, dict.fromkeys(NAMES), [])
    view.point(results)
    for shown in (*rate_tables(results, "ser", 400), gap_table(results)):
        console.print(shown)
    out = capsys.readouterr().out
    for name in NAMES:
        # In the line of the point, the table, and that of gaps or its title
        assert out.count(name) >= 3, name


class Texts(HTMLParser):
    """The texts of a page outside of scripts."""

    def __init__(self, page):
        super().__init__()
        self.found, self._tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self._tags.append(tag)

    def handle_endtag(self, tag):
        self._tags.append("")

    def handle_data(self, data):
        if self._tags[-1:] not in (["script"], ["style"]):
            self.found.append(data)


def test_page(results, tmp_path):
    title = " ".join(TITLES)
    write_results(titled(results, title), tmp_path, [])
    write_report([tmp_path], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = "".join(Texts(page).found)
    assert f"{title}, uncoded" in text
    assert all(name in text for name in NAMES)
    data = json.loads(re.search('type="application/json">(.*?)</script>', page, re.S)[1])
    traces = data["figure"]["data"]
    assert {html.unescape(trace["name"]) for trace in traces} == set(NAMES)
    for trace in traces:
        # Plotly's variables are its own, the name is the one of the trace
        assert re.findall("%{.*?}", trace["hovertemplate"]) == ["%{x:.4~g}", "%{text}"]
        bold = re.match("<b>(.*?)</b>", trace["hovertemplate"])[1]
        assert html.unescape(bold) == trace["meta"]["detector"]


def test_files(results, tmp_path):
    write_results(results, tmp_path, [])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert [row["detector"] for row in rows] == [r["detector"] for r in results["records"]]
    assert load_json(tmp_path / "results.json")["records"] == results["records"]
    # Arguments and names of files can be bytes that are no text
    write_atomically(tmp_path / "page.html", "caf\udce9")
    assert (tmp_path / "page.html").read_text() == "caf\\udce9"


@pytest.mark.parametrize("title", TITLES)
def test_cards(title):
    card = next(card for card in list_cards().values() if "steps" in card)
    text = card_text({**card, "title": title})
    console = Console(file=io.StringIO(), width=200, emoji=False)
    console.print(Markdown(text))
    assert f"\n{title}.\n" in re.sub(" +\n", "\n", console.file.getvalue())
