"""How much memory a job takes: the one estimate, for the plan and for what jobs ask a cluster for."""

from sae_rna.parameters import Parameters, Variant

FORWARD_FLOATS = 30  # of the model's width, held by a forward pass for each token at its widest point
OVERHEAD_GB = 1.0  # Python and its libraries
BATCH_TOKENS = 8192  # in one forward pass: more are a third slower on a CPU, fewer leave a GPU idle


def training_gb(
    p: Parameters, variants: list[Variant], layers: int, width: int, model: int, tokens: int
) -> float:
    """Memory of one training job, in GB.

    variants : all that are trained in the job
    layers, width, model : blocks that it reads; the language model's width and number of parameters
    tokens : nucleotides to train on
    """
    buffer = min(p.buffer_tokens, tokens) * layers * width
    batch = BATCH_TOKENS * (layers + FORWARD_FLOATS) * width
    # weights, two moments and gradients
    stacks = 4 * layers * sum(autoencoder_parameters(variant, width) for variant in variants)
    return OVERHEAD_GB + 4 * (model + buffer + batch + stacks) / 1e9


def encoding_gb(
    p: Parameters, variants: list[Variant], layers: int, width: int, model: int, tokens: int
) -> float:
    """As `training_gb`, of an encoding job, which keeps the active latents of the shown architecture."""
    shown = sum(variant.architecture == p.architecture for variant in variants)
    stacks = sum(autoencoder_parameters(variant, width) for variant in variants)
    kept = shown * 2 * p.k * tokens  # a value and a column number for each
    batch = BATCH_TOKENS * (layers + FORWARD_FLOATS) * width
    return OVERHEAD_GB + 4 * (model + batch + layers * (stacks + kept)) / 1e9


def autoencoder_parameters(variant: Variant, width: int) -> int:
    """Of one layer."""
    return 2 * width * width * variant.expansion
