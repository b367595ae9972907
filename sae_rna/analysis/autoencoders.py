"""Page 03: how the autoencoders were trained."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd


def training_curves(folders: Iterable[list[Path]]) -> pd.DataFrame:
    """The table of fig-training: a row per report, layer and architecture, from ``training.parquet``.

    folders : of every group of layers the folders of its autoencoders, by architecture
    """
    tables = [pd.read_parquet(folder / "training.parquet") for of in zip(*folders) for folder in of]
    return pd.concat(tables, ignore_index=True)


def training_end(curves: pd.DataFrame) -> pd.DataFrame:
    """tab-training-end: the last report of every layer and architecture."""
    end = curves[curves.step == curves.step.max()].sort_values(["architecture", "layer"])
    return end[["architecture", "layer", "l0", "explained_variance", "dead_share", "loss"]]


def headed(end: pd.DataFrame) -> pd.DataFrame:
    """`training_end` under names for readers."""
    names = {"l0": "active latents (L0)", "explained_variance": "explained variance", "dead_share": "dead"}
    return end.rename(columns=names)


def report_steps(curves: pd.DataFrame) -> int:
    """Training steps that the last report is the mean of."""
    steps = sorted({0, *curves.step})
    return int(steps[-1] - steps[-2])


def conclusion(end: pd.DataFrame, latents: int) -> dict:
    """The architectures of `training_end` with the fewest and the most active latents, means over layers.

    latents : in the dictionary of a layer
    """
    means = end.groupby("architecture")[["l0", "explained_variance"]].mean()
    facts = {"architectures": len(means), "dead": end.dead_share.max()}
    for name, architecture in (("sparsest", means.l0.idxmin()), ("densest", means.l0.idxmax())):
        active, explained = means.loc[architecture]
        facts |= {name: architecture, f"{name}_l0": active, f"{name}_explained": explained}
    return facts | {"densest_share": facts["densest_l0"] / latents}
