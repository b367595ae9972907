"""RNA language models: any multimolecule encoder, from a folder or a hub id, and the hidden states of its layers.

Layer numbering follows ``hidden_states`` of multimolecule and transformers: 0 is the embedding layer and `i` the output of block
`i`. The last one is taken *after* the encoder's final layer norm, since the library overwrites it with ``last_hidden_state``.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import multimolecule  # noqa: F401  (registers its models and tokenizers with transformers)
import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

NUCLEOTIDES = "ACGU"
_FILES = ["*.json", "*.txt", "*.safetensors"]  # of a model on the hub: configuration, tokenizer and weights


class HiddenStates(NamedTuple):
    """Hidden states of the nucleotides of one batch of sequences; T tokens, L layers, width D."""

    sequence_T: np.ndarray
    """Number of the sequence in the list that was asked for, int64. Sequences are never split over two batches."""
    position_T: np.ndarray
    """0-based position in the sequence, int64."""
    values_TLD: torch.Tensor
    """float32 on the model's device, not standardised."""


@dataclass
class LanguageModel:
    """An encoder with its tokenizer, ready to be read. Make one with `load`."""

    source: str
    revision: str | None
    """The commit that was read on the hub; None for a folder."""
    model: torch.nn.Module
    tokenizer: object
    device: torch.device
    fingerprint: str
    """SHA-256 of the weights, 16 hexadecimal digits: what a saved SAE is checked against."""

    @classmethod
    def load(cls, source: str, revision: str | None = None, device: str = "auto", random_seed: int | None = None) -> "LanguageModel":
        """Load an encoder without its heads.

        Parameters
        ----------
        source
            A folder in multimolecule's format (``config.json``, ``model.safetensors``, tokenizer) or a hub id such as
            ``multimolecule/rinalmo-giga``.
        revision
            Branch, tag or commit on the hub.
        device
            ``auto`` takes a GPU where there is one.
        random_seed
            Keep the architecture, draw the weights afresh: the control for every claim about what a model has learnt.

        Raises
        ------
        ValueError
            If a weight of the encoder is missing in the checkpoint or has another shape (random weights would pass unnoticed), if the
            folder or the hub cannot be read, and if a downloaded file is damaged.
        """
        return cls._load(AutoModel, source, revision, device, random_seed)

    @classmethod
    def load_masked(cls, source: str, revision: str | None = None, device: str = "auto", random_seed: int | None = None) -> "LanguageModel":
        """Load an encoder together with its masked-language-model head; otherwise as `load`."""
        return cls._load(AutoModelForMaskedLM, source, revision, device, random_seed)

    @classmethod
    def _load(cls, auto_class, source, revision, device, random_seed):
        if not Path(source).is_dir() and (Path(source).is_absolute() or source.count("/") != 1):
            raise ValueError(f"{source} is neither a folder nor a hub id of the form owner/name: check the parameter 'model'")
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        if Path(source).is_dir() and not (Path(source) / "config.json").exists():
            raise ValueError(f"{source} holds no config.json: it is no folder of a multimolecule model")
        local = Path(source).is_dir()
        folder = Path(source) if local else _download(source, revision)
        commit = None if local else folder.name
        try:
            config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ValueError(f"{source} is no model that can be loaded ({_reason(error)}): give a model of multimolecule") from error
        if random_seed is None:
            verbosity = transformers_logging.get_verbosity()
            transformers_logging.set_verbosity_error()  # what matters of the loading report is raised below
            transformers_logging.disable_progress_bar()
            try:
                model, report = auto_class.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
            except (OSError, SafetensorError) as error:
                raise ValueError(
                    f"{source}: its weights cannot be read ({_reason(error)}): give a folder with model.safetensors"
                ) from error
            finally:
                transformers_logging.set_verbosity(verbosity)
                transformers_logging.enable_progress_bar()
            # Neither is read here: masked-LM checkpoints come without a pooler, and decoder.bias is a second name of lm_head.bias.
            absent = [key for key in report["missing_keys"] if "pooler." not in key and key != "lm_head.decoder.bias"]
            absent += [str(key) for key in report["mismatched_keys"]]
            if absent:
                raise ValueError(
                    f"{source}: {len(absent)} weights of the model are not in the checkpoint or have another shape, the first is "
                    f"{sorted(absent)[0]}; this is a checkpoint of another model"
                )
        else:
            torch.manual_seed(random_seed)
            model = auto_class.from_config(config)
        if hasattr(model, "pooler"):
            model.pooler = None  # never read, and random where the checkpoint has none
        model = model.eval().to(device).requires_grad_(False)
        return cls(source, commit, model, tokenizer, device, _fingerprint(model))

    @property
    def layers(self) -> int:
        """Number of transformer blocks."""
        return self.model.config.num_hidden_layers

    @property
    def width(self) -> int:
        """Dimension D of the residual stream."""
        return self.model.config.hidden_size

    @property
    def longest(self) -> int:
        """Nucleotides in the longest sequence the model takes."""
        return self.model.config.max_position_embeddings - self.tokenizer.num_special_tokens_to_add()

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def tokenize(self, sequences: Sequence[str]) -> dict[str, torch.Tensor]:
        """Token ids and attention mask [B, W], padded to the longest of `sequences`, on the model's device."""
        return self.tokenizer(list(sequences), return_tensors="pt", padding=True, return_attention_mask=True).to(self.device)

    def nucleotide_mask(self, ids: torch.Tensor) -> torch.Tensor:
        """Where `ids` [B, W] holds A, C, G or U. Special tokens, N and other ambiguity codes are no nucleotides here."""
        known = torch.tensor(self.tokenizer.convert_tokens_to_ids(list(NUCLEOTIDES)), device=ids.device)
        return torch.isin(ids, known)

    def batches(self, sequences: Sequence[str], batch_tokens: int = 16_384, rng: np.random.Generator | None = None) -> list[np.ndarray]:
        """Numbers of the sequences of each batch: of similar length, at most `batch_tokens` tokens with padding.

        With `rng`, ties and the order of the batches are random; without it the order is that of the lengths.

        Raises ValueError naming the first sequence that is longer than the model allows.
        """
        lengths = np.array([len(sequence) for sequence in sequences])
        if len(lengths) and lengths.max() > self.longest:
            first = int(np.argmax(lengths > self.longest))
            raise ValueError(
                f"sequence {first + 1} has {lengths[first]} nt, but {self.source} reads at most {self.longest}: "
                "shorten or leave out longer ones"
            )
        order = np.lexsort((rng.random(len(lengths)) if rng else np.arange(len(lengths)), lengths))
        batches, start = [], 0
        for end in range(1, len(order) + 1):
            if end == len(order) or (lengths[order[end]] + 2) * (end + 1 - start) > batch_tokens:
                batches.append(order[start:end])
                start = end
        if rng:
            rng.shuffle(batches)
        return batches

    @torch.inference_mode()
    def hidden_states(
        self, sequences: Sequence[str], layers: Sequence[int], batches: list[np.ndarray] | None = None
    ) -> Iterator[HiddenStates]:
        """Hidden states of the nucleotides of `sequences`, all of `layers` in one forward pass a batch.

        The forward pass is the model's own: token dropout's rescaling of unmasked sequences and the final layer norm included.
        """
        layers = self.check_layers(layers)
        for rows in batches if batches is not None else self.batches(sequences):
            tokens = self.tokenize([sequences[row] for row in rows])
            states = self.model(**tokens, output_hidden_states=True).hidden_states
            row, column = self.nucleotide_mask(tokens["input_ids"]).nonzero(as_tuple=True)
            values = torch.stack([states[layer][row, column] for layer in layers], 1).float()
            first = int(self.tokenizer.cls_token_id is not None and (tokens["input_ids"][:, 0] == self.tokenizer.cls_token_id).all())
            yield HiddenStates(rows[row.cpu().numpy()], column.cpu().numpy() - first, values)

    def check_layers(self, layers: Sequence[int]) -> list[int]:
        """`layers` as a list, or a ValueError naming the one that the model does not have."""
        for layer in layers:
            if not 0 <= layer <= self.layers:
                raise ValueError(f"layer {layer} is asked for, but {self.source} has blocks 1 to {self.layers} (0 is the embedding layer)")
        return list(layers)


def _download(source: str, revision: str | None) -> Path:
    """The files of a hub model in the hub's cache, complete and undamaged: a folder named after their commit.

    Raises ValueError if they cannot be had. What is broken is removed, so that it is fetched again the next time.
    """
    try:
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=_FILES))
    except Exception as error:  # the hub and the network fail in many ways
        raise ValueError(
            f"{source} cannot be loaded ({_reason(error)}): check its name, its revision and the network, or give a folder"
        ) from error
    damaged = []
    for file in (file for pattern in _FILES for file in folder.rglob(pattern)):
        # The cache names each file after its content: by SHA-256 (64 digits) or, if it is small, by git's SHA-1. Only sizes are
        # compared in a download, and altered weights would load without a word.
        name = file.readlink().name if file.is_symlink() else ""
        if len(name) in (40, 64) and name != _checksum(file, len(name)):
            damaged.append(file.name)
            for path in (file.resolve(), file.parent / file.readlink(), file):
                path.unlink(missing_ok=True)
    if damaged:
        raise ValueError(f"{source}: damaged on the way and removed from the cache: {', '.join(damaged)}; load the model again")
    return folder


def _checksum(file: Path, digits: int) -> str:
    digest = hashlib.sha256() if digits == 64 else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as content:
        while chunk := content.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:  # "not in the cache either": what the hub said matters
        error = error.__cause__
    return shorten(str(error), 300, placeholder=" ...").rstrip(".: ") or type(error).__name__


def _fingerprint(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
