"""The scripts of the papers: tables of figures, small runs of each kind, and the pages."""

import argparse
import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import linksim
import linksim.models
from linksim.link.scenario import load_scenario
from linksim.models import _kind, find_model, list_cards, list_models
from linksim.names import parse_receiver
from linksim.training.recipe import list_recipes, load_recipe
from linksim.training.source import TRAINING, VectorSource

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "simulations" / "papers"


@pytest.fixture
def script(monkeypatch):
    """Imports a script as if it were run."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name):
        for module in (name, "common", "pages"):
            sys.modules.pop(module, None)
        return importlib.import_module(name)

    return load


def test_tables_of_eqnet(script):
    eqnet = script("eqnet")
    for scenario, detectors, points in eqnet.FIGURES.values():
        load_scenario(scenario)
        assert points == sorted(set(points))
        for name in detectors:
            parse_receiver(name)


def test_tables_of_remimo(script):
    remimo = script("remimo")
    assert set(remimo.CHANNELS) == set(remimo.FIGURES) - {"others", "muon"}
    title = remimo.scenario_of("others", "64x24-qam64-corr-rx").title
    assert title == "receive-correlated, 64x24, 64-QAM"
    for figure, panels in remimo.FIGURES.items():
        for panel, (scenario, changes, detectors, points) in panels.items():
            changed = remimo.scenario_of(figure, panel)
            assert changed.channel.keys() == load_scenario(scenario).channel.keys()
            assert changes.get("channel", {}).items() <= changed.channel.items()
            assert points == sorted(set(points))
            for name in detectors:
                parse_receiver(name)


def test_tables_of_hypermimo(script):
    hypermimo = script("hypermimo")
    for scenario, detectors in hypermimo.PANELS.values():
        assert hypermimo.coded(scenario, "a title").code.num_info_bits == 540
        for name in detectors:
            parse_receiver(name)
    assert hypermimo.POINTS == sorted(set(hypermimo.POINTS))
    # MMNet runs only on the channels that it was trained for
    assert [p for p, (_, d) in hypermimo.PANELS.items() if "mmnet" in d] == ["fixed"]


def test_tables_of_hypermimo_lr(script):
    hypermimo_lr = script("hypermimo_lr")
    recipes = list_recipes()
    for name in hypermimo_lr.DETECTORS:
        spec = parse_receiver(name)
        if spec.model:
            assert f"{spec.detector}/{spec.model}" in recipes
    for power in hypermimo_lr.PANELS.values():
        for hop in (-1, 0, 4):
            channel = hypermimo_lr.sequences(power, hop).channel
            assert (channel["innovation_power"], channel["hop"]) == (power, hop)
    assert hypermimo_lr.POINTS == sorted(set(hypermimo_lr.POINTS))
    assert {5, 10} <= set(hypermimo_lr.POINTS)


def shipped_recipe(name):
    """A recipe of the checkout, also where a test has an empty folder of models."""
    return load_recipe(ROOT / "models" / name / "recipe.toml")


def small_models(*recipes):
    """Publish trainings of two steps; `recipes` are pairs (name, changes)."""
    from tests.trainings import published

    for name, changes in recipes:
        recipe = shipped_recipe(name)
        data = dataclasses.replace(recipe.data, batch_size=changes.pop("batch_size"))
        changes = {"steps": 2, "validate_every": 2, "validation_batches": 1, **changes}
        changes["jit_compile"] = False
        published(dataclasses.replace(recipe, data=data, **changes))


@pytest.mark.slow
def test_figures_and_claims_of_hypermimo(script, tmp_path, monkeypatch, models):
    hypermimo = script("hypermimo")
    monkeypatch.chdir(tmp_path)
    scenario = "local-scattering-12x6-qpsk"
    small_models(
        (f"hypermimo/{scenario}", {"batch_size": 20}),
        (f"mmnet/{scenario}-fixed", {"batch_size": 200}),
    )
    monkeypatch.setattr(hypermimo, "DETECTORS", ["mmse", "hypermimo", "oampnet"])
    fixed = (f"{scenario}-fixed", ["mmse", "hypermimo", "mmnet", "oampnet"])
    monkeypatch.setattr(hypermimo, "PANELS", {"fixed": fixed})
    monkeypatch.setattr(hypermimo, "POINTS", [0, 6])
    monkeypatch.setattr(hypermimo, "SWEEPS", {"2db": 2.0})
    monkeypatch.setattr(hypermimo, "MOBILITY", {"fig6b": ("2d", (0, 20), "Metres")})
    monkeypatch.setattr(hypermimo, "BATCH_SIZE", 20)
    folder = tmp_path / "out"
    arguments = [a for name in ("fig4", "fig5", "fig6b", "claims") for a in ("--only", name)]
    assert hypermimo.main([*arguments, "--max-blocks", "20", "--output", str(folder)]) == 0
    results = json.loads((folder / "fig5/fixed/results.json").read_text())
    assert {r["detector"] for r in results["records"]} == {"mmse", "hypermimo", "mmnet"}
    assert {gap["reference"] for gap in results["gaps"]} == {"hypermimo"}
    sweep = json.loads((folder / "fig6b/2db/results.json").read_text())
    assert [(r["value"], r["detector"]) for r in sweep["records"]] == [
        (v, d) for v in (0, 20) for d in ("mmse", "hypermimo")
    ]
    for name in ("fig4", "fig5/fixed/ser", "fig6b/2db/ser", "fig6b/2db/bler"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    text = (folder / "claims.md").read_text()
    assert "| `mmnet` |" in text and "## H2: fig6b, SER at 2 dB" in text
    # After two steps it is worse than linear MMSE everywhere
    assert "above that of `mmse`, beyond the intervals: at 0, 20." in text


@pytest.mark.slow
def test_figures_and_claims_of_hypermimo_lr(script, tmp_path, monkeypatch, models):
    hypermimo_lr = script("hypermimo_lr")
    monkeypatch.chdir(tmp_path)
    sequences, general = "gauss-markov-4x2-qpsk", "kronecker-4x2-qpsk"
    small_models(
        (f"mmnet/{sequences}-561", {"batch_size": 561}),
        (f"hypermimo-lr/{general}", {"batch_size": 20}),
    )
    monkeypatch.setattr(hypermimo_lr, "POINTS", [5, 10])
    monkeypatch.setattr(hypermimo_lr, "PANELS", {"code": 2.0})
    monkeypatch.setattr(hypermimo_lr, "SWEEPS", {"5db": 5.0})
    monkeypatch.setattr(hypermimo_lr, "BATCH_SIZE", 20)
    folder = tmp_path / "out"
    assert hypermimo_lr.main(["--max-blocks", "20", "--output", str(folder)]) == 0
    results = json.loads((folder / "fig4a/code/results.json").read_text())
    kept = ["mmse", f"hypermimo-lr@{general}", f"mmnet@{sequences}-561", "ml"]
    assert list(dict.fromkeys(r["detector"] for r in results["records"])) == kept
    sweep = json.loads((folder / "fig4bc/code-5db/results.json").read_text())
    assert [r["value"] for r in sweep["records"] if r["detector"] == "ml"] == [0, 1, 2, 3, 4]
    text = (folder / "claims.md").read_text()
    assert "SER at 10 dB, best first:\n\n- `ml`" in text
    assert text.count("best first:") == 4 and "## general:" in text
    assert "| Hops from the first channel | 0 | 1 | 2 | 3 | 4 |" in text


def test_weights_for_correlated_panels_are_of_correlated_channels(script, monkeypatch):
    """Also for a correlation and a number of users that differ from those of training."""
    remimo = script("remimo")
    recipes = [load_recipe(name) for name in list_recipes() if name.startswith("remimo/")]
    cards = {}
    for recipe in recipes:
        scenario = load_scenario(recipe.data.scenario)
        cards[recipe.name] = {
            "channel": scenario.channel,
            "num_rx": scenario.system.num_rx,
            "fixed_num_rx": True,
            "num_streams": scenario.system.num_streams,
            "streams": list(recipe.data.streams),
            "streams_step": recipe.data.streams_step,
            "num_bits_per_symbol": scenario.system.num_bits_per_symbol,
        }
    monkeypatch.setattr(linksim.models, "list_models", lambda name: cards)
    for figure, suffix in (("fig7", ""), ("fig9", "-corr-full"), ("fig10", "-corr-rx")):
        for panel in remimo.FIGURES[figure]:
            scenario = remimo.scenario_of(figure, panel)
            streams = scenario.system.num_streams
            path, _ = find_model("remimo", streams, 4, scenario=scenario)
            size = "massive-64x32" if scenario.system.num_rx == 64 else "small-16x8"
            assert path == f"remimo/{size}-qam16{suffix}", panel


def test_a_panel_and_its_claims(script, tmp_path, monkeypatch):
    remimo = script("remimo")
    monkeypatch.chdir(tmp_path)
    panel = ("small-16x4-qam16", {}, ["mmse", "zf", "oampnet2", "remimo@nothing"], [4, 10, 12])
    monkeypatch.setitem(remimo.FIGURES, "fig7", {"16x4": panel})
    folder = tmp_path / "out"
    arguments = ["--only", "fig7", "--only", "claims", "--output", str(folder)]
    assert remimo.main([*arguments, "--panel", "16x4", "--max-blocks", "300"]) == 0
    assert [p.name for p in (folder / "fig7").iterdir()] == ["16x4"]
    results = json.loads((folder / "fig7/16x4/results.json").read_text())
    assert {r["detector"] for r in results["records"]} == {"mmse", "zf", "oampnet2"}
    assert {r["snr_db"] for r in results["records"]} == {4, 10, 12}  # also where the BLER is 0
    assert results["scenario"]["title"] == "i.i.d. Rayleigh, 16x4, 16-QAM"
    assert results["scenario"]["code"]["type"] == "802.11n"
    for name in ("ser", "ber", "bler"):
        assert (folder / f"fig7/16x4/{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert {gap["reference"] for gap in results["gaps"]} == {"oampnet2"}
    text = (folder / "claims.md").read_text()
    assert "## fig7, SER 0.001\n\n| dB to `oampnet2` | 16x4 |" in text
    assert "## fig7, BLER 0.1" in text and text.count("| `zf` |") == 2
    assert "Without weights: `remimo@nothing`." in text


def test_tables_of_wesnet(script):
    wesnet = script("wesnet")
    recipes = set(list_recipes())
    shown = set()
    for panels in wesnet.FIGURES.values():
        for panel, (detectors, points) in panels.items():
            assert wesnet.scenario_of(panel).code.type == "802.11n"
            assert points == sorted(set(points))
            assert len(detectors) == len(set(detectors))
            shown.update((panel, name) for name in detectors)
            for name in detectors:
                spec = parse_receiver(name)
                path = f"{spec.detector}/{spec.model}"
                # The largest system has no recipe for some percentages
                if spec.model and panel != "60x30":
                    assert path in recipes, name
                point = spec.operating_point or {}
                assert 0 < point.get("num_layers", 1) < wesnet.LAYERS[panel]
    for _, panel, detector, reference, _, _ in wesnet.gaps_of_claims():
        size = panel.split("/")[1]
        assert {(size, detector), (size, reference)} <= shown
    for size in wesnet.FIGURES["bpsk"]:
        figures = wesnet.figures_of(size)
        classical = {"zf", "mmse", "sdr", "ep", "ml"}
        assert {
            (size, d) for ds in figures.values() for d in ds if d not in classical
        } <= shown


def test_layers_and_formulas_of_wesnet(script):
    wesnet = script("wesnet")
    assert wesnet.kept_layers("60x30") == [80, 70, 60, 50, 40, 20, 5]
    assert wesnet.LAYERS["20x10"] == load_scenario("wesnet-20x10-bpsk").system.num_streams * 3
    for size, scenario in wesnet.SCENARIOS.items():
        for name in ("detnet", "r-wesnet"):
            if f"{name}/{scenario}" in list_recipes():
                system = load_scenario(scenario).system
                assert wesnet.LAYERS[size] == 3 * system.num_streams
    assert wesnet.table_2("detnet", 30, 90) == 30 * 3838 * 90
    assert wesnet.table_2("wesnet", 30, 90, 0.5) == (15 * 3845 + 270) * 90


@pytest.mark.slow
def test_simulations_figures_and_claims_of_wesnet(script, tmp_path, monkeypatch, models):
    """Two trained networks and a cut one run; the others are named as lacking weights."""
    from tests.trainings import published

    wesnet = script("wesnet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(wesnet.LAYERS, "20x10", 9)
    nets = [wesnet.net(name, "20x10") for name in ("detnet", "r-wesnet")]
    for name in nets:
        recipe = shipped_recipe(name.replace("@", "/"))
        changes = {"steps": 1, "validate_every": 1, "validation_batches": 1}
        changes.update(model={**recipe.model, "num_layers": 9}, jit_compile=False)
        published(dataclasses.replace(recipe, **changes))
    nets += [wesnet.net("r-wesnet", "20x10", layers=7), wesnet.net("wesnet-hf", "20x10", 10)]
    panel = ["zf", "mmse", *nets], [5, 12, 14]
    monkeypatch.setitem(wesnet.FIGURES["bpsk"], "20x10", panel)
    folder = tmp_path / "out"
    arguments = ["--only", "bpsk", "--only", "plots", "--only", "claims"]
    arguments += ["--output", str(folder), "--panel", "20x10", "--max-blocks", "100"]
    assert wesnet.main(arguments) == 0
    results = json.loads((folder / "bpsk/20x10/results.json").read_text())
    names = {r["detector"] for r in results["records"]}
    assert names == {"zf", "mmse", *nets[:3]}
    for name in ("fig4-20x10", "fig4-20x10-bler", "fig5-20x10", "fig6a-20x10", "fig7-20x10"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    text = (folder / "claims.md").read_text()
    assert "Without weights: `wesnet-hf@wesnet-20x10-bpsk-10`" in text
    assert (
        "| W4 | 20x10 | `r-wesnet@wesnet-20x10-bpsk:7L` | `detnet@wesnet-20x10-bpsk` |" in text
    )


@pytest.mark.slow
def test_complexity_and_latency_of_wesnet(script, tmp_path, monkeypatch):
    wesnet = script("wesnet")
    monkeypatch.setitem(wesnet.LAYERS, "60x30", 4)
    monkeypatch.setitem(wesnet.LAYERS, "20x10", 4)
    arguments = ["--only", "complexity", "--only", "latency", "--only", "claims"]
    assert wesnet.main([*arguments, "--output", str(tmp_path)]) == 0
    for number in ("10a", "10b", "11a", "11b", "12"):
        assert (tmp_path / f"fig{number}.png").read_bytes()[:4] == b"\x89PNG"
    text = (tmp_path / "claims.md").read_text()
    assert "| 50 % | 51.43 | 49.67 |" in text and "## Latency" in text
    assert "| 60x30 | 4096 | XLA | 50% |" in text and "51.43 % fewer." in text


def test_gaps_at_a_symbol_error_rate(script):
    common = script("common")
    records = [
        {
            "detector": name,
            "snr_db": snr,
            "ser": 10 ** (-(snr - shift) / 2),
            "ser_low": 0.9 * 10 ** (-(snr - shift) / 2),
            "ser_high": 1.1 * 10 ** (-(snr - shift) / 2),
        }
        for name, shift in (("a", 1.5), ("b", 0.0))
        for snr in (8, 6, 4)
    ]
    gap = common.symbol_error_gap({"records": records}, "a", "b", common.TARGET_SER)
    assert gap["gap_db"] == pytest.approx(1.5)
    assert 0 < gap["gap_db_high"] - gap["gap_db"] < 0.2


def test_histories_and_claims_of_eqnet(script, tmp_path):
    eqnet = script("eqnet")
    figures = [a for name in ("fig3", "theorems", "claims") for a in ("--only", name)]
    assert eqnet.main([*figures, "--output", str(tmp_path)]) == 0
    assert (tmp_path / "fig3.png").read_bytes()[:4] == b"\x89PNG"
    text = (tmp_path / "claims.md").read_text()
    assert "## E3: two-stage against joint training" in text
    errors = json.loads((tmp_path / "theorems.json").read_text())["errors"]
    assert len(errors) == 6 and max(errors.values()) < 1e-4
    for system, error in errors.items():
        assert f"- {system}: largest error {error:.1e} of 1 + |LLR|" in text


def test_published_rates_of_remimo(script, tmp_path, monkeypatch):
    remimo = script("remimo")
    monkeypatch.chdir(tmp_path)
    rates = {"mmse-biased": 0.0436, "amp": 0.0246, "remimo": 0.03}
    monkeypatch.setattr(remimo, "PUBLISHED", {(16, 9.0): rates})
    arguments = ["--only", "published", "--only", "claims", "--output", str(tmp_path)]
    assert remimo.main([*arguments, "--max-blocks", "50"]) == 0
    folder = tmp_path / "published/64x16"
    assert {p.name for p in folder.iterdir()} == {"results.json", "results.csv", "ser.png"}
    records = json.loads((folder / "results.json").read_text())["records"]
    # Ten times the blocks of a panel, whatever the number of block errors
    names = {"mmse-biased", "amp", "amp-unscaled", "oampnet2"}
    assert {r["detector"]: r["blocks"] for r in records} == dict.fromkeys(names, 500)
    lines = (tmp_path / "claims.md").read_text().splitlines()
    for name in names - {"oampnet2"}:
        (row,) = [line for line in lines if line.startswith(f"| 16 | 9 dB | `{name}`")]
        assert float(row.split("|")[-2]) == pytest.approx(1.0, abs=0.07)


def test_gap_to_the_published_curve_of_remimo(script, tmp_path):
    remimo = script("remimo")
    rows = [(snr, s["remimo"]) for (users, snr), s in remimo.PUBLISHED.items() if users == 16]
    records = [
        {
            "detector": "remimo-mf",
            "snr_db": snr + 0.5,
            "ser": ser,
            "ser_low": ser,
            "ser_high": ser,
        }
        for snr, ser in rows
    ]
    (tmp_path / "fig7" / "64x16").mkdir(parents=True)
    (tmp_path / "fig7/64x16/results.json").write_text(json.dumps({"records": records}))
    lines = remimo._published_gaps(tmp_path)
    assert lines[-1].startswith("- `remimo-mf`, 16 users: +0.50 dB")
    assert remimo._published_gaps(tmp_path / "nothing") == []


def test_information_of_remimo(script, tmp_path, monkeypatch):
    remimo = script("remimo")
    every = list_models()
    name = "remimo-lmmse/small-16x8-qam16"
    monkeypatch.setattr(linksim.models, "list_models", lambda: {name: every[name]})
    remimo.information(
        "information", argparse.Namespace(output=tmp_path), Console(), batches=3
    )
    remimo.claims("claims", argparse.Namespace(output=tmp_path), Console())
    (row,) = json.loads((tmp_path / "information.json").read_text())["rows"]
    assert 0.8 < row["mmse"] < row["itself"] < 1
    mean, half = row["ahead_of_mmse"]
    assert mean == pytest.approx(row["itself"] - row["mmse"], abs=1e-5) and half > 0
    assert f"| `{name}` | {row['itself']:.3f} |" in (tmp_path / "claims.md").read_text()


RESULTS = Path(__file__).parent.parent / "results"
PAPERS = ("remimo", "wesnet", "hypermimo", "hypermimo_lr", "eqnet")


@pytest.mark.parametrize("paper", PAPERS)
def test_committed_pages_are_what_the_scripts_write(script, paper):
    """From the committed numbers and verdicts: neither is changed by hand."""
    folder = RESULTS / "papers" / paper
    text = script(paper).claims_text(folder)
    assert (folder / "claims.md").read_text(encoding="utf-8") == text
    page = script("pages").paper_page(paper)
    assert (folder / "README.md").read_text(encoding="utf-8") == page
    assert len(page.splitlines()) <= 30


def test_the_committed_page_of_pepnet_is_what_its_script_writes(script):
    folder = RESULTS / "papers/pepnet"
    text = script("pepnet").page_text(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == text
    for link in script("pepnet").CODED:
        assert f"coded/{link}/bler.png" in text


def test_the_committed_page_of_passes_is_what_its_script_writes(script):
    folder, module = RESULTS / "papers/turbo", script("turbo")
    text = module.page_text(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == text
    for name in module.LINKS:
        # Those that are yet to be simulated are left out
        assert (f"{name}/bler.png" in text) == (folder / name / "results.json").exists()


def test_variants_of_pepnet_do_not_see_what_they_lack(script):
    """A changed input changes the LLRs of the variants that have it, and of no others."""
    module = script("pepnet_ablations")
    task = module.AblationTask(module.VARIANTS, {"cross-entropy": 1.0})
    source = VectorSource(load_scenario("rayleigh-4x4-qam16"), (4, 14), 20)
    system = task.prepare(source.draw(source.keys(TRAINING, 0)))
    batch = {name: np.array(value) for name, value in system.items()}
    before = {name: np.array(task.llrs_of_variant(name, batch)) for name in module.VARIANTS}

    def affected(key, index=...):
        changed = {**batch, key: batch[key].copy()}
        changed[key][index] += np.linspace(0.2, 1.0, changed[key][index].size).reshape(
            changed[key][index].shape
        )
        after = {name: np.array(task.llrs_of_variant(name, changed)) for name in before}
        return {name for name in before if not np.array_equal(before[name], after[name])}

    everyone = set(module.VARIANTS)
    assert affected("corrections") == everyone - {"no pairs"}
    assert affected("marginals") == everyone - {"no marginals of EP"}
    assert affected("hypotheses") == everyone - {"no paths"}
    assert affected("left_out") == everyone - {"no paths", "paths without what they leave out"}
    blind = {"one weight per kind"}
    agree = module.NODE_FEATURES.index("agree")
    assert affected("node_features", agree) == everyone - blind - {
        "no paths",
        "no features of paths",
    }
    rho2 = module.PAIR_FEATURES.index("rho2")
    assert affected("pair_features", rho2) == everyone - blind - {
        "no pairs",
        "no features of correlation",
    }


def test_the_index_of_the_papers(script, tmp_path):
    pages = script("pages")
    assert pages.PAPERS == PAPERS
    index = (RESULTS / "papers/README.md").read_text(encoding="utf-8")
    assert index == pages.index_page()
    assert len(index.splitlines()) <= 60
    assert pages.main(["--output", str(tmp_path)]) == 0
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.md")}
    assert written == {"README.md", *(f"{paper}/README.md" for paper in PAPERS)}


@pytest.mark.parametrize("paper", PAPERS)
def test_verdicts_are_complete(script, paper):
    data = script("pages").load_verdicts(paper)
    keys = {"id", "claim", "verdict", "number", "measured", "holds"}
    for claim in data["claims"]:
        assert claim.keys() == keys and all(claim.values()), claim["id"]
        for key in ("id", "claim", "verdict", "number"):
            assert "\n" not in claim[key] and "|" not in claim[key]
        # The one number of the short page stands in the long form as well
        told = re.findall(r"\d+\.\d+", claim["number"])
        shown = re.findall(r"\d+\.\d+", claim["measured"] + claim["holds"])
        assert set(told) <= set(shown), claim["id"]


def test_every_claim_has_a_verdict(script):
    pages = script("pages")
    ids = {c["id"] for paper in PAPERS for c in pages.load_verdicts(paper)["claims"]}
    for letter, count in (("R", 7), ("W", 8), ("H", 2), ("E", 7)):
        assert {f"{letter}{n}" for n in range(1, count + 1)} <= ids
    assert any(name.startswith("L1, ") for name in ids)


@pytest.mark.parametrize(
    "file", sorted(str(f.relative_to(RESULTS)) for f in RESULTS.glob("**/results.json"))
)
def test_results_are_of_weights_with_a_card(file):
    """Cards name the weights that are shipped, and those that made results before they were
    stored in fewer bits. The weights of RE-MIMO's panels were trained on the panel's kind of
    channel, unless the name says which were taken."""
    cards = list_cards()
    for results in runs_in(json.loads((RESULTS / file).read_text())):
        for name, weights in results["provenance"]["weights"].items():
            for path, digest in weights.items():
                known = [cards[path]["sha256"], *cards[path].get("made_results_as", [])]
                assert digest in known, f"{name}: not the weights of {path}"
                if file.startswith("papers/remimo") and "@" not in name:
                    kinds = [cards[path]["channel"], results["scenario"]["channel"]]
                    assert _kind(kinds[0]) == _kind(kinds[1]), f"{name}: {path}"


def runs_in(content):
    """The results of simulations in a file, which may hold several."""
    if isinstance(content, dict) and "provenance" in content:
        return [content]
    inner = content.values() if isinstance(content, dict) else content
    return [run for x in inner if isinstance(x, (dict, list)) for run in runs_in(x)]


@pytest.mark.slow
def test_time_and_attention_of_remimo(script, tmp_path, monkeypatch, models):
    from tests.trainings import published

    remimo = script("remimo")
    monkeypatch.setattr(remimo, "LATENCY_USERS", (4, 6))
    monkeypatch.setattr(remimo, "LATENCY_BATCH", 2)
    recipe = shipped_recipe("remimo/grouped-32x12-qam16")
    small = {"num_blocks": 3, "state_size": 8, "num_heads": 1}
    published(dataclasses.replace(recipe, steps=2, validate_every=2, model=small))
    arguments = ["--only", "fig13", "--only", "fig14", "--only", "claims"]
    assert remimo.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "claims.md").read_text()
    assert (
        "## R6: attention" in text
        and "## R7: time of a call" in text
        and "| 6 | `oampnet2` |" in text
    )
    for share in json.loads((tmp_path / "out" / "fig13.json").read_text())["share_of_users"]:
        parts = share["own"] + share["others_of_group"] + share["outside"]
        assert parts == pytest.approx(1.0, abs=1e-3)


def test_rates_say_what_is_wrong_with_llrs(script, rng):
    soft_output = script("soft_output")
    bits = rng.integers(0, 2, 200_000)
    sinr = 10 ** rng.uniform(-1, 1, bits.size)
    z = 2 * bits - 1 + rng.normal(size=bits.size) / np.sqrt(sinr)
    # 1 - E[log2(1 + exp(-L))] of L ~ N(2 sinr, 4 sinr), by quadrature
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    s = 10 ** np.linspace(-1, 1, 2001)[:, None]
    loss = np.logaddexp(0, -2 * s - 2 * np.sqrt(s) * nodes) @ weights / weights.sum()
    exact = 1 - loss.mean() / np.log(2)

    right = soft_output.llr_rates(2 * sinr * z, bits, sinr)
    for key in soft_output.RATES:
        assert right[key] == pytest.approx(exact, abs=5e-3), key
    assert right["factor"] == pytest.approx(1.0, abs=0.03)

    too_sure = soft_output.llr_rates(8 * sinr * z, bits, sinr)
    assert too_sure["rate"] < exact - 0.2
    assert too_sure["factor"] == pytest.approx(right["factor"] / 4, rel=1e-3)
    assert too_sure["rate_factor"] == pytest.approx(right["rate_factor"], abs=1e-6)

    blind = soft_output.llr_rates(2 * z, bits, sinr)
    assert blind["rate"] < blind["rate_factor"] < blind["rate_function"] < exact - 0.05
    assert blind["rate_channel"] == pytest.approx(exact, abs=5e-3)


def test_sinr_with_coloured_noise(script, rng):
    """White noise as a covariance is white noise, and a loud antenna is worth nothing."""
    soft_output = script("soft_output")
    h = rng.normal(size=(5, 4, 2)) + 1j * rng.normal(size=(5, 4, 2))
    no = np.full(5, 0.3)
    white = soft_output.mmse_sinr(h, no)
    identity = np.eye(4, dtype=complex)
    assert np.allclose(soft_output.mmse_sinr(h, no[:, None, None] * identity), white)
    loud = 0.3 * np.diag([1, 1, 1, 1e12]).astype(complex)
    without = soft_output.mmse_sinr(h[:, :3], no)
    assert np.allclose(soft_output.mmse_sinr(h, np.tile(loud, (5, 1, 1))), without)


def test_rates_of_detectors(script):
    soft_output = script("soft_output")
    scenario = load_scenario("gauss-markov-4x2-qpsk").replace(run={"batch_size": 500})
    rows = soft_output.simulate_rates(
        scenario, ["mmse", "mf", "ml"], [4.0], num_batches=2, seed=1
    )
    mmse, mf, ml = rows
    assert {row["bits"] for row in rows} == {2 * 500 * 40}
    assert mf["rate"] < mmse["rate"] < ml["rate"] < 1
    assert ml["factor"] == pytest.approx(1.0, abs=0.05)
    assert len(soft_output.rates_table(rows)) == 5
