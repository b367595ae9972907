"""Trained autoencoders in the formats of SAELens and of dictionary_learning.

An exported autoencoder takes and gives hidden states h as the language model has them. The standardisation
x = (h - mean) / std is folded into the weights:

    W' = W / std        W_d' = W_d std        c' = c std + mean        b' = b - (mean / std) W

where b stays as it is if c, now c', is subtracted before encoding (`Kind.centred`). Feature activations and
thresholds are the same numbers as here, except for rounding. Rows of W_d' no longer have unit norm, so
nothing may rescale activations by the decoder's norms before it chooses the K largest.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file

from sae_rna.files import write_json, writing
from sae_rna.sae.autoencoder import SparseAutoencoders

SAELENS = {"relu": "standard", "topk": "topk", "batchtopk": "jumprelu", "jumprelu": "jumprelu"}
"""SAELens' architecture for an activation function; it, too, saves BatchTopK and Matryoshka as JumpReLU."""
DICTIONARY_LEARNING = {
    "relu": "AutoEncoderNew",  # its `AutoEncoder` subtracts the decoder's bias first and is normalised
    "topk": "AutoEncoderTopK",
    "batchtopk": "BatchTopKSAE",
    "jumprelu": "JumpReluAutoEncoder",
}
"""Class of dictionary_learning for an activation function; with nested dictionaries another one."""


def to_saelens(stack: SparseAutoencoders, folder: Path) -> list[Path]:
    """Write ``cfg.json`` and ``sae_weights.safetensors`` for ``SAE.load_from_disk(subfolder)`` of SAELens 6.

    Returns the subfolders, one a member and named like its file, for example ``layer-01_seed-0_k-16``. Raises
    ValueError, before anything is written, for a BatchTopK or Matryoshka member without a threshold. Format:
    ``saes/sae.py``, ``loading/pretrained_sae_loaders.py`` of https://github.com/decoderesearch/SAELens
    """
    subfolders: list[Path] = []
    for subfolder, single, tensors, facts in _parts(stack, folder):
        config, subfolders = single.config, [*subfolders, subfolder]
        content: dict = {"architecture": SAELENS[config.kind.activation], "d_in": config.width}
        content |= {"d_sae": config.latents, "dtype": "float32", "device": "cpu"}
        content |= {"apply_b_dec_to_input": config.kind.centred, "normalize_activations": "none"}
        # The format's version: a file without is taken for one of version 5, its `metadata` dropped.
        version = {"sae_lens_version": "6.0.0", "sae_lens_training_version": None}
        content |= {"reshape_activations": "none", "metadata": version | facts}
        if config.kind.activation == "topk":
            content |= {"k": int(config.members[0].sparsity), "rescale_acts_by_decoder_norm": False}
        with writing(subfolder / "sae_weights.safetensors") as temporary:
            save_file(tensors, temporary)
        write_json(subfolder / "cfg.json", content)
    return subfolders


def to_dictionary_learning(stack: SparseAutoencoders, folder: Path) -> list[Path]:
    """Write ``config.json`` and ``ae.pt`` for `utils.load_dictionary` of dictionary_learning 0.1.

    Its `encode` and `decode` are exact; only ``forward(h, output_features=True)`` of `AutoEncoderNew`
    multiplies the features it returns by the decoder's norms. Returns and raises as `to_saelens`. Format:
    ``utils.py`` and ``dictionary.py`` of https://github.com/saprmarks/dictionary_learning
    """
    subfolders: list[Path] = []
    for subfolder, single, tensors, facts in _parts(stack, folder):
        config, subfolders = single.config, [*subfolders, subfolder]
        name = DICTIONARY_LEARNING[config.kind.activation]
        trainer: dict = {"dict_class": f"Matryoshka{name}" if config.kind.nested else name}
        trainer |= {"activation_dim": config.width, "dict_size": config.latents, "layer": facts["layer"]}
        trainer |= {"lm_name": config.model, "submodule_name": facts["hook_name"], "seed": facts["seed"]}
        trainer |= {"k": int(config.members[0].sparsity)} if config.kind.centred else {}
        # The library reads nothing but a pickle. Written for it alone: this project never reads one.
        with writing(subfolder / "ae.pt") as temporary, open(temporary, "wb") as file:
            torch.save(_state_dict(single, tensors), file)
        write_json(subfolder / "config.json", {"trainer": trainer, "sae_rna": facts})
    return subfolders


def _parts(stack: SparseAutoencoders, folder: Path) -> Iterator[tuple[Path, SparseAutoencoders, dict, dict]]:
    """Each member's folder, stack of one, folded weights and facts for JSON; ValueError without threshold."""
    config = stack.config
    for number, member in enumerate(config.members if config.kind.activation == "batchtopk" else ()):
        if not stack.threshold[number] > 0:
            raise ValueError(f"the {config.describe(member)} has no threshold yet: train it to export it")
    for single, member in zip(stack.views(), config.members, strict=True):
        facts: dict = {"model_name": config.model, "model_revision": config.revision} | member._asdict()
        # As transformers numbers them: 0 is the embedding.
        facts["hook_name"] = f"hidden_states.{member.layer}"
        facts |= {"model_fingerprint": config.fingerprint, "sae_rna_architecture": config.architecture}
        facts |= {"nested_dictionaries": list(config.prefixes), "training": config.training}
        facts["standardisation"] = "folded into the weights: takes and gives hidden states as they are"
        subfolder = Path(folder) / config.file_name(member).removesuffix(".safetensors")
        yield subfolder, single, _fold(single), facts


@torch.no_grad()
def _fold(single: SparseAutoencoders) -> dict[str, torch.Tensor]:
    """Float32 weights for hidden states, under SAELens' names, computed in double precision.

    W_enc [D, F], b_enc [F], W_dec [F, D], b_dec [D] and threshold [F]: latents are active if greater than it.
    """
    kind = single.config.kind
    weights = {name: value[0].cpu().double() for name, value in single.state_dict().items()}
    mean, std = weights["standardise.mean"], weights["standardise.std"]
    encoder, bias = weights["encoder_weight"] / std[:, None], weights["encoder_bias"][0]
    exact = {
        "W_enc": encoder,
        "b_enc": bias if kind.centred else bias - mean @ encoder,
        "W_dec": weights["decoder_weight"] * std,
        "b_dec": weights["decoder_bias"][0] * std + mean,
    }
    folded = {name: value.float().contiguous() for name, value in exact.items()}
    if kind.activation == "jumprelu":
        folded["threshold"] = single.log_threshold[0, 0].exp().cpu()
    if kind.activation == "batchtopk":  # kept here if >= the threshold: if > the next smaller number
        below = torch.nextafter(single.threshold[0, 0].cpu(), torch.zeros(1))
        folded["threshold"] = below.repeat(single.config.latents)
    return folded


def _state_dict(single: SparseAutoencoders, tensors: dict) -> dict[str, torch.Tensor]:
    """The tensors under the names that the member's class in dictionary_learning has for them."""
    config = single.config
    if config.kind.activation == "jumprelu":
        return tensors
    linear = {"encoder.weight": tensors["W_enc"].T.contiguous(), "encoder.bias": tensors["b_enc"]}
    linear["decoder.weight"] = tensors["W_dec"].T.contiguous()
    if config.kind.activation == "relu":
        return linear | {"decoder.bias": tensors["b_dec"]}
    choice = {"k": torch.tensor(int(config.members[0].sparsity), dtype=torch.int)}
    # One for all latents. AutoEncoderTopK uses its own only when asked to; negative is that library's "none".
    choice["threshold"] = tensors["threshold"][0].clone() if "threshold" in tensors else torch.tensor(-1.0)
    if config.kind.nested:
        sizes = [larger - smaller for smaller, larger in pairwise((0, *config.prefixes))]
        return tensors | choice | {"group_sizes": torch.tensor(sizes)}
    return linear | choice | {"b_dec": tensors["b_dec"]}
