"""Where the shipped files lie, in a checkout and in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(checkout_path, installed_name):
    installed = _PACKAGE / installed_name
    if installed.is_dir():
        return installed
    return _PACKAGE.parent / checkout_path


def scenario_folder():
    """Folder of the shipped scenario files."""
    return _folder("simulations/scenarios", "_scenarios")


def model_folder():
    """Folder of the recipes, weights and cards of trained models."""
    return _folder("models", "_models")
