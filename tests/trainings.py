"""What the tests of training share."""

import keras
import numpy as np
import pytest

import linksim.training.publish
from linksim.link.scenario import load_scenario
from linksim.training.build import build_task
from linksim.training.loop import Trainer


def trainer(plan, folder=None, **options):
    """The `Trainer` of a recipe, with starting weights that depend on its seed alone."""
    keras.utils.set_random_seed(plan.seed)
    task, scenario = build_task(plan)
    return Trainer(plan, task, scenario, folder, **options)


class Kill(Exception):
    pass


def check_resumption(plan, folder, stop_at, **options):
    """Assert that a training killed at a step ends as one that was not.

    Args:
        plan: the recipe.
        folder: of the state.
        stop_at: the step that it is killed after, or a list: it is killed again and again.
        options: of the `Trainer`.

    Returns:
        The history, and the steps at which it was continued.
    """
    whole = trainer(plan)
    history = whole.run()

    continued, stops = [], []

    def kill(step, steps, loss):
        if step == stops[-1]:
            raise Kill

    options["on_resume"] = lambda step, steps: continued.append(step)
    for stop in np.atleast_1d(stop_at):
        stops.append(stop)
        with pytest.raises(Kill):
            trainer(plan, folder, on_step=kill, **options).run()
    again = trainer(plan, folder, **options)
    resumed = again.run()
    assert len(history) == len(resumed)
    for a, b in zip(history, resumed):
        a, b = ({k: v for k, v in e.items() if k != "seconds"} for e in (a, b))
        np.testing.assert_equal(a, b)
    for a, b in zip(whole.task.product.weights, again.task.product.weights):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    return resumed, continued


def published(plan):
    """A finished training of a recipe, published as a recommended model."""
    made = trainer(plan)
    made.run()
    scenario = load_scenario(plan.data.scenario)
    linksim.training.publish.publish(plan, made, scenario, status="recommended")
    return made
