"""SynthSAEBench (Chanin & Garriga-Alonso 2026, arXiv:2602.14687) for every architecture, and frozen ones.

    python benchmarks/synth_sae_bench.py                                  # a small world, minutes on two cores
    python benchmarks/synth_sae_bench.py --world decoderesearch/synth-sae-bench-16k-v1 --latents 4096 --k 25 \\
        --samples 200000000 --device cuda                                 # the published one

States are drawn by SAELens (the extra `peers`): correlated features in a hierarchy, with Zipfian rates, more of
them than dimensions. Dictionaries are trained by this package. Written to results/synth_sae_bench.md: explained
variance, active latents, dead latents, SAELens's mean correlation coefficient (cosines of matched rows) and the
share of the world's features that have a row with a cosine of 0.9 or more.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sae_lens.synthetic import (
    HierarchyConfig,
    LowRankCorrelationConfig,
    SyntheticModel,
    SyntheticModelConfig,
    ZipfianFiringProbabilityConfig,
)
from sae_lens.synthetic.evals import mean_correlation_coefficient

from sae_rna.analysis.controls import frozen_name, untrained
from sae_rna.extraction.stream import Standardiser
from sae_rna.parameters import ARCHITECTURES, FROZEN, Parameters
from sae_rna.sae.architectures import KINDS
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.explained_variance import ExplainedVariance
from sae_rna.sae.trainer import train

SCORED = 20_000  # states that dictionaries are scored on
ALIKE = 0.9  # least cosine of a row with the feature that it stands for


class World:
    """States of a synthetic model as a stream: what `train` takes. Every batch is drawn anew."""

    def __init__(self, model: SyntheticModel, samples: int, batch: int):
        self.model, self.tokens, self.batch, self.layers, self.key = model, samples, batch, [1], {}
        self.buffer = model.sample(SCORED)
        self.standardise = Standardiser.fit(self.buffer[:, None])

    def epochs(self, count: float, start: int = 0) -> Iterator[torch.Tensor]:
        for _ in range(start, int(count * self.tokens) // self.batch):
            yield self.standardise(self.model.sample(self.batch)[:, None]).transpose(0, 1)


def small_world(features: int, width: int, seed: int) -> SyntheticModelConfig:
    """The published world's kind, smaller."""
    rates = ZipfianFiringProbabilityConfig(exponent=0.5, max_prob=0.4, min_prob=5e-3)
    hierarchy = HierarchyConfig(total_root_nodes=features // 16, branching_factor=4, max_depth=2)
    correlation = LowRankCorrelationConfig(rank=8, correlation_scale=0.1)
    options: dict = {"hierarchy": hierarchy, "correlation": correlation, "std_firing_magnitudes": 0.5}
    return SyntheticModelConfig(
        features, width, rates, mean_firing_magnitudes=4.0, bias=0.5, seed=seed, **options
    )


@torch.inference_mode()
def measure(sae: SparseAutoencoders, model: SyntheticModel) -> dict:
    """What one dictionary keeps of fresh states, and finds of the world's features."""
    x_1TD = sae.standardise(model.sample(SCORED)[:, None]).transpose(0, 1)
    values_1TF, variance = sae.encode(x_1TD), ExplainedVariance()
    variance.update(x_1TD, sae.decode(values_1TF))
    rows_FD, features_GD = sae.decoder_weight[0] * sae.standardise.std, model.feature_dict.feature_vectors
    normal = torch.nn.functional.normalize
    best_G = (normal(features_GD) @ normal(rows_FD).T).max(1).values
    facts = {
        "explained variance": variance.value().item(),
        "L0": (values_1TF > 0).sum(-1).float().mean().item(),
    }
    facts |= {"dead": (values_1TF[0] > 0).any(0).logical_not().float().mean().item()}
    facts |= {"MCC": mean_correlation_coefficient(rows_FD, features_GD)}
    return facts | {f"features with a row of {ALIKE:g}": (best_G >= ALIKE).float().mean().item()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", help="a folder or hub id of SAELens; without one a small world is made")
    parser.add_argument("--features", type=int, default=512, help="of the small world")
    parser.add_argument("--width", type=int, default=96, help="of the small world")
    parser.add_argument("--latents", type=int, default=256)
    parser.add_argument("--k", type=int, default=12, help="active latents a state, where they are counted")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--shown", choices=ARCHITECTURES, default=Parameters().architecture)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    source = given.world or small_world(given.features, given.width, seed=0)
    model, p = SyntheticModel.load_from_source(source, device=given.device), Parameters()
    configs = []
    for name, frozen in [(name, "") for name in ARCHITECTURES] + [(given.shown, part) for part in FROZEN]:
        member = Member(1, given.k if KINDS[name].counted else p.sparsity(name))
        configs.append(AutoencoderConfig(name, (member,), model.cfg.hidden_dim, given.latents, frozen=frozen))
    stream: Any = World(model, given.samples, batch=1024)
    stacks, _ = train(stream, configs, epochs=1, learning_rate=given.learning_rate)
    named = {of.config.frozen and frozen_name(of) or of.config.architecture: of for of in stacks}
    named["untrained"] = untrained(named[given.shown])
    table = pd.DataFrame({name: measure(sae, model) for name, sae in named.items()}).T.rename_axis(
        "dictionary"
    )
    table = table.round(3).reset_index().astype(str)
    size = f"{model.cfg.num_features:,} features in {model.cfg.hidden_dim} dimensions"
    lines = [
        f"{given.world or 'A small world'}: {size}; {given.latents:,} latents, {given.samples:,} states.",
        "",
    ]
    rows = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    text = "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])
    (Path(__file__).parent / "results" / "synth_sae_bench.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
