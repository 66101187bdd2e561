"""Which receivers take part in a track, and what is known of them beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from linksim.errors import InvalidInput
from linksim.link.receiver import Receiver, create_receiver
from linksim.link.scenario import Scenario
from linksim.models import find_model, list_models, status_of, weights_file
from linksim.names import parse_receiver, with_passes
from linksim.registry import DETECTORS

from .tracks import Track

# Receivers of two passes of detector and decoder
TWO_PASSES = ("mmse", "ep", "kbest", "pepnet")
# {detector, or the beginning of its name: why it takes part in no track}
NOWHERE = {
    "sionna-": "Sionna's detectors are compared with ours in the benchmark of speed",
    "sdr-cvxpy": "it is `sdr`, solved by another program",
    "mmse-biased": "it is `mmse` with a mistake that published comparisons have",
}
# {title: files of linksim/detectors}; a detector of a user is in the last one
FAMILIES = {
    "linear": ("linear",),
    "cancellation": ("sic",),
    "search": ("ml", "sphere", "kbest", "sdr"),
    "message passing": ("ep", "pep", "lord", "amp", "oamp"),
    "learned message passing": ("oampnet", "mmnet", "pepnet"),
    "other learned": ("detnet", "perchannel", "eqnet", "nndet", "remimo", "hypermimo"),
}
SUBMITTED = "submitted"


def family_of(name: str) -> str:
    """The family of a receiver, a key of `FAMILIES` or `SUBMITTED`."""
    entry = DETECTORS.entry(parse_receiver(name).detector)
    if entry.own or not isinstance(entry.target, str):
        return SUBMITTED
    file = entry.target.split(":")[0].split(".")[-1]
    return next((title for title, files in FAMILIES.items() if file in files), SUBMITTED)


def receivers_of(track: Track) -> tuple[list[str], dict[str, str]]:
    """The receivers of a track.

    Untrained detectors take part where they can run. Learned ones do where there are weights
    that fit and are recommended, or were trained on this type of channel.

    Returns:
        Their names, and {detector: why it does not take part}.
    """
    scenario = track.make_scenario()
    names: list[str] = []
    absent: dict[str, str] = {}
    for entry in DETECTORS:
        name = entry.name
        reason = next((why for key, why in NOWHERE.items() if name.startswith(key)), None)
        reason = track.without.get(name, reason)
        if reason is None and entry.learned:
            reason = _unfit(name, scenario)
        if reason is None:
            try:
                create_receiver(name, scenario)
            except InvalidInput as error:
                reason = str(error).split(";")[0]
        if reason is not None:
            absent[name] = reason
        else:
            names.append(name)
    if scenario.code.type != "none":
        names += [with_passes(name, 2) for name in TWO_PASSES if name in names]
    return names, absent


def able_on(track: Track, wanted: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Those of some receivers that can run on a track.

    Args:
        track: the `Track`.
        wanted: names of receivers.

    Returns:
        Their names, and {name: why it cannot run} of the others.
    """
    scenario = track.make_scenario()
    names: list[str] = []
    unable: dict[str, str] = {}
    for name in wanted:
        try:
            create_receiver(name, scenario)
        except InvalidInput as error:
            unable[name] = str(error)
        else:
            names.append(name)
    return names, unable


def _unfit(name: str, scenario: Scenario) -> str | None:
    """Why a learned detector does not take part, or None if it does."""
    system = scenario.system
    if not list_models(name):
        return "no weights"
    try:
        _, card = find_model(
            name, system.num_streams, system.num_bits_per_symbol, scenario=scenario
        )
    except InvalidInput:
        return "no weights for this system"
    same = card["channel"]["type"] == scenario.channel["type"]
    if same or card.get("any_system") or status_of(card) == "recommended":
        return None
    return f"its weights are those of a study on another channel, {card['scenario']}"


def training_of(receiver: Receiver, scenario: Scenario) -> dict[str, Any]:
    """What a receiver was trained on, and how large its weights are.

    Returns:
        {"weights": {"<model>/<configuration>": SHA-256}, "kb": kilobytes of their files, or
        None for an untrained one, "trained": "" for an untrained one, "this link" or what it
        was trained on}.
    """
    cards = list_models()
    models = [path for path in receiver.weights if path in cards]
    kb = sum(weights_file(path).stat().st_size for path in models) / 1000 if models else None
    trained = "this link" if models else ""
    for path in models:
        if cards[path].get("any_system"):
            trained = "many systems"
        elif path.split("/")[1] != scenario.name:
            trained = path.split("/")[1]
    return {"weights": receiver.weights, "kb": kb, "trained": trained}
