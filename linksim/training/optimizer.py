"""The optimizers that recipes name, Keras' own, and the average of the weights."""

import contextlib

import keras
import numpy as np
from keras import ops


def make_optimizer(settings, variables):
    """The optimizer of a recipe, built.

    Args:
        settings: the `Optimizer` table of the recipe.
        variables: the trainable variables.
    """
    options = {"learning_rate": settings.learning_rate}
    if settings.clip_norm:
        options["global_clipnorm"] = settings.clip_norm
    if settings.ema:
        options.update(use_ema=True, ema_momentum=settings.ema)
    if settings.name != "adam":
        options["weight_decay"] = settings.weight_decay
    if settings.name == "muon":
        options["adam_weight_decay"] = settings.weight_decay
    kinds = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "muon": keras.optimizers.Muon,
    }
    optimizer = kinds[settings.name](**options)
    # A scale or a step size is not better for being near zero, as a large matrix is
    optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    optimizer.build(variables)
    return optimizer


def rate_of_step(settings, highest, step, steps):
    """The learning rate of step `step` of `steps`.

    Args:
        settings: the `Optimizer` table of the recipe.
        highest: the rate of other schedules than "cosine", as plateaus have left it.
    """
    warmup = settings.warmup_steps
    if settings.schedule == "cosine":
        highest = settings.learning_rate
    if step < warmup:
        return highest * (step + 1) / warmup
    if settings.schedule != "cosine":
        return highest
    progress = (step - warmup) / (steps - warmup)
    span = highest - settings.final_rate
    return settings.final_rate + span * (1 + np.cos(np.pi * progress)) / 2


@contextlib.contextmanager
def averaged_weights(optimizer, variables):
    """While it lasts, variables hold their averages, where the optimizer has these.

    Other variables, such as the statistics of batch normalization, stay as they are.
    """
    # Before the first step the averages are zeros
    if not optimizer.use_ema or not int(optimizer.iterations):
        yield
        return
    exact = [np.array(ops.convert_to_numpy(v)) for v in variables]
    optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, exact):
            variable.assign(value)
