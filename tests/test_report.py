"""The HTML page of runs: what it shows, and that it refuses files it cannot trust."""

import copy
import html.parser
import json
import math
import re
from pathlib import Path

import pytest

import linksim
from linksim.complexity import count_flops
from linksim.errors import InvalidInput, ResultFileError
from linksim.files import load_json
from linksim.link.scenario import load_scenario
from linksim.montecarlo.output import write_results
from linksim.report import build_page, read_runs, write_report
from linksim.report.cells import cost_cells, measured_costs
from linksim.report.curves import curve_figure, style_of
from tests import browser as browser_pages
from tests.conftest import load_script

ROOT = Path(__file__).resolve().parent.parent
SCENARIO = "gauss-markov-4x2-qpsk"
DEFAULT = ROOT / "results/cdl-c-8x4-qam16"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with a curve that crosses the target and one with no error at some point."""
    results = linksim.simulate(
        SCENARIO, ["mmse", "zf"], snr_db=[8, 12, 16, 40], max_blocks=1500
    )
    folder = tmp_path_factory.mktemp("run")
    write_results(results, folder)
    return folder


def test_results_are_written_and_other_rates_refused(folder, results, tmp_path):
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "results.csv",
        "bler.png",
        "ber.png",
    }
    header, *rows = (folder / "results.csv").read_text().splitlines()
    assert "snr_db" in header and len(rows) == len(results["records"])
    with pytest.raises(InvalidInput, match="rates: got 'fer'.* one of: bler"):
        write_results(results, tmp_path / "none", rates=("bler", "fer"))
    assert not (tmp_path / "none").exists()


@pytest.fixture
def results(folder):
    return load_json(folder / "results.json")


def written(results, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


class Page(html.parser.HTMLParser):
    """Elements of a page with their attributes, its text, and the data inside."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.data, self._inside = [], [], None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._inside = tag, dict(attributes)
        self.elements.append(self._inside)

    def handle_data(self, data):
        tag, attributes = self._inside or ("", {})
        if attributes.get("id") == "data" and self.data is None:
            self.data = json.loads(data)
        elif tag not in ("script", "style"):
            self.words.append(data.strip())

    @property
    def text(self):
        return " ".join(w for w in self.words if w)

    def traces(self, **meta):
        found = self.data["figure"]["data"]
        return [t for t in found if meta.items() <= t["meta"].items()]


@pytest.fixture(scope="module")
def page(folder):
    return Page(build_page(read_runs([folder])))


def test_a_page_needs_nothing_else(page):
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object")
        assert not {"src", "href"} & set(attributes), (tag, attributes)
    policy = [a["content"] for t, a in page.elements if a.get("http-equiv")]
    assert policy and policy[0].startswith("default-src 'none'")
    assert any(a.get("name") == "viewport" for t, a in page.elements)


@pytest.mark.parametrize(
    "rate, total", [("bler", "blocks"), ("ber", "bits"), ("ser", "symbols")]
)
def test_curves_are_the_records(page, results, rate, total):
    (curve, bound) = page.traces(detector="zf", rate=rate)
    records = [r for r in results["records"] if r["detector"] == "zf"]
    seen, clean = records[:3], records[3]
    assert curve["y"] == [r[rate] for r in seen] and curve["x"] == [8, 12, 16]
    bars = curve["error_y"]
    for r, above, below, text in zip(seen, bars["array"], bars["arrayminus"], curve["text"]):
        assert r[rate] + above == pytest.approx(r[f"{rate}_high"])
        assert r[rate] - below == pytest.approx(max(r[f"{rate}_low"], r[rate] / 10))
        errors = r[{"bler": "block_errors", "ber": "bit_errors", "ser": "symbol_errors"}[rate]]
        assert f"{errors:,} errors in {r[total]:,} {total}" in text
    # Points without an error show the upper end of the interval, and no line leads to them
    assert clean["block_errors"] == 0
    assert bound["y"] == [clean[f"{rate}_high"]] and bound["mode"] == "markers"
    assert curve["visible"] == bound["visible"] == (rate == "bler")


def test_snr_axes_are_those_of_the_noise(page, results):
    (curve, _) = page.traces(detector="mmse", rate="bler")
    axes = curve["meta"]["definitions"]
    assert set(axes) == {"rx", "esno", "ebno", "frobenius"} == set(page.data["definitions"])
    no = [r["no"] for r in results["records"] if r["detector"] == "mmse"][:3]
    assert axes["rx"] == [8, 12, 16]
    assert axes["esno"] == pytest.approx([-10 * math.log10(n) for n in no], abs=1e-5)
    # QPSK without a code has two bits per symbol
    assert axes["ebno"] == pytest.approx(
        [a - 10 * math.log10(2) for a in axes["esno"]], abs=1e-5
    )
    # With four antennas, E||H||_F^2 is four times E||Hx||^2 of one antenna
    assert axes["frobenius"] == pytest.approx(
        [a + 10 * math.log10(4) for a in axes["rx"]], abs=1e-5
    )
    shift = axes["esno"][0] - 8
    crossings = page.data["runs"][0]["crossings"]
    for name in ("mmse", "zf"):
        ours, theirs = crossings["rx"][name]["value"], crossings["esno"][name]["value"]
        assert 12 < ours < 16 and theirs - ours == pytest.approx(shift, abs=1e-5)


def test_points_that_convert_to_nothing_else(results, tmp_path):
    for record in results["records"]:
        record["no"] *= 1.5
    (run,) = read_runs([written(results, tmp_path / "other-no")])
    assert list(run.snr_db) == ["rx"] and "another N0" in run.note
    changing = linksim.simulate("wesnet-20x10-bpsk", ["mmse"], snr_db=[8], max_blocks=100)
    (run,) = read_runs([written(changing, tmp_path / "detnet")])
    assert list(run.snr_db) == ["detnet"] and "channel to channel" in run.note
    both = Page(build_page(read_runs([tmp_path / "other-no", tmp_path / "detnet"])))
    assert set(both.data["definitions"]) == {"rx", "detnet"}
    assert [t["visible"] for t in both.traces(run=1, rate="bler")] == [False]


def test_tables_and_provenance(page, results):
    gap = next(g for g in results["gaps"] if g["detector"] == "zf")
    assert (
        f"{gap['gap_db']:+.2f} [{gap['gap_db_low']:+.2f}, {gap['gap_db_high']:+.2f}]"
        in page.text
    )
    system = results["scenario"]["system"]
    detector = linksim.create_detector(
        "zf",
        num_streams=system["num_streams"],
        num_bits_per_symbol=system["num_bits_per_symbol"],
    )
    assert f" {count_flops(detector, system['num_rx']).flops:,} " in page.text
    record = next(r for r in results["records"] if r["detector"] == "zf" and r["snr_db"] == 16)
    cells = page.data["runs"][0]["points"]["16"]["zf"]
    assert f"{record['block_errors']:,} of {record['blocks']:,}" in cells["bler"]["detail"]
    assert cells["ms"]["value"] == pytest.approx(1e3 * record["seconds"] / record["blocks"])
    # The table first shows a point where all detectors have errors
    assert cells["bler"]["detail"] in page.text
    made = results["provenance"]
    for text in (made["versions"]["sionna"], made["fingerprint"], made["finished_at"]):
        assert text in page.text
    assert f"Seed {made['seed']}" in page.text and '"num_streams": 2' in page.text
    assert "Workers" not in page.text  # none were used


def test_every_column_sorts_and_the_first_one_stays(page):
    """The script sorts by `data-value`; a browser shows it in the slow tests."""
    heads = [a for t, a in page.elements if t == "th" and a.get("scope") == "col"]
    buttons = [a for t, a in page.elements if t == "button" and "data-sort" in a]
    assert len(heads) == len(buttons) >= 7 and all(a["aria-sort"] == "none" for a in heads)
    cells = [a for t, a in page.elements if t == "td" and a["data-detector"] == "zf"]
    assert [a["data-cell"] for a in cells if "data-value" in a] == [
        *("crossing", "gap", "bler", "ms", "flops", "parameters"),
    ]
    style = (ROOT / "linksim/report/templates/report.css").read_text(encoding="utf-8")
    (first,) = re.findall(r"^th:first-child {(.*?)}", style, re.MULTILINE)
    assert "position: sticky" in first and "left: 0" in first


def test_curves_look_as_in_the_pictures(results, tmp_path):
    """Those after the tenth have hollow markers in the figure, the switches and the table."""
    mmse = [r for r in results["records"] if r["detector"] == "mmse"]
    results["records"] = [{**r, "detector": f"d{i}"} for i in range(13) for r in mmse]
    results["gaps"] = []
    runs = read_runs([written(results, tmp_path)])
    styles = style_of(runs)
    assert (
        len({(s["color"], s["symbol"].removesuffix("-open")) for s in styles.values()}) == 13
    )
    page = Page(build_page(runs))
    for index, (name, style) in enumerate(styles.items()):
        assert style["symbol"].endswith("-open") == (index > 9)
        assert style["dash"] == ("solid" if index < 10 else "dash")
        (curve,) = (t for t in page.traces(detector=name, rate="bler") if "line" in t)
        assert curve["marker"]["symbol"] == style["symbol"]
        same = sum(s["glyph"] == style["glyph"] for s in styles.values())
        assert page.words.count(style["glyph"]) == 2 * same


def test_workers_are_said(results, tmp_path):
    results = copy.deepcopy(results)
    results["provenance"]["workers"] = {
        **{"number": 3, "threads": 2, "gpus": 0.0, "deaths": 0},
        "machines": {"x86_64, Linux": 2, "arm64, Linux": 1},
    }
    page = Page(build_page(read_runs([written(results, tmp_path / "run")])))
    assert "3 with 2 threads each (2 on x86_64, Linux, 1 on arm64, Linux)" in page.text


def test_runs_of_one_scenario_have_their_own_labels(folder, results, tmp_path):
    second = written(results, tmp_path / "b" / "run")
    third = written(results, tmp_path / "c" / "run")
    labels = [run.label for run in read_runs([folder, second, third / "results.json"])]
    assert labels[1:] == ["b/run", "c/run"] and len(set(labels)) == 3
    page = Page(build_page(read_runs([second, third])))
    chips = [a["data-name"] for t, a in page.elements if a.get("data-kind") == "run"]
    assert chips == ["0", "1"]
    # The colour stands for the detector, the dash for the run
    lines = [page.traces(run=run, detector="zf", rate="bler")[0]["line"] for run in (0, 1)]
    assert lines[0]["color"] == lines[1]["color"] and lines[0]["dash"] != lines[1]["dash"]


def test_costs_of_other_weights_are_not_shown(results, tmp_path):
    results["provenance"]["weights"] = {"zf": {"zf/mine": "0" * 64}}
    results["records"] += [
        {**r, "detector": name}
        for name in ("sdr", "gone")
        for r in results["records"]
        if r["detector"] == "zf"
    ]
    (run,) = read_runs([written(results, tmp_path)])
    costs = measured_costs(run, repeats=2)
    assert set(costs) == {"mmse", "sdr"}
    # It has a loop, so its time is known and its operations are not
    assert costs["sdr"]["flops"] is None and costs["sdr"]["us"] > 0
    assert costs["mmse"]["flops"] > 100 and costs["mmse"]["us"] > 0


def test_a_quantizer_has_parameters():
    """The networks and codebooks of EQ-Net behind ML, which has none itself."""
    (run,) = read_runs([DEFAULT])
    cells = cost_cells(run, measured_costs(run))
    assert cells["ml"]["parameters"].text == "0" == cells["mmse"]["parameters"].text
    quantized = cells["ml+eqnet-mi:6"]
    assert quantized["parameters"].value > 100_000 and not quantized["parameters"].detail
    assert quantized["flops"].detail == "without its quantizer"


@pytest.mark.parametrize(
    "table, changes",
    [
        ("code", {"type": "alist", "file": "/gone/mine.alist"}),
        ("channel", {"type": "file", "path": "/gone/h.npy"}),
    ],
)
def test_a_page_needs_no_file_of_the_scenario(results, tmp_path, table, changes):
    """Results travel, and what their scenario names may stay behind."""
    scenario = load_scenario("rayleigh-4x4-qam16").to_dict()
    results["scenario"] = {**scenario, table: changes}
    (run,) = read_runs([written(results, tmp_path)])
    assert "the link cannot be built here" in run.note
    text = build_page([run])
    assert "/gone/" in text and (table != "code" or "mine LDPC" in text)


def test_costs_say_what_they_leave_out(results, tmp_path):
    name, quantized = "mmse/3", "mmse+max-mi@rayleigh-4x4-qam16:3/2"
    results["records"] += [
        {**r, "detector": d}
        for d in (name, quantized, "mine/layer")
        for r in results["records"]
        if r["detector"] == "zf"
    ]
    (run,) = read_runs([written(results, tmp_path)])
    cost = {"flops": 1, "parameters": 2, "us": 3.0}
    cells = cost_cells(run, {name: cost, quantized: cost})
    assert [cells[name][key].detail for key in cost] == ["of one pass", "", "of one pass"]
    assert cells[quantized]["us"].detail == "of one pass, without its quantizer"
    # The name of a layer in older results may look like that of a receiver of several passes
    assert cells["mine/layer"]["us"].text == "–"


@pytest.mark.parametrize("rate", ["bler", "ber", "ser"])
def test_no_arrow_stands_over_a_lower_rate_with_many_errors(rate):
    """The curve of ML ends with 14 failed blocks, and then none in as many."""
    (run,) = read_runs([DEFAULT])
    figure = curve_figure([run], rate, run.definition)
    bounds = 0
    for name in run.detectors:
        seen = [r for r in run.records(name) if r[rate]]
        for trace in figure.data:
            if trace.meta["detector"] == name and trace.meta["rate"] == rate:
                if trace.marker.symbol == "arrow-down-open":
                    bounds += 1
                    assert seen[-1]["block_errors"] >= 4
                    assert max(trace.y) < seen[-1][rate]
    assert bool(bounds) == (rate != "ser")


def test_names_are_texts_and_nothing_else(results, tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    for record in results["records"]:
        record["detector"] = evil if record["detector"] == "zf" else "mmse"
    results["gaps"] = []
    results["provenance"]["command"] = [evil]
    text = build_page(read_runs([written(results, tmp_path)]))
    page = Page(text)
    assert not [e for e in page.elements if e[0] == "img"] and page.data is not None
    assert page.traces(detector=evil, rate="bler")


def test_a_run_without_a_point(results, tmp_path):
    results.update(records=[], gaps=[])
    results["provenance"]["complete"] = False
    page = Page(build_page(read_runs([written(results, tmp_path)])))
    assert "No point was simulated" in page.text and "interrupted" in page.text


def _without(results, key):
    return {k: v for k, v in results.items() if k != key}


def _first_record(results, **changes):
    return {**results, "records": [{**results["records"][0], **changes}]}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda r: [], "holds a list, expected a dictionary"),
        (lambda r: _without(r, "gaps"), "no gaps"),
        (lambda r: {"label": "rho", "records": []}, "a sweep over 'rho'"),
        (lambda r: _first_record(r, bler=0.123), "bler is 0.123, but there are"),
        (lambda r: _first_record(r, bits=None), "bits is None"),
        (lambda r: _first_record(r, no=float("nan")), "no is nan"),
        (lambda r: _first_record(r, block_errors=10**9), "1000000000 errors of"),
        (lambda r: _first_record(r, ser_high=0.0), "ser lies outside"),
        (
            lambda r: {**r, "records": r["records"] + r["records"][:1]},
            "two records at one SNR",
        ),
        (lambda r: {**r, "gaps": [{}]}, "got the gap {}"),
        (lambda r: {**r, "checksum": "sha256:0"}, "was edited, or is damaged"),
        (lambda r: {**r, "scenario": {**r["scenario"], "more": 1}}, "unknown key more"),
    ],
)
def test_files_that_are_refused(results, tmp_path, change, message):
    written(change(results), tmp_path)
    with pytest.raises(ResultFileError, match="results.json: ") as error:
        read_runs([tmp_path])
    assert message in str(error.value)


def test_a_truncated_file_and_bad_arguments(folder, results, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results)[:-100])
    with pytest.raises(ResultFileError, match="not a JSON file"):
        read_runs([file])
    with pytest.raises(ResultFileError, match="cannot be read"):
        read_runs([tmp_path / "nothing.json"])
    with pytest.raises(InvalidInput, match="results: empty"):
        read_runs([])
    with pytest.raises(InvalidInput, match="given twice"):
        read_runs([folder, folder / "results.json"])
    with pytest.raises(InvalidInput, match="rate: got 'per'"):
        build_page(read_runs([folder]), rate="per")


def test_the_script(folder, tmp_path, capsys):
    script = load_script(ROOT / "simulations/report.py")
    output = tmp_path / "new" / "page.html"
    assert (
        script.main([str(folder), "--output", str(output), "--rate", "ser", "--latency", "1"])
        == 0
    )
    page = Page(output.read_text(encoding="utf-8"))
    assert page.data["rate"] == "ser" and "Time per vector" in page.text
    assert script.main([str(tmp_path / "nothing"), "--output", str(output)]) == 2
    assert "report.py: " in capsys.readouterr().err


# --- in a browser -----------------------------------------------------------------------


class Browser(browser_pages.Page):
    """The page of a report in Chromium."""

    def __init__(self, context, path):
        super().__init__(context, path)
        self.page.wait_for_selector("#curves .scatterlayer .trace")

    def trace(self, **meta):
        """The curve with this `meta`, as Plotly draws it."""
        script = """meta => {
            const found = document.getElementById("curves").data.filter(t =>
                t.mode !== "markers" && Object.keys(meta).every(k => t.meta[k] === meta[k]));
            const {x, y, visible, error_y} = found[0];
            return {count: found.length, x: [...x], y: [...y], visible, bars: error_y.visible};
        }"""
        found = self.page.evaluate(script, meta)
        assert found["count"] == 1
        return found

    def hover(self, x, y):
        """The text that appears when the mouse is at a point of the axes."""
        script = """([x, y]) => {
            const plot = document.getElementById("curves");
            const {xaxis, yaxis, _size} = plot._fullLayout;
            const box = plot.getBoundingClientRect();
            return [box.left + _size.l + xaxis.d2p(x), box.top + _size.t + yaxis.d2p(y)];
        }"""
        self.page.locator("#curves").scroll_into_view_if_needed()
        left, top = self.page.evaluate(script, [x, y])
        self.page.mouse.move(left - 3, top)
        self.page.mouse.move(left, top, steps=3)
        label = self.page.locator("#curves .hoverlayer .hovertext").first
        label.wait_for()
        return label.text_content()

    def y_range(self):
        """The range of the rate axis in exponents of ten: as drawn, and as the data asks for."""
        script = """() => {
            const plot = document.getElementById("curves");
            const page = JSON.parse(document.getElementById("data").textContent);
            return [plot._fullLayout.yaxis.range, page.rates[page.rate].range];
        }"""
        return self.page.evaluate(script)

    def drawn(self):
        return self.page.locator("#curves .scatterlayer .trace").count()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Opens a page: `browser(path, width, height, touch=False)`."""
    with browser_pages.windows(lambda: tmp_path_factory.mktemp("profile")) as window:
        yield lambda path, width=1280, height=900, touch=False: Browser(
            window(width, height, touch), path
        )


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The page of the default scenario's results, and their records by detector and SNR."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report([DEFAULT], path)
    records = json.loads((DEFAULT / "results.json").read_text())["records"]
    return path, {(r["detector"], r["snr_db"]): r for r in records}


@pytest.mark.slow
def test_hover_shows_the_counts(shipped, browser):
    path, records = shipped
    view = browser(path)
    record = records["zf-pic", 14]
    label = view.hover(14, record["bler"])
    assert "zf-pic" in label and "14 dB" in label
    assert f"{record['block_errors']:,} errors in {record['blocks']:,} blocks" in label
    view.page.click("[data-rate=ser]")
    record = records["zf-pic", 20]
    label = view.hover(20, record["ser"])
    assert f"{record['symbol_errors']:,} errors in {record['symbols']:,} symbols" in label
    assert not view.complaints and view.requests == [path.as_uri()]


@pytest.mark.slow
def test_switches(shipped, browser):
    path, records = shipped
    view = browser(path)
    page = view.page
    before = view.drawn()
    row = page.locator("tr[data-detector=ep]")
    chip = page.locator(".chip[data-name=ep]")
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false" and view.drawn() == before - 1
    assert view.trace(detector="ep", rate="bler")["visible"] is False and not row.is_visible()
    chip.click()
    assert view.drawn() == before and row.is_visible()
    page.click("[data-all=false]")
    assert view.drawn() == 0
    drawn, asked = view.y_range()
    assert drawn == pytest.approx(asked)
    page.click("[data-all=true]")
    assert view.drawn() == before

    page.uncheck("#intervals")
    assert view.trace(detector="ep", rate="bler")["bars"] is False
    assert page.locator("#curves .errorbar:visible").count() == 0

    crossing = page.locator("tr[data-detector=ml] [data-cell=crossing]")
    title = page.locator("#curves .xtitle")
    assert "1/N" in title.text_content()
    at_first, x = float(crossing.inner_text()), view.trace(detector="ml", rate="bler")["x"]
    page.select_option("#definition", "rx")
    # With unit channel power and four streams it is 6.02 dB more
    assert "Hx" in title.text_content()
    moved = view.trace(detector="ml", rate="bler")["x"]
    drawn, asked = view.y_range()
    assert drawn == pytest.approx(asked)
    assert moved == pytest.approx([snr + 6.0206 for snr in x], abs=1e-3)
    assert float(crossing.inner_text()) == pytest.approx(at_first + 6.0206, abs=0.011)

    bler = page.locator("tr[data-detector=mmse] [data-cell=bler]")
    page.select_option("[data-points]", "12")
    record = records["mmse", 12]
    assert f"{record['block_errors']:,} of {record['blocks']:,}" in bler.inner_text()

    page.click("th:has-text('FLOPs') button")
    names = [r.get_attribute("data-detector") for r in page.locator("tbody tr").all()]
    assert names[0] == "zf" and names[-1] == "eqnet-l-sic"
    assert not view.complaints and view.requests == [path.as_uri()]


@pytest.mark.slow
def test_runs_are_switched(folder, shipped, browser, tmp_path):
    path = tmp_path / "two.html"
    write_report([DEFAULT, folder], path)
    view = browser(path)
    assert view.trace(run=1, detector="mmse", rate="bler")["visible"]
    view.page.click(".chip[data-kind=run][data-name='1']")
    assert view.trace(run=1, detector="mmse", rate="bler")["visible"] is False
    assert view.trace(run=0, detector="mmse", rate="bler")["visible"]
    assert not view.page.locator(".run[data-run='1']").is_visible()
    # With several runs, the label says which one it is
    assert DEFAULT.name in view.hover(14, shipped[1]["zf-pic", 14]["bler"])
    assert not view.complaints


@pytest.mark.slow
def test_a_phone(shipped, browser):
    path, records = shipped
    view = browser(path, 375, 812, touch=True)
    assert view.fits()
    plot = view.page.locator("#curves .main-svg").first.bounding_box()
    assert plot["width"] <= 375 and plot["height"] > 300
    # Also when everything is unfolded
    view.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert view.fits()
    for chip in view.page.locator(".chip").all():
        assert chip.bounding_box()["height"] >= 28
    view.page.locator(".chip[data-name=mmse]").tap()
    assert view.trace(detector="mmse", rate="bler")["visible"] is False
    assert not view.complaints
