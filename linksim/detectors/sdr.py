"""Semidefinite relaxation, solved by cvxpy: the reference, not a fast detector."""

import keras
import numpy as np
from keras import ops

from linksim.detectors.base import Detector, concrete
from linksim.errors import InvalidInput


@keras.saving.register_keras_serializable("linksim")
class SDRDetector(Detector):
    """Semidefinite relaxation of the ML problem (reference solver: cvxpy).

    With integer levels u (x = u scale), min |y - Hx|^2 over X >= 0, the lifted
    [u; 1][u; 1]': diag(X) = 1 for BPSK and QPSK, and 1 <= diag(X) <= (L-1)^2 for
    larger square QAM (bound-constrained SDR, the box form of Wiesel et al. and
    Sidiropoulos and Luo). The last column of X is sliced; no randomisation.

    Soft output: max-log over the decided vector and its neighbours that differ
    from it in one real dimension, logit_i(a) = -|y - H x(x_i = a)|^2/N0. It is
    meant for uncoded use; LLRs of hard vectors miss joint alternatives.

    Each vector is one call of a general solver (tens of milliseconds), in eager
    mode only: the layer can be neither traced nor exported.
    """

    demapping_methods = ("maxlog",)
    eager_only = True

    def detect(self, y, h, no):
        y_np, h_np, no_np = concrete(y), concrete(h), concrete(no)
        if y_np is None:
            raise InvalidInput(
                "sdr: runs cvxpy and works eagerly only; it cannot be traced into a "
                "graph, compiled or exported"
            )
        solver = _lifted_problem(self.num_dims, len(self.points))
        step = float(np.min(np.abs(self.points)))
        decided = np.stack(
            [solver(yi, hi * step) for yi, hi in zip(y_np, h_np)]
        ) if len(y_np) else np.zeros((0, self.num_dims))
        x = (decided * step).astype(np.float32)
        residual = y_np - np.einsum("bij,bj->bi", h_np, x)
        slope = np.einsum("bij,bi->bj", h_np, residual)
        energy = np.sum(h_np**2, axis=1)
        delta = self.points - x[..., None]
        change = -2 * delta * slope[..., None] + delta**2 * energy[..., None]
        logits = -change / no_np[:, None, None]
        return ops.convert_to_tensor(logits.astype(np.float32))


def _lifted_problem(dims, num_levels):
    """A function (y, H) -> decided integer levels; the problem is built once."""
    import cvxpy as cp

    cost = cp.Parameter((dims + 1, dims + 1), symmetric=True)
    lifted = cp.Variable((dims + 1, dims + 1), PSD=True)
    diagonal = cp.diag(lifted)
    constraints = [lifted[dims, dims] == 1]
    if num_levels == 2:
        constraints.append(diagonal[:dims] == 1)
    else:
        constraints += [diagonal[:dims] >= 1, diagonal[:dims] <= (num_levels - 1) ** 2]
    problem = cp.Problem(cp.Minimize(cp.trace(cost @ lifted)), constraints)
    levels = np.arange(-(num_levels - 1), num_levels, 2)

    def solve(y, h):
        gram, hty = h.T @ h, h.T @ y
        matrix = np.block([[gram, -hty[:, None]], [-hty[None], np.zeros((1, 1))]])
        matrix = matrix.astype(np.float64)
        cost.value = (matrix + matrix.T) / 2 / max(np.max(np.abs(matrix)), 1e-30)
        problem.solve(solver=cp.CLARABEL)
        if lifted.value is None:
            raise RuntimeError(f"sdr: the solver ended with status {problem.status}")
        estimate = lifted.value[:dims, dims]
        return levels[np.argmin(np.abs(estimate[:, None] - levels), axis=-1)]

    return solve
