"""What the parts of `pepnet` are worth: trainings without some of them, on the same data.

The evidence that `pepnet` weighs does not depend on its weights. It is gathered once for each
batch, and all variants make their training step on it. A variant lacks a kind of evidence, or
sees zeros in place of some features, or has other widths.
"""

import csv
import dataclasses
from pathlib import Path

import numpy as np
from soft_output import llr_rates, mmse_sinr, some_vectors

from linksim.detectors.pepnet import NODE_FEATURES, PAIR_FEATURES, PEPNetDetector
from linksim.files import make_folder, save_json
from linksim.link.scenario import load_scenario
from linksim.models import weights_file
from linksim.training.build import load_layer
from linksim.training.loop import Trainer
from linksim.training.losses import bit_cross_entropy
from linksim.training.recipe import load_recipe
from linksim.training.tasks import AnySizeDetectorTask
from simulations.markdown import table

RECIPE, STEPS = "pepnet/any-size", 500
PATHS = (
    *("entropy of best", "entropy of soft", "from marginals", "from soft", "agree"),
    *("mean of agree", "mean of from marginals", "mean of entropy of soft", "has paths"),
    *("partner's entropy of soft", "partner's agree"),
)
PAIRS = ("largest rho2", "sum of rho2", "information", "rho2", "log of 1 - rho2")
CORRELATION = (*PAIRS, "inflation", "inflation at first")
# {variant: (kinds of evidence that it lacks, features that it lacks, options)}
VARIANTS = {
    "all parts": ((), (), {}),
    "no paths": (("hypotheses", "left_out"), PATHS, {}),
    "paths without what they leave out": (("left_out",), (), {}),
    "no pairs": (("corrections",), PAIRS, {}),
    "no marginals of EP": (("marginals",), (), {}),
    "no features of correlation": ((), CORRELATION, {}),
    "no features of paths": ((), PATHS, {}),
    "one weight per kind": ((), (*NODE_FEATURES, *PAIR_FEATURES), {}),
    "half as wide": ((), (), {"width": 16, "pair_width": 8}),
    "twice as wide": ((), (), {"width": 64, "pair_width": 32}),
}


READING = """
The paths are worth most where channels are correlated, and the marginals and pairs where they
are not. What the paths leave out, the features and the width are worth little each; without
any features, confidence on the hardest link (CDL-C 16x8) falls back to that before training.
LLRs that are up to a seventh too weak on some links, and too strong on that one, are due neither
to priors nor to channel errors in the training, nor to the width: without them, the factors
change by 0.05 at most. More steps bring them nearer to 1.
"""


class AblationTask(AnySizeDetectorTask):
    """Trains variants of a detector side by side; their losses are added up.

    Args:
        variants: {name: (kinds, features, options)}, as `VARIANTS`.
        weights_of_losses: see `Task`.
    """

    def __init__(self, variants, weights_of_losses):
        detectors = {}
        for name, (_, _, options) in variants.items():
            detectors[name] = PEPNetDetector(num_streams=2, num_bits_per_symbol=4, **options)
            detectors[name].build()
        super().__init__(next(iter(detectors.values())), weights_of_losses)
        self.detectors = detectors
        self._variants = variants

    def llrs_of_variant(self, name, batch):
        """The LLRs of a variant for a prepared batch."""
        kinds, features, _ = self._variants[name]
        seen = [
            np.array([feature not in features for feature in known], np.float32)
            for known in (NODE_FEATURES, PAIR_FEATURES)
        ]
        changed = {
            **{kind: 0.0 * batch[kind] for kind in kinds},
            "node_features": batch["node_features"] * seen[0][:, None, None],
            "pair_features": batch["pair_features"] * seen[1][:, None, None, None],
        }
        return self.llrs_of(self.detectors[name], {**batch, **changed})

    def terms(self, batch, training):
        entropies = [
            bit_cross_entropy(self.llrs_of_variant(name, batch), batch["bits"])
            for name in self.detectors
        ]
        return {"cross-entropy": sum(entropies)}


def ablations(name, args, console, links, num_bits):
    """Train the variants, and measure the information in their LLRs on links.

    Args:
        name, args, console: as every figure's function.
        links: {link: SNRs in dB}, of which the last one is measured.
        num_bits: bits of each measurement.
    """
    import keras

    recipe = load_recipe(RECIPE)
    alone = {"all parts": VARIANTS["all parts"]}
    keras.utils.set_random_seed(recipe.seed)
    first = AblationTask(alone, recipe.loss)
    measured = {"untrained": (first, "all parts")}
    trained = _trained(recipe, VARIANTS, "variants", args, console)
    measured |= {variant: (trained, variant) for variant in VARIANTS}
    for variant, changes in _other_data(recipe).items():
        task = _trained(dataclasses.replace(recipe, **changes), alone, variant, args, console)
        measured[variant] = task, "all parts"
    shipped = AblationTask(alone, recipe.loss)
    weights = load_layer(RECIPE, "shipped").get_weights()
    shipped.detectors["all parts"].set_weights(weights)
    measured["as shipped"] = shipped, "all parts"

    rows = {variant: {} for variant in measured}
    for link, points in links.items():
        console.print(f"{name}, {link}")
        for variant, found in _rates(link, points[-1], args.seed, num_bits, measured):
            rows[variant][link] = found
    history = weights_file(RECIPE).parent / "history.csv"
    with history.open(newline="") as file:
        budget = [
            {"step": int(r["step"]), "rate": float(r["mutual_information"])}
            for r in csv.DictReader(file)
        ]
    points = {link: values[-1] for link, values in links.items()}
    save_json(
        args.output / "ablations.json",
        {"steps": STEPS, "snr_db": points, "variants": rows, "budget": budget},
    )


def _other_data(recipe):
    """{variant: changes of the recipe} for trainings on other data."""
    data = dataclasses.replace(recipe.data, prior_information=(), prior_share=1.0)
    known = tuple(part for part in recipe.parts if part.csi["type"] == "perfect")
    return {
        "no priors in training": {"data": data},
        "known channels in training": {"parts": known, "validation_batches": len(known)},
    }


def _trained(recipe, variants, name, args, console):
    """An `AblationTask` after its training, which continues where it was interrupted."""
    import keras

    # One norm is that of all variants' gradients together
    norm = recipe.optimizer.clip_norm * len(variants) ** 0.5
    recipe = dataclasses.replace(
        recipe,
        steps=STEPS,
        validate_every=STEPS,
        optimizer=dataclasses.replace(recipe.optimizer, clip_norm=norm),
    )
    keras.utils.set_random_seed(recipe.seed)
    task = AblationTask(variants, recipe.loss)

    def on_step(step, steps, loss):
        if step % 50 == 0:
            console.print(f"{name}: step {step} of {steps}")

    folder = Path("results/runs/papers") / args.paper / f"ablations-{name.replace(' ', '-')}"
    make_folder(folder)
    scenario = load_scenario(recipe.data.scenario)
    Trainer(recipe, task, scenario, folder, on_step=on_step).run()
    return task


def _rates(link, snr_db, seed, num_bits, measured):
    """Pairs of a variant and its {"rate", "factor"} on the same vectors of a link."""
    from linksim.backend import compiled

    y, h, no, bits, detector = some_vectors(load_scenario(link), snr_db, seed, num_bits)
    batch = {"y": y, "h": h, "no": no, "bits": bits}
    task = next(iter(measured.values()))[0]
    prepared = compiled(task.prepare)(batch)
    sinr = mmse_sinr(h, no)
    step = 1 if detector.num_bits_per_symbol == 1 else 2
    # Of each real dimension: the real parts of all streams come first
    sinr = np.repeat(
        np.concatenate([sinr] * step, axis=1)[..., None], bits.shape[-1] // step, -1
    )
    for variant, (task, which) in measured.items():
        llr = compiled(lambda b, t=task, w=which: t.llrs_of_variant(w, b))(prepared)
        sent = np.asarray(prepared["bits"])
        found = llr_rates(np.asarray(llr).ravel(), sent.ravel(), sinr.ravel())
        yield variant, {key: found[key] for key in ("rate", "factor")}


def ablations_tables(data):
    """The lines of the page about what `ablations` has measured."""
    if data is None:
        return []
    links = data["snr_db"]
    lines = ["", "## What its parts are worth", ""]
    lines += [
        f"Each row is a training of {data['steps']} steps, but for the first, which is before any",
        "training, and the last, which is the shipped training of",
        f"{data['budget'][-1]['step']} steps. The batches are the same, but where a row says otherwise.",
        "Numbers are bits of mutual information per coded bit and, in brackets, the best factor of",
        "the LLRs.",
        "",
    ]
    lines += table(
        ["variant", *(f"{link}, {snr:g} dB" for link, snr in links.items())],
        (
            [variant, *(f"{row[x]['rate']:.4f} ({row[x]['factor']:.2f})" for x in links)]
            for variant, row in data["variants"].items()
        ),
    )
    lines += ["", *READING.strip().splitlines()]
    lines += [
        "",
        "The information on validation batches of the training mixture grew with its budget:",
        "",
    ]
    steps, rates = zip(*((r["step"], f"{r['rate']:.4f}") for r in data["budget"]))
    return lines + table(["steps", *steps], [["bits", *rates]])
