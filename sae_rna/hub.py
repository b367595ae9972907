"""The one wrapper for what fails while something is read from the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

from huggingface_hub.errors import LocalEntryNotFoundError


def reason(error: BaseException) -> str:
    """What went wrong, in one line of at most 300 characters."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__  # "not in the cache either": what the hub said matters
    return shorten(str(error), 300, placeholder=" ...").rstrip(".: ") or type(error).__name__


@contextmanager
def hub_faults(name: str, kind: str) -> Iterator[None]:
    """A ValueError, one sentence with a remedy, for all that fails while `name` is read as `kind`."""
    try:
        yield
    except Exception as error:  # hub, network and files each fail in their own ways
        remedy = "check its name, its revision and the network, then run this again, or give a file or folder"
        fault = f"{name} cannot be read as {kind} of the Hugging Face hub ({reason(error)})"
        raise ValueError(f"{fault}: {remedy}") from error
