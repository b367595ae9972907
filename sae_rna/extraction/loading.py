"""Loading of language models: files that are whole, models that can be read, weights that are all there."""

import hashlib
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from multimolecule import DnaTokenizer, RnaTokenizer  # also registers all its models with transformers
from safetensors import SafetensorError
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer
from transformers import PretrainedConfig as Config
from transformers.utils import logging as transformers_logging

from sae_rna.hub import hub_faults, reason
from sae_rna.records.composition import NUCLEOTIDES

UNREADABLE = {
    "rnamsm": "it reads alignments of many RNAs, not single ones",
    "ribonanzanet": "its states of an RNA change with the padding that longer ones in the same batch bring",
}
"""Model types that have hidden states, but none that are the RNA's alone."""
_FILES = ["*.json", "*.txt", "*.safetensors"]  # configuration, tokenizer and weights
_ATTENTION = {"attn_implementation": "sdpa"}  # faster, and no matrix [B, heads, W, W] in memory


def model_folder(source: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder of a model and its commit on the hub (None for a folder).

    For a hub id it is downloaded; what is damaged is removed, to be fetched again, and a ValueError raised.
    """
    if Path(source).is_dir():
        if not (Path(source) / "config.json").exists():
            raise ValueError(f"{source} holds no config.json: it is no folder of a multimolecule model")
        return Path(source), None
    if Path(source).is_absolute() or source.count("/") != 1:
        raise ValueError(f"{source} is neither a folder nor a hub id owner/name: check the parameter 'model'")
    with hub_faults(source, "a language model"):
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=_FILES))
    damaged = []
    for file in (file for pattern in _FILES for file in folder.rglob(pattern)):
        # The cache names a file after its content, by SHA-256 (64 digits) or, if it is small, by git's SHA-1.
        # A download compares sizes alone, and altered weights would load without a word.
        name = file.readlink().name if file.is_symlink() else ""
        if len(name) in (40, 64) and name != _checksum(file, len(name)):
            damaged.append(file.name)
            for path in (file.resolve(), file.parent / file.readlink(), file):
                path.unlink(missing_ok=True)
    if damaged:
        files = ", ".join(damaged)
        raise ValueError(f"{source}: damaged on the way and removed: {files}; load the model again")
    return folder, folder.name


def _checksum(file: Path, digits: int) -> str:
    start = hashlib.sha256() if digits == 64 else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: start).hexdigest()


def configuration(source: str, folder: Path) -> tuple[Config, RnaTokenizer | DnaTokenizer]:
    """Configuration and tokenizer. ValueError unless each nucleotide is a token of its own and the model is a
    stack of attention blocks with states of single RNAs."""
    try:
        config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        problem = f"is no model that can be loaded ({reason(error)})"
        raise ValueError(f"{source} {problem}: give a model of multimolecule") from error
    if not isinstance(tokenizer, RnaTokenizer | DnaTokenizer):
        problem = f"is no model of RNA or DNA (its tokenizer is {type(tokenizer).__name__})"
        raise ValueError(f"{source} {problem}: give an encoder of multimolecule")
    try:
        ids = tokenizer(NUCLEOTIDES, add_special_tokens=False)["input_ids"]
    except ValueError:  # not a whole number of codons
        ids = []
    if len(set(ids)) != len(NUCLEOTIDES):
        problem = f"reads {tokenizer.nmers} nucleotides as one token, so that none has its own state"
        raise ValueError(f"{source} {problem}: give a model with one token a nucleotide")
    kind = MODEL_MAPPING.get(type(config), None)
    problem = UNREADABLE.get(config.model_type, "")
    if not (kind and kind._supports_sdpa and "hidden_states" in (kind._can_record_outputs or {})):
        blocks = "attention blocks with a state for each nucleotide"
        problem = problem or f"it is a model of type {config.model_type}, which is not built of {blocks}"
    if problem:
        raise ValueError(f"{source} cannot be read: {problem}; give another encoder, as RiNALMo or RNA-FM")
    return config, tokenizer


def read_weights(source: str, folder: Path, masked: bool) -> torch.nn.Module:
    """The published model, with its masked-LM head if `masked`. ValueError if a weight is missing."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what matters of the loading report is raised below
    transformers_logging.disable_progress_bar()
    try:
        options = {"use_safetensors": True, "output_loading_info": True, **_ATTENTION}
        model, report = (AutoModelForMaskedLM if masked else AutoModel).from_pretrained(folder, **options)
    except (OSError, SafetensorError) as error:
        problem = f"its weights cannot be read ({reason(error)})"
        raise ValueError(f"{source}: {problem}: give a folder with model.safetensors") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
    # Neither is read: masked-LM checkpoints have no pooler, decoder.bias is a second name of lm_head.bias.
    absent = [key for key in report["missing_keys"] if "pooler." not in key and key != "lm_head.decoder.bias"]
    absent += [str(key) for key in report["mismatched_keys"]]
    if absent:
        problem = f"{len(absent)} weights of the model are missing or of another shape, first {min(absent)}"
        raise ValueError(f"{source}: {problem}; this is a checkpoint of another model")
    return model


def draw_weights(config: Config, masked: bool, seed: int) -> torch.nn.Module:
    """A model of the same architecture with random weights."""
    torch.manual_seed(seed)
    return (AutoModelForMaskedLM if masked else AutoModel).from_config(config, **_ATTENTION)


def fingerprint(model: torch.nn.Module) -> str:
    """SHA-256 of all parameters in float32, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
