"""Text that belongs to a packing is told from text that was put into a tensor."""

import json

import pytest

from emergraph.exporters.weightfiles.encodings.bitsandbytes import is_settings

NAME = "layer.weight.quant_state.bitsandbytes__nf4"
STATE = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [32, 64]}


def test_the_settings_of_a_packing_are_expected():
    assert is_settings(NAME, json.dumps(STATE).encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("layer.weight", json.dumps(STATE).encode()),
        (NAME, json.dumps(STATE | {"note": "carried along"}).encode()),
        (NAME, json.dumps(STATE | {"dtype": "x" * 512}).encode()),
        (NAME, b"meet me at midnight"),
        (NAME, b"[1, 2]"),
    ],
)
def test_other_text_is_not(name, content):
    assert not is_settings(name, content)
