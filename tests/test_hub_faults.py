"""Whatever fails on the way to the hub ends in one sentence that says what, why and what to do."""

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from sae_rna.hub import hub_faults


def sentence(error: Exception) -> str:
    with pytest.raises(ValueError) as caught, hub_faults("owner/name", "a data set"):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


def test_the_name_the_kind_the_reason_and_the_remedy_are_named():
    text = sentence(OSError("no route to host.\nand\nmore lines"))
    for part in ("owner/name", "a data set", "no route to host. and more lines", "check its name"):
        assert part in text
    assert "\n" not in text


def test_long_and_empty_reasons_are_one_short_line():
    assert len(sentence(OSError("word " * 1000))) < 600
    assert "(TimeoutError)" in sentence(TimeoutError())


def test_the_hubs_own_answer_is_told_not_that_the_cache_is_empty():
    outer = LocalEntryNotFoundError("not in the cache either")
    outer.__cause__ = OSError("401: log in first")
    assert "log in first" in sentence(outer) and "cache" not in sentence(outer)


def test_what_does_not_fail_passes():
    with hub_faults("owner/name", "a data set"):
        result = 1
    assert result == 1
