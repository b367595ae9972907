"""The first line of every notebook: check its parameters and open the study they describe."""

import dataclasses
import logging
import warnings

from sae_rna.parameters import Parameters
from sae_rna.study import Study

_JUPYTER = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def start(namespace: dict) -> Study:
    """The study described by the parameters in `namespace`, a notebook's ``globals()`` before anything else was defined.

    Every public name there is taken for a parameter, so that a misspelt one, which papermill would inject without a word, stops the
    notebook before anything runs. Parameters that the notebook does not mention keep their defaults.

    Raises ValueError naming the unknown parameter or the impossible value and the remedy.
    """
    given = {name: value for name, value in namespace.items() if _is_parameter(name, value)}
    Parameters.check_names(given)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    warnings.formatwarning = lambda message, *rest, **more: f"{message}\n"
    study = Study(Parameters(**given))
    study.record_run()
    return study


def _is_parameter(name: str, value) -> bool:
    return not (
        name.startswith("_") or name in _JUPYTER or callable(value) or type(value).__name__ == "module"
    )


def parameters_cell(names: list[str]) -> str:
    """Source of a notebook's parameter cell: the named parameters with their explanations and defaults, from `Parameters` itself."""
    import ast
    import inspect

    body = ast.parse(inspect.getsource(Parameters)).body[0].body
    explained = {
        item.target.id: following.value.value.strip()
        for item, following in zip(body, body[1:])
        if isinstance(item, ast.AnnAssign)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }
    defaults = {item.name: item.default for item in dataclasses.fields(Parameters)}
    lines = []
    for name in names:
        lines += [f"# {explained[name]}"] if name in explained else []
        lines.append(f"{name} = {defaults[name]!r}".replace("'", '"'))
    return "\n".join(lines)
