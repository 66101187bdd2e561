"""The batch size that a memory budget allows."""

from linksim.errors import InvalidInput, check_int, check_real
from linksim.link.simulator import LinkSimulator

# Budgets that are nearly equal give equal batches, and so equal draws
_MANTISSAS = (1, 2, 5)


def batch_size_for(scenario, detectors, memory, *, max_blocks=None, xla="auto"):
    """The largest batch of blocks whose tensors fit into `memory`.

    The size is 1, 2 or 5 times a power of ten, at most `max_blocks`. It depends on the
    graphs alone, so every machine gets the same batches and the same draws.

    Args:
        scenario: a `Scenario`; its own batch size does not matter.
        detectors: names or layers, as `linksim.simulate` takes them.
        memory: budget in bytes for tensors. A process needs about 1.5 GB beside it, for
            libraries and compiled code.
        max_blocks: blocks of a point; default that of the scenario.
        xla: "auto", "on" or "off".

    Raises:
        InvalidInput: one block does not fit.
    """
    check_real("memory", memory, low=1)
    max_blocks = scenario.run.max_blocks if max_blocks is None else max_blocks
    check_int("max_blocks", max_blocks)
    known = {}

    def fits(size):
        if size not in known:
            simulator = LinkSimulator(scenario.replace(run={"batch_size": size}), xla)
            for name in detectors:
                simulator.add_detector(name)
            known[size] = simulator.peak_memory()
        return known[size] <= memory

    sizes = _sizes(max_blocks)
    index = min(3, len(sizes) - 1)
    # Memory per block falls as batches grow, so its present value is a safe guess
    while fits(sizes[index]):
        reach = sizes[index] * memory / known[sizes[index]]
        higher = [i for i, size in enumerate(sizes) if i > index and size <= reach]
        if not higher:
            break
        index = higher[-1]
    while not fits(sizes[index]):
        if index == 0:
            raise InvalidInput(
                f"memory: got {memory:.4g} bytes, one block of {scenario.name} needs "
                f"{known[1]:.4g}"
            )
        index -= 1
    while index + 1 < len(sizes) and fits(sizes[index + 1]):
        index += 1
    return sizes[index]


def _sizes(largest):
    """1, 2, 5, 10, ... up to `largest`."""
    sizes, power = [], 1
    while power <= largest:
        sizes += [m * power for m in _MANTISSAS if m * power <= largest]
        power *= 10
    return sizes
