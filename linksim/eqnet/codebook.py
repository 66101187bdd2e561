"""Scalar quantizers of D components, each with its own number of bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from linksim.backend import Float32Layer, Tensor, concrete
from linksim.errors import InvalidInput

MAX_BITS = 12
# Fills the rows of components with fewer bits than the longest row: a finite threshold
# that no component exceeds
_PADDING = np.float32(3e38)


@keras.saving.register_keras_serializable("linksim")
class ScalarCodebook(Float32Layer):
    """Thresholds and levels of D scalar quantizers.

    Args:
        num_components: D, the number of components.
        bits: bits per component, 1 to 12: one integer for all, or D integers.
        owner: the name that error messages begin with.

    Call arguments:
        components: float32 [..., D].

    Returns:
        float32 [..., D], the level of the cell that each component falls into.

    Raises:
        InvalidInput: `bits` has another length or is out of range; or, when called, there
            is no codebook yet.
    """

    def __init__(
        self,
        num_components: int,
        bits: int | Sequence[int],
        owner: str = "ScalarCodebook",
        **kwargs: Any,
    ):
        # Without autocast a policy of lower precision does not round the levels
        super().__init__(autocast=False, **kwargs)
        self.num_components = num_components
        self.bits = bits_per_component(bits, num_components)
        self._owner = owner
        cells = 2 ** max(self.bits)
        self.thresholds = self._table("thresholds", (num_components, cells - 1), "zeros")
        # NaN rather than zero, so that a graph without a codebook gives no plausible LLRs
        unset = keras.initializers.Constant(float("nan"))
        self.levels = self._table("levels", (num_components, cells), unset)
        self.fitted = self._table("fitted", (), "zeros")
        # Where each component's row begins in the flattened tables
        rows = np.arange(num_components, dtype=np.int32)
        self._threshold_rows = rows * (cells - 1)
        self._level_rows = rows * cells
        self.last_cells = 2 ** np.array(self.bits, np.int32) - 1
        self.built = True

    def _table(self, name, shape, initializer):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype="float32",
            trainable=False,
            autocast=False,
        )

    def set(
        self, thresholds: Sequence[Sequence[float]], levels: Sequence[Sequence[float]]
    ) -> None:
        """Set thresholds and levels.

        Args:
            thresholds: for each of the D components 2^bits - 1 finite numbers in
                ascending order; the cell between equal ones stays empty.
            levels: for each component 2^bits finite numbers.

        Raises:
            InvalidInput: a number of rows, a shape or a value is wrong.
        """
        cells = 2 ** max(self.bits)
        tables = []
        for name, rows, fewer, padding in (
            ("thresholds", thresholds, 1, _PADDING),
            ("levels", levels, 0, np.float32(0)),
        ):
            if len(rows) != self.num_components:
                raise self._error(
                    name, f"{len(rows)} rows", f"{self.num_components}, one per component"
                )
            table = np.full((self.num_components, cells - fewer), padding)
            for d, row in enumerate(rows):
                size = 2 ** self.bits[d] - fewer
                table[d, :size] = self._row(f"{name}[{d}]", row, size)
                if fewer and np.any(np.diff(table[d]) < 0):
                    raise self._error(f"{name}[{d}]", "a falling step", "ascending order")
            tables.append(table)
        self.thresholds.assign(tables[0])
        self.levels.assign(tables[1])
        self.fitted.assign(1.0)

    def _row(self, name, row, size):
        row = np.asarray(row, np.float32)
        if row.shape != (size,):
            raise self._error(name, f"shape {row.shape}", f"({size},)")
        if not np.all(np.isfinite(row)):
            raise self._error(name, "NaN or inf", "finite numbers")
        return row

    def check_fitted(self) -> None:
        """Raise `InvalidInput` if there is no codebook; a traced graph cannot know that."""
        fitted = concrete(self.fitted)
        if fitted is not None and not fitted:
            raise InvalidInput(
                f"{self._owner}: there is no codebook yet; call `fit` or "
                "`set_codebook`, or load one"
            )

    def cells(self, components: Tensor) -> Tensor:
        """The cells of components float32 [..., D], int32 [..., D].

        A cell's index is the number of thresholds strictly below the component.
        """
        self.check_fitted()
        thresholds = ops.reshape(self.thresholds, (-1,))
        # A binary search needs no more memory for more levels
        index = ops.zeros_like(components, dtype="int32")
        for bit in reversed(range(max(self.bits))):
            probe = index + 2**bit
            at = probe + (self._threshold_rows - 1)
            below = ops.take(thresholds, at, axis=0) < components
            index = ops.where(below, probe, index)
        return ops.minimum(index, self.last_cells)

    def values(self, cells: Tensor) -> Tensor:
        """The levels of cells int32 [..., D], float32 [..., D]."""
        self.check_fitted()
        return ops.take(ops.reshape(self.levels, (-1,)), cells + self._level_rows, axis=0)

    def call(self, components: Tensor) -> Tensor:
        return self.values(self.cells(components))

    def _error(self, name, got, expected):
        return InvalidInput(f"{self._owner}: {name}: got {got}, expected {expected}")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_components": self.num_components,
            "bits": list(self.bits),
            "owner": self._owner,
        }


def bits_per_component(bits: int | Sequence[int], num_components: int) -> tuple[int, ...]:
    """One number of bits for each of D components.

    Args:
        bits: one integer for all components, or D integers.
        num_components: D.

    Raises:
        InvalidInput: there are neither one nor D numbers, or one is not an integer from 1
            to 12.
    """
    given: Any = bits.tolist() if isinstance(bits, np.ndarray) else bits
    if not isinstance(given, (list, tuple)):
        given = [given] * num_components
    if len(given) != num_components:
        raise InvalidInput(
            f"bits: got {len(given)} numbers, expected one, or {num_components}, one per "
            "component"
        )
    for b in given:
        if isinstance(b, bool) or not hasattr(b, "__index__") or not 1 <= b <= MAX_BITS:
            raise InvalidInput(f"bits: got {b!r}, expected an integer from 1 to {MAX_BITS}")
    return tuple(int(b) for b in given)
