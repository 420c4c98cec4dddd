import base64

import numpy as np
import pytest
from plantednets import audited_fast, quantized, transformer

from emergraph.analysis.audit.kinds import Grade
from emergraph.analysis.audit.quantization import CLIPPED, KEEP, decibels, is_clipped
from emergraph.analysis.audit.subject import Given
from emergraph.analysis.audit.suspicious import (
    LOST_BITS,
    MIN_SPREAD,
    TEXT,
    discoveries,
    entropy,
    hidden_in,
    p_values,
    reads_as_text,
    robust_z,
)

WORDS = b"The quick brown fox jumps over the lazy dog, again and again, and writes it down. " * 4


def ids(dtype, values):
    return {found.id for found in hidden_in(dtype, values)}


@pytest.fixture
def weights():
    return np.random.default_rng(7).standard_normal(8192).astype(np.float32)


def test_trained_looking_weights_hide_nothing(weights):
    for dtype, values in (("float32", weights), ("float16", weights.astype(np.float16))):
        assert not ids(dtype, values)
    assert not ids("int8", np.random.default_rng(1).integers(-127, 128, 100_000).astype(np.int8))
    assert not ids("float32", weights.astype(np.float16).astype(np.float32))
    assert not ids("int64", np.arange(1000))


@pytest.mark.parametrize("n", [TEXT, 120, 300])
def test_text_in_the_bytes_is_found(weights, n):
    raw = weights.view(np.uint8).copy()
    raw[400 : 400 + n] = np.frombuffer(WORDS[:n], np.uint8)
    assert "HIDDEN-TEXT" in ids("float32", raw.view(np.float32))


@pytest.mark.parametrize("n", [TEXT, 120, 300])
def test_text_in_the_lowest_bytes_is_found(weights, n):
    raw = weights.view(np.uint8).copy()
    raw[400 : 400 + 4 * n : 4] = np.frombuffer(WORDS[:n], np.uint8)
    found = list(hidden_in("float32", raw.view(np.float32)))
    assert [one.where for one in found if one.id == "HIDDEN-TEXT"] == ["the lowest bytes"]


@pytest.mark.parametrize("n", [TEXT, 120, 300])
@pytest.mark.parametrize("order", ["big", "little"])
def test_text_in_the_lowest_bits_is_found(weights, n, order):
    raw = weights.view(np.uint8).copy()
    bits = np.unpackbits(np.frombuffer(WORDS[:n], np.uint8), bitorder=order)
    raw[: 4 * len(bits) : 4] = (raw[: 4 * len(bits) : 4] & 0xFE) | bits
    found = list(hidden_in("float32", raw.view(np.float32)))
    assert "the lowest bits" in {one.where for one in found if one.id == "HIDDEN-TEXT"}


def test_shorter_text_and_repeated_bytes_are_left_alone(weights):
    raw = weights.view(np.uint8).copy()
    raw[400 : 400 + TEXT - 8] = np.frombuffer(WORDS[: TEXT - 8], np.uint8)
    assert "HIDDEN-TEXT" not in ids("float32", raw.view(np.float32))
    assert not reads_as_text(b"@" * 100)
    assert not reads_as_text(bytes(np.random.default_rng(3).integers(0x30, 0x7F, 1152, np.uint8)))
    assert not reads_as_text(WORDS[:100].replace(b" ", b"*"))
    assert reads_as_text(WORDS[:TEXT])
    assert reads_as_text(base64.b64encode(bytes(range(60))))
    assert reads_as_text(b"https://files.example.com/a/b/c.tar.gz?user=me&key=0123456789abcdef")
    assert not reads_as_text(b"!#$%&'()*+,-./:;<=>?@[]^_" * 4)
    assert not ids("uint8", np.full(1000, 64, np.uint8))


@pytest.mark.parametrize(
    "magic",
    [
        *(b"\x7fELF\x02\x01\x01\x00", b"PK\x03\x04\x14\x00\x00\x00\x08\x00", b"\x89PNG\r\n\x1a\n"),
        *(b"%PDF-1.7", b"#!/bin/sh\n", b"7z\xbc\xaf\x27\x1c"),
    ],
)
def test_the_beginning_of_a_file_is_found(weights, magic):
    raw = weights.view(np.uint8).copy()
    raw[1001 : 1001 + len(magic)] = np.frombuffer(magic, np.uint8)
    assert "HIDDEN-FILE" in ids("float32", raw.view(np.float32))


def test_a_skewed_lowest_byte_is_found_and_an_even_one_is_not(weights):
    raw = weights.view(np.uint8).copy()
    raw[::4] = np.random.default_rng(3).choice(np.frombuffer(b"ABCDEFGHIJKLMNOP", np.uint8), len(weights))
    assert "HIDDEN-BITS" in ids("float32", raw.view(np.float32))
    assert entropy(np.bincount(weights.view(np.uint8)[::4], minlength=256)) > 8 - LOST_BITS


@pytest.mark.parametrize("bits", [1, 4, 7, 8, 10])
def test_weights_that_were_all_rounded_hide_nothing(weights, bits):
    words = weights.view(np.uint32) & ~np.uint32((1 << bits) - 1)
    assert not ids("float32", words.view(np.float32))


def test_robust_z_is_not_moved_by_what_it_is_to_find():
    values = np.r_[np.random.default_rng(0).standard_normal(199), 40.0]
    z = robust_z(values)
    assert z[-1] > 30
    assert np.abs(z[:-1]).max() < 5
    assert not robust_z(np.r_[np.zeros(9), 1.0]).any()
    designed = np.r_[np.linspace(-1, 1, 99), 40.0]
    assert robust_z(designed * 1.1 * MIN_SPREAD / (1.4826 * 0.51)).any()
    assert not robust_z(designed * 0.9 * MIN_SPREAD / (1.4826 * 0.51)).any()


def test_discoveries_hold_a_share_and_not_a_count():
    p = np.r_[np.full(10, 1e-6), np.linspace(0.05, 1, 990)]
    assert discoveries(p, 0.01).sum() == 10
    assert not discoveries(np.linspace(0.01, 1, 1000), 0.01).any()
    assert len(discoveries(np.array([]), 0.01)) == 0
    assert p_values(np.array([-50.0]))[0] > 0.99


@pytest.mark.parametrize("factor", [8, 20, 100])
def test_a_unit_of_far_larger_weights_is_found(tmp_path, factor):
    net = quantized(width=64, coded=False)
    net.weights["w2"][9] *= factor
    found = [f for f in audited_fast(net.save(tmp_path / "net.onnx")).findings if f.id == "ODD-UNIT"]
    assert [f.units for f in found] == [{"dense2": [9]}]


@pytest.mark.parametrize("strength", [0.01, 0.1, 1.0])
def test_a_low_rank_edit_is_found_beside_the_reference(tmp_path, strength):
    net = transformer(width=24)
    reference = net.save(tmp_path / "reference.onnx")
    rng = np.random.default_rng(11)
    edit = np.outer(rng.standard_normal(24), rng.standard_normal(48)).astype(np.float32)
    net.weights["w1"] = net.weights["w1"] + strength * edit * np.linalg.norm(
        net.weights["w1"]
    ) / np.linalg.norm(edit)
    result = audited_fast(net.save(tmp_path / "edited.onnx"), reference=reference)
    (found,) = [f for f in result.findings if f.id == "RANK-ONE-UPDATE"]
    assert found.tensors == ["w1"]
    assert found.evidence["rank"] == 1
    assert found.evidence["relative_norm"] == pytest.approx(strength, rel=0.01)


def test_training_on_is_no_edit(tmp_path):
    net = transformer(width=24)
    reference = net.save(tmp_path / "reference.onnx")
    rng = np.random.default_rng(12)
    net.weights["w1"] = net.weights["w1"] + 0.01 * rng.standard_normal((24, 48)).astype(np.float32)
    result = audited_fast(net.save(tmp_path / "later.onnx"), reference=reference)
    assert not [f for f in result.findings if f.id == "RANK-ONE-UPDATE"]


def test_codes_that_are_not_used_or_cut_off_are_found(tmp_path):
    net = quantized(width=32)
    net.weights["w2_q"] = (net.weights["w2_q"] // 8).astype(np.int8)
    net.weights["w3_q"] = np.clip(net.weights["w3_q"].astype(int) * 20, -127, 127).astype(np.int8)
    found = {f.id: f for f in audited_fast(net.save(tmp_path / "net.onnx")).findings}
    assert "w2_q" in found["QUANT-UNUSED"].tensors
    assert found["QUANT-CLIPPED"].tensors == ["w3_q"]


def test_clipping_has_an_edge():
    assert not is_clipped(10, 1000, 8)
    assert is_clipped(11, 1000, 8)
    assert not is_clipped(4, 100, 8)
    assert is_clipped(151, 1000, 4)
    assert CLIPPED[4] > CLIPPED[8]


def test_noise_and_effect_of_rounding_are_measured_against_the_reference(tmp_path):
    net, plain = quantized(width=32), quantized(width=32, coded=False)
    reference = plain.save(tmp_path / "float.onnx")
    given = Given(inputs=net.samples)
    same = audited_fast(net.save(tmp_path / "codes.onnx"), given, reference=reference)
    assert not {"QUANT-NOISE", "RANK-ONE-UPDATE"} & {f.id for f in same.findings}
    net.weights["w2_q"] = (np.round(net.weights["w2_q"] / 40) * 40).astype(np.int8)
    rough = audited_fast(net.save(tmp_path / "rough.onnx"), given, reference=reference)
    found = {f.id: f for f in rough.findings}
    assert list(found["QUANT-NOISE"].units) == ["dense2"]
    assert found["QUANT-NOISE"].evidence["decibels"] < 20
    assert 0 < found["QUANT-OUTPUT"].evidence["relative"] < 1
    assert decibels(np.ones(4), np.zeros(4)) == np.inf
    assert decibels(np.ones(4), 0.1 * np.ones(4)) == pytest.approx(20)


def test_a_reference_that_is_another_network_is_said_to_be_one(tmp_path):
    net = quantized(width=32)
    other = transformer().save(tmp_path / "other.onnx")
    result = audited_fast(net.save(tmp_path / "net.onnx"), reference=other)
    assert any("another one" in note for note in result.notes)


@pytest.mark.parametrize("inputs", [True, False])
def test_the_layer_that_should_stay_in_float_is_the_one_whose_rounding_moves_the_outputs(tmp_path, inputs):
    net, plain = quantized(coded=True, width=32), quantized(coded=False, width=32)
    reference = plain.save(tmp_path / "float.onnx")
    given = Given(inputs=net.samples if inputs else {})
    same = audited_fast(net.save(tmp_path / "codes.onnx"), given, reference=reference)
    assert not [one for one in same.findings if one.id == "QUANT-SENSITIVE"]
    net.weights["w2_q"] = np.round(net.weights["w2_q"] / 32).astype(np.int8)
    net.weights["s2"] = net.weights["s2"] * 32
    rough = audited_fast(net.save(tmp_path / "rough.onnx"), given, reference=reference)
    (found,) = [one for one in rough.findings if one.id == "QUANT-SENSITIVE"]
    assert list(found.units) == ["dense2"]
    assert found.evidence["effects"]["dense2"] > KEEP > found.evidence["effects"]["dense1"]
    assert found.grade is (Grade.TESTED if inputs else Grade.SUSPECTED)
