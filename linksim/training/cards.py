"""Cards for people, and the catalogue of all models: text made from the cards' JSON."""

import re
from pathlib import Path

from linksim.files import load_json, write_atomically
from linksim.models import STATUSES, status_of, streams_of, training_command

_BEGIN = "<!-- Made by `python simulations/train.py --cards` -->"
_END = "<!-- End -->"

_HEADINGS = {
    "recommended": "Recommended",
    "study": "Studies",
    "recipe": "Recipes without weights",
}


def write_cards(folder):
    """Write `card.md` of every model in a folder, and its catalogue, from the cards' JSON."""
    for path in sorted(Path(folder).glob("*/*/card.json")):
        write_atomically(path.parent / "card.md", card_text(load_json(path)))
    write_catalogue(folder)


def write_catalogue(folder):
    """Renew the tables in the README.md of a folder of models, if it has such tables."""
    file = Path(folder) / "README.md"
    if file.exists() and _BEGIN in file.read_text(encoding="utf-8"):
        write_atomically(file, catalogue(folder))


def catalogue(folder):
    """README.md of a folder of models, with new tables between its two markers."""
    folder = Path(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    rows = {status: [] for status in STATUSES}
    for path in sorted(folder.glob("*/*/recipe.toml")):
        file = path.parent / "card.json"
        card = load_json(file) if file.exists() else None
        status = status_of(card) if card else "recipe"
        name = path.parent.relative_to(folder).as_posix()
        rows[status].append(_row(name, card, path.parent / "weights.npz"))
    parts = [f"{before}{_BEGIN}\n"]
    for status, heading in _HEADINGS.items():
        parts.append(f"\n### {heading}\n\n{_HEAD}\n" + "\n".join(rows[status]) + "\n")
    return "".join(parts) + f"\n{_END}{after}"


_HEAD = """| model | system | steps, of the recipe's | bits of information | `mmse` | `ep` | `ml` | kB |
|---|---|---|---|---|---|---|---|"""


def _row(name, card, weights):
    link = f"[`{name}`]({name}/{'card.md' if card else 'recipe.toml'})"
    if card is None:
        return f"| {link} | | not trained | | | | | |"
    system = f"{streams_of(card)} x {2 ** card['num_bits_per_symbol']}-QAM"
    if card["num_bits_per_symbol"] == 1:
        system = f"{streams_of(card)} x BPSK"
    system += f", {card['num_rx']} antennas"
    if card.get("any_system"):
        system = "any"
    steps = "fitted"
    if "steps" in card:
        share = card["steps"] / card["steps_of_recipe"]
        steps = f"{card['steps']}, {100 * share:.3g} %"
    rates = {**card.get("references", {})}
    rates["itself"] = card.get("validation", {}).get("mutual_information")
    numbers = [
        f"{rates[key]:.3f}" if rates.get(key) is not None else ""
        for key in ("itself", "mmse", "ep", "ml")
    ]
    # Decimal kilobytes, rounded up
    size = str(-(-weights.stat().st_size // 1000)) if weights.exists() else ""
    return f"| {link} | {system} | {steps} | {' | '.join(numbers)} | {size} |"


def card_text(card):
    """A card as Markdown."""
    low, high = card["snr_db"]
    more = ""
    if card["snr_db_per_stream"]:
        more += f" Each stream adds {card['snr_db_per_stream']:g} dB to that."
    if card["rho"]:
        more += " The correlation of a batch is in [{:g}, {:g}].".format(*card["rho"])
    if card["num_channels"]:
        more += f" It is for {card['num_channels']} fixed channels, kept with the weights."
    if card["teacher"]:
        more += f" The LLRs to learn from are those of `{card['teacher']}`."
    beyond = ""
    if card["streams"]:
        beyond = (
            ", and numbers of streams beyond its range only if this configuration is named"
        )
    limits = f"Other numbers of streams or bits are refused{beyond}."
    if card.get("any_system"):
        limits = "No system is refused."
    data = (
        f"**Data.** Training draws channel uses of `{card['scenario']}` on the fly, at an SNR "
        f"uniform in\n[{low:g}, {high:g}] dB (definition `{card['snr_definition']}`).{more}"
    )
    prior = ""
    if card.get("prior_information"):  # newer than some cards
        prior = (
            "\n{:.0%} of the vectors have a prior as a decoder gives it, whose mutual information "
            "with the bits\nis between {:g} and {:g} bit.".format(
                card["prior_share"], *card["prior_information"]
            )
        )
    compare = "compare it with `mmse` and `ep` on your link"
    if card["task"] in ("autoencoder", "codebook"):
        compare = "compare the error rates of your link with and without it"
    return f"""# {card["model"]}, {card["configuration"]}

{_literal(card["title"].rstrip("."))}.

{_status_text(card)}

{_system_text(card)}

{_DATA_OF_PARTS + prior if card.get("any_system") else data + prior}

{_training_text(card) if "steps" in card else _CODEBOOK_TEXT}
**Limits.** {limits} For other channels or SNRs than these,
{compare} first.

**Command.** `{training_command(card)}`
{_OWN_FOLDER if card.get("own_folder") else ""}"""


def _literal(text):
    """Escape a text so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_\[\]<>#~|$])", r"\\\1", text).replace("&", "&amp;")


def _status_text(card):
    status, reason = status_of(card), card.get("status_reason", "")
    reason = f": {reason}" if reason else ""
    if status == "recipe":
        return (
            f"**Recipe only.** The weights are not kept{reason}. The command below makes them."
        )
    if status == "study":
        return f"**Study.** Results of this project use these weights; they are not recommended{reason}."
    return f"**Recommended**{reason}."


def _system_text(card):
    if card.get("any_system"):
        return (
            "It detects any number of streams of any square QAM or BPSK with any number of "
            f"receive antennas. It has {card['num_parameters']} trained parameters."
        )
    streams = f"{streams_of(card)} streams of {card['num_bits_per_symbol']} bits per symbol"
    text = f"It detects {streams} with {card['num_rx']} receive antennas"
    if card["task"] in ("autoencoder", "codebook"):
        text = f"It quantizes the LLRs of {streams}"
    elif not card["fixed_num_rx"]:
        text += ", and works with other numbers of antennas too"
    text += f". It has {card['num_parameters']} trained parameters"
    if card["autoencoder"]:
        text += f", with those of the decoder that it shares with `{card['autoencoder']}`"
    return f"{text}."


_OWN_FOLDER = """
FOLDER is the folder of models that this card is in. A detector of your own also needs
`--import FILE.py`, the file that registers it.
"""

_DATA_OF_PARTS = """**Data.** Training draws channel uses on the fly from the kinds of systems that `[[parts]]` of
[recipe.toml](recipe.toml) list, each with a range of SNRs of its own."""

_CODEBOOK_TEXT = """**Fitting.** There is one codebook for each position of an LLR and each number of bits.
"""

_MEASURES = {
    "loss": "loss",
    "mutual_information": "mutual information, bits per coded bit",
    "divergence": "divergence from the teacher's bit probabilities, nats",
    "weighted-squared-error": "weighted squared error of the LLRs",
}


def _training_text(card):
    budget = card["steps"] / card["steps_of_recipe"]
    rows = [f"| {_MEASURES[k]} | {v:.4g} |" for k, v in card["validation"].items()]
    rows += [
        f"| mutual information of `{name}` | {value:.4g} |"
        for name, value in card["references"].items()
    ]
    terms = ", ".join(f"{w:g} x {name}" for name, w in card["loss_terms"].items())
    minutes = max(1, round(card["seconds"] / 60))
    duration = "1 minute" if minutes == 1 else f"{minutes} minutes"
    more = ""
    if card["start"]:
        more += f" It started from the weights of `{card['start']}`."
    if card.get("teachers"):
        more += f" Its teachers are the networks of `{card['teachers']}`."
    if "stored_in_8_bits" in card:
        before, after = (card["stored_in_8_bits"][k] for k in ("before", "after"))
        more += (
            f" The weights are stored in 8 bits: mutual information {before:.4f} before, "
            f"{after:.4f} after."
        )
    text = "\n".join(rows)
    return f"""**Training.** It took {duration} for {card["steps"]} of the recipe's {card["steps_of_recipe"]} steps ({100 * budget:.3g} %), each of
{"up to " if card.get("any_system") else ""}{card["batch_size"]} channel uses; the best weights were those of step {card["best_step"]}. The loss is {terms}.{more}

| on held-out draws | value |
|---|---|
{text}
"""
