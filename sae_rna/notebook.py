"""What every notebook begins with: check its parameters and open the study they describe."""

import ast
import logging
import warnings
from dataclasses import asdict
from inspect import ismodule

from sae_rna.parameters import Parameters, read_profile
from sae_rna.study import Study

_JUPYTER = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def start(namespace: dict) -> Study:
    """The study described by the parameters in `namespace`, a notebook's ``globals()`` after its imports.

    `profile` gives the values to start from. A value replaces the profile's where it is not the default, or
    was given to papermill. Every public name is taken for a parameter, so that a misspelt one, which
    papermill would inject with a mere warning, stops the notebook before anything runs: a ValueError names
    the unknown parameter or the impossible value and the remedy.
    """
    hidden = _JUPYTER.union(name for name, value in namespace.items() if callable(value) or ismodule(value))
    given = {name: value for name, value in namespace.items() if name[0] != "_" and name not in hidden}
    base = read_profile(given.pop("profile", "default"))
    Parameters.check_names(given)
    defaults, injected = asdict(Parameters()), _injected(namespace.get("In", []))
    values = base | {name: v for name, v in given.items() if name in injected or v != defaults[name]}
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    warnings.formatwarning = lambda message, *rest, **more: f"{message}\n"
    study = Study(Parameters(**values))
    study.record_run()
    return study


def _injected(cells: list[str]) -> set[str]:
    """Names assigned in the cell that papermill put behind the notebook's own parameters."""
    code = "".join(cell + "\n" for cell in cells if cell.startswith("# Parameters\n"))
    assigned = [line for line in ast.parse(code).body if isinstance(line, ast.Assign)]
    return {target.id for line in assigned for target in line.targets if isinstance(target, ast.Name)}
