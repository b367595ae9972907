"""The two expensive steps of a run, training autoencoders and encoding RNAs with them, kept in its folder.

Both take a group of layers, and all variants of the same hidden states in one pass of the language model.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from sae_rna.cache import RunFolder
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.parameters import Parameters, Variant
from sae_rna.sae import encoding, features
from sae_rna.sae.activations import Activations
from sae_rna.sae.autoencoder import SparseAutoencoders


@dataclass(eq=False)
class Autoencoders(Mapping):
    """One variant's trained autoencoders by layer, or `of_group` of layers; trained when asked for."""

    groups: list[list[int]]
    key: list[str]
    of_group: Callable[[list[int]], SparseAutoencoders]

    def __getitem__(self, layer: int) -> SparseAutoencoders:
        return self.of_group(next(group for group in self.groups if layer in group)).only(layer)

    def __iter__(self) -> Iterator[int]:
        return (layer for group in self.groups for layer in group)

    def __len__(self) -> int:
        return sum(map(len, self.groups))


@dataclass
class Steps:
    """Training and encoding for one run."""

    run: RunFolder
    parameters: Parameters
    groups: dict[str, list[int]]  # layers by the name of their group
    model_of: Callable[[Variant], LanguageModel]  # that a variant reads
    records_of: Callable[[str], pd.DataFrame]  # of a use: training, types or structures

    def group(self, name: str) -> str:
        """`name`, if there is such a group of layers. Raises ValueError naming those there are."""
        if name not in self.groups:
            known = " or ".join(self.groups)
            raise ValueError(f"this profile has no group of layers '{name}': choose {known}")
        return name

    def train(self, variants: list[Variant], name: str) -> list[Path]:
        """The folders of group `name`'s autoencoders, by variant; what is missing is trained together."""
        steps = self._training(variants, name)

        def make(missing: dict[str, Path]):
            folders = {variant: missing[step] for variant, step in zip(variants, steps) if step in missing}
            sequences, model = self.records_of("training").sequence.tolist(), self.model_of(variants[0])
            encoding.train_group(folders, model, sequences, self.groups[name], self.parameters)

        return list(self.run.kept_together(steps, make, encoding, resumable=True).values())

    def encode(self, use: str, variants: list[Variant], name: str) -> list[Path]:
        """The folders with what group `name` makes of the RNAs of `use`, by variant: `encoding.encode_group`.

        What is missing is encoded together. Of architectures only compared, the summary alone is kept.
        """
        steps, shown = self._encoding(use, variants, name), self.parameters.architecture

        def make(missing: dict[str, Path]):
            folders = {variant: missing[step] for variant, step in zip(variants, steps) if step in missing}
            stacks = {folder: self.stack(variant, name) for variant, folder in folders.items()}
            kept = [folder for variant, folder in folders.items() if variant.architecture == shown]
            model, records = self.model_of(variants[0]), self.records_of(use)
            encoding.encode_group(stacks, model, records, kept, summarise=use == "types")

        return list(self.run.kept_together(steps, make, encoding).values())

    def stack(self, variant: Variant, name: str) -> SparseAutoencoders:
        """The trained autoencoders of one group of layers."""
        (folder,), model = self.train([variant], name), self.model_of(variant)
        stack = SparseAutoencoders.from_pretrained(folder, device=model.device)
        stack.check_model(model.fingerprint, self.parameters.model)
        return stack.requires_grad_(False)

    def autoencoders(self, variant: Variant) -> Autoencoders:
        """The trained autoencoders of all groups."""
        names = {tuple(group): name for name, group in self.groups.items()}
        key = [place for name in self.groups for place in self._places(self._training([variant], name))]
        of_group = lambda group: self.stack(variant, names[tuple(group)])  # noqa: E731
        return Autoencoders([*self.groups.values()], key, of_group)

    def activations(self, use: str, variant: Variant) -> Activations:
        """The RNAs of `use`, encoded by `variant`; those of known type decide which features are retained."""
        uses = sorted({use, "types"})
        encoded = {of: [self._places(self._encoding(of, [variant], n)) for n in self.groups] for of in uses}
        names = {layer: name for name, group in self.groups.items() for layer in group}
        title = "SAE, random model" if variant.control else f"SAE ({variant.architecture})"
        key = {"encoded": encoded, "min_sequences": self.parameters.min_sequences}
        folder = lambda layer: self.encode(use, [variant], names[layer])[0]  # noqa: E731
        summary = partial(self.summary, [variant])
        return Activations(title, self.records_of(use), list(names), key, folder, summary)

    def summary(self, variants: list[Variant]) -> pd.DataFrame:
        """`Activations.summary` of several variants, one after the other."""
        folders = [self.encode("types", variants, name) for name in self.groups]
        tables = [pd.read_parquet(folder / "summary.parquet") for row in zip(*folders) for folder in row]
        summary = pd.concat(tables, ignore_index=True)
        return summary.assign(retained=features.retained(summary, self.parameters.min_sequences))

    def _training(self, variants: list[Variant], name: str) -> dict[str, dict]:
        """Names of the variants' training steps, with their inputs."""
        p = self.parameters
        read = ("sae_learning_rate", "batch", "epochs", "buffer_tokens", "precision", "seed")
        shared = {parameter: getattr(p, parameter) for parameter in read}
        shared |= {"layers": self.groups[name], "records": self.records_of("training")}
        own = lambda v: {"model": self.model_of(v), "variant": v, "sparsity": p.sparsity(v.architecture)}  # noqa: E731
        return {f"autoencoders-{variant.name}-{name}": shared | own(variant) for variant in variants}

    def _encoding(self, use: str, variants: list[Variant], name: str) -> dict[str, dict]:
        """Names of the variants' encoding steps, with their inputs."""
        trained, records = self._places(self._training(variants, name)), self.records_of(use)
        steps = [f"features-{use}-{variant.name}-{name}" for variant in variants]
        return {step: {"autoencoders": place, "records": records} for step, place in zip(steps, trained)}

    def _places(self, steps: dict[str, dict]) -> list[str]:
        return [self.run.place(step, inputs, encoding).name for step, inputs in steps.items()]
