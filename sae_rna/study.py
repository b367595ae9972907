"""One run: its records, language model, autoencoders and activations, each made once and kept in its folder.

A study loads, trains, encodes and remembers; results are functions of `sae_rna.analysis`, which take what it
holds. Training and encoding, the two expensive steps, take a group of layers, and all variants of the same
hidden states in one pass of the language model.
"""

import sys
from collections.abc import Callable
from functools import cache, cached_property, partial
from pathlib import Path

import pandas as pd

from sae_rna.cache import RunFolder
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.parameters import Parameters, Variant, layer_groups, resolve
from sae_rna.records.sampling import Source, all_records, structure_sample, type_sample
from sae_rna.sae import encoding
from sae_rna.sae.activations import Activations, Autoencoders
from sae_rna.sae.autoencoder import SparseAutoencoders


class Study:
    """See the module. Raises ValueError from the checks of parameters and data before anything runs."""

    def __init__(self, parameters: Parameters):
        self.parameters = parameters
        self.run = RunFolder(Path(parameters.run))
        self._records = cache(all_records)  # both uses may read the same file

    @cached_property
    def model(self) -> LanguageModel:
        p = self.parameters
        return LanguageModel.load(resolve(p.model), p.model_revision, p.device)

    @cached_property
    def random_model(self) -> LanguageModel:
        """The same architecture with random weights: the control for what the language model has learnt."""
        p = self.parameters
        return LanguageModel.load(resolve(p.model), self.model.revision, p.device, p.seed)

    def masked_model(self, random: bool = False) -> LanguageModel:
        """A model with its head for masked bases. Raises ValueError for a checkpoint that has none."""
        p, seed = self.parameters, self.parameters.seed if random else None
        return LanguageModel.load(resolve(p.model), self.model.revision, p.device, seed, masked=True)

    @cached_property
    def layers(self) -> list[int]:
        """Blocks of the language model that are studied."""
        return sum(self.groups.values(), [])

    @cached_property
    def structures(self) -> pd.DataFrame:
        """RNAs of known secondary structure in the evaluation splits, with `element`."""
        p = self.parameters
        sample = structure_sample(self.all_records("structures"), p.per_split, p.seed)
        return self.with_elements(sample).reset_index(drop=True)

    @cached_property
    def types(self) -> pd.DataFrame:
        """RNAs of known type in the evaluation splits."""
        return self._of_known_type[self._of_known_type.split != "train"].reset_index(drop=True)

    @cached_property
    def training(self) -> pd.DataFrame:
        """RNAs of known type on which the autoencoders are trained."""
        return self._of_known_type[self._of_known_type.split == "train"].reset_index(drop=True)

    @cached_property
    def _of_known_type(self) -> pd.DataFrame:
        p, records = self.parameters, self.all_records("types")
        if "type" not in records:
            remedy = "the parameter 'types' needs a file with a column type"
            raise ValueError(f"{p.types} has no RNA types: {remedy}")
        return type_sample(records, p.per_type, p.per_split, p.seed)

    def all_records(self, use: str) -> pd.DataFrame:
        """All records of the parameter `use`, structures or types, that are short enough, with `split`."""
        source = self.source(use)
        return self._records(source.file, source.longest, self.parameters.seed)

    def source(self, use: str) -> Source:
        """Where the records of the parameter `use` come from."""
        return Source(self.parameters, use, min(self.parameters.longest, self.model.longest), self.run)

    def with_elements(self, records: pd.DataFrame) -> pd.DataFrame:
        """`records` with structural elements, folded first where the parameters say so."""
        return self.source("structures").with_elements(records)

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """The studied layers by the name of their group."""
        groups = layer_groups(self.parameters, self.model.blocks)
        self.model.check_layers(sum(groups.values(), []))
        return groups

    def _model_of(self, variant: Variant) -> LanguageModel:
        return self.random_model if variant.control else self.model

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
            sequences, model = self.training.sequence.tolist(), self._model_of(variants[0])
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
            model, records = self._model_of(variants[0]), getattr(self, use)
            encoding.encode_group(stacks, model, records, kept, summarise=use == "types")

        return list(self.run.kept_together(steps, make, encoding).values())

    def stack(self, variant: Variant, name: str) -> SparseAutoencoders:
        """The trained autoencoders of one group of layers."""
        (folder,), model = self.train([variant], name), self._model_of(variant)
        stack = SparseAutoencoders.from_pretrained(folder, device=model.device)
        stack.check_model(model.fingerprint, self.parameters.model)
        return stack.requires_grad_(False)

    def autoencoders(self, variant: Variant | None = None) -> Autoencoders:
        """The trained autoencoders of `variant` by layer (default: those shown in the figures)."""
        variant = variant or self.parameters.main[0]
        names = {tuple(group): name for name, group in self.groups.items()}
        key = [place for name in self.groups for place in self._places(self._training([variant], name))]
        of_group = lambda group: self.stack(variant, names[tuple(group)])  # noqa: E731
        return Autoencoders([*self.groups.values()], key, of_group)

    def activations(self, use: str, variant: Variant | None = None) -> Activations:
        """The evaluation RNAs of `use`, structures or types, encoded by `variant` (default: as shown).

        Those of known type decide which features are retained.
        """
        variant = variant or self.parameters.main[0]
        uses = sorted({use, "types"})
        encoded = {of: [self._places(self._encoding(of, [variant], n)) for n in self.groups] for of in uses}
        names = {layer: name for name, group in self.groups.items() for layer in group}
        title = "SAE, random model" if variant.control else f"SAE ({variant.architecture})"
        key = {"encoded": encoded, "min_sequences": self.parameters.min_sequences}
        folder = lambda layer: self.encode(use, [variant], names[layer])[0]  # noqa: E731
        summary = partial(self.summary, [variant])
        return Activations(title, getattr(self, use), list(names), key, folder, summary)

    def summary(self, variants: list[Variant]) -> pd.DataFrame:
        """`Activations.summary` of several variants, one after the other."""
        folders = [self.encode("types", variants, name) for name in self.groups]
        tables = [pd.read_parquet(folder / "summary.parquet") for row in zip(*folders) for folder in row]
        summary = pd.concat(tables, ignore_index=True)
        return summary.assign(retained=summary.sequences >= self.parameters.min_sequences)

    def _training(self, variants: list[Variant], name: str) -> dict[str, dict]:
        """Names of the variants' training steps, with their inputs."""
        p = self.parameters
        read = ("sae_learning_rate", "batch", "epochs", "buffer_tokens", "precision", "seed")
        shared = {parameter: getattr(p, parameter) for parameter in read}
        shared |= {"layers": self.groups[name], "records": self.training}
        steps = {}
        for v in variants:
            own = {"model": self._model_of(v), "variant": v, "sparsity": p.sparsity(v.architecture)}
            steps[f"autoencoders-{v.name}-{name}"] = shared | own
        return steps

    def _encoding(self, use: str, variants: list[Variant], name: str) -> dict[str, dict]:
        """Names of the variants' encoding steps, with their inputs."""
        trained, records = self._places(self._training(variants, name)), getattr(self, use)
        steps = [f"features-{use}-{variant.name}-{name}" for variant in variants]
        return {step: {"autoencoders": place, "records": records} for step, place in zip(steps, trained)}

    def _places(self, steps: dict[str, dict]) -> list[str]:
        return [self.run.place(step, inputs, encoding).name for step, inputs in steps.items()]

    def kept(self, analysis: Callable[..., pd.DataFrame], *inputs, **options) -> pd.DataFrame:
        """``analysis(*inputs, **options)``, computed once for the same inputs and code.

        analysis : a function of `sae_rna.analysis` that returns a table
        inputs, options : tables, values, and whatever has a `key`: models, autoencoders, activations
        """
        module = sys.modules[analysis.__module__]
        name = f"{module.__name__.removeprefix('sae_rna.analysis.')}-{analysis.__name__}".replace("_", "-")

        def make(folder: Path):
            analysis(*inputs, **options).to_parquet(folder / "table.parquet")

        return pd.read_parquet(self.run.kept(name, [inputs, options], make, module) / "table.parquet")

    def record_run(self):
        """Write ``run.json``: parameters, model and data with their fingerprints, versions."""
        model = {name: getattr(self.model, name) for name in ("revision", "fingerprint")}
        data = {use: self.source(use).facts() for use in ("structures", "types")}
        self.run.record(self.parameters, model={"source": self.parameters.model} | model, data=data)
