"""Options with which the networks of detectors are small enough for quick tests."""

OPTIONS = {
    "kbest": {"k": 16},
    "amp": {"num_iterations": 8},
    **dict.fromkeys(
        ("detnet", "wesnet-hf", "wesnet-l", "l-wesnet", "r-wesnet"), {"num_layers": 3}
    ),
    "mmnet": {"num_layers": 3, "num_channels": 2},
    **dict.fromkeys(
        ("remimo", "remimo-mf", "remimo-lmmse", "remimo-pic"),
        {"num_blocks": 2, "state_size": 16},
    ),
    "detnet-fc": {"network_options": {"num_layers": 2}, "num_channels": 2},
    "hypermimo-lr": {"network_options": {"num_layers": 3}},
}
