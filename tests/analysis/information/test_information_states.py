"""Sequences, chains of blocks, hidden states from everywhere, and information emergence."""

from itertools import permutations

import numpy as np
import onnx
import polars as pl
import pytest
from decoders import VOCABULARY, WIDTH, decoder

from emergraph.analysis.information.emergence import information_emergence
from emergraph.analysis.information.model import (
    InformationOptions,
    measure_model,
    module_states,
    recorded_states,
)
from emergraph.analysis.information.onnxstates import (
    BlockChain,
    ChainLayer,
    StateOptions,
    find_chain,
    onnx_chain,
    onnx_states,
)
from emergraph.analysis.information.options import EstimatorName, EstimatorOptions, Micro, TextUnit
from emergraph.analysis.information.sequences import (
    Sequences,
    entity_sequences,
    read_sequences,
    text_ids,
    text_sequences,
)
from emergraph.analysis.information.states import BlockStates
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.export import export_onnx
from emergraph.graphstore.store import open_store

QUICK = EstimatorOptions(dimensions=2, repeats=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    proto, states = decoder()
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    onnx.save(proto, path)
    return path, states


def test_all_permutations_in_order():
    found = entity_sequences([5, 6, 7, 8], 0, shots=3)
    assert found.population == found.n == 24
    assert [tuple(row) for row in found.values[:, ::2]] == list(permutations([5, 6, 7, 8], 3))
    assert (found.values[:, 1::2] == 0).all()


@pytest.mark.parametrize(("n", "shots", "population"), [(25, 4, 303600), (16, 5, 524160), (15, 5, 360360)])
def test_the_published_data_sets_have_their_sizes(n, shots, population):
    found = entity_sequences(range(1, n + 1), 0, shots=shots, n=500, seed=2)
    assert found.population == population
    assert found.values.shape == (500, 2 * shots)
    assert len({tuple(row) for row in found.values}) == 500
    assert all(len(set(row[::2])) == shots for row in found.values)


def test_lists_that_do_not_exist_are_refused():
    for wrong in (
        lambda: entity_sequences([1, 1], 0, shots=1),
        lambda: entity_sequences([1, 2], 0, shots=3),
        lambda: entity_sequences([1, 2], 0, shots=2, n=3),
        lambda: entity_sequences(range(1, 40), 0, shots=9),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_texts_become_ids(tmp_path):
    assert text_ids("ab", TextUnit.BYTES).tolist() == [97, 98]
    assert text_ids("abbb", TextUnit.CHARACTERS).tolist() == [1, 0, 0, 0]
    assert text_ids("to be or to", TextUnit.WORDS).tolist() == [0, 1, 2, 0]
    path = tmp_path / "text.txt"
    path.write_text("hello world " * 9)
    found = text_sequences(path, length=5, n=20)
    assert found.values.shape == (20, 5)
    assert all(bytes(row.astype(np.uint8).tolist()).decode() in path.read_text() for row in found.values)
    with pytest.raises(InvalidInputError, match="at least the length"):
        text_sequences(path, length=500)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InvalidInputError, match="UTF-8"):
        text_sequences(path, length=2)


def test_files_of_sequences(tmp_path):
    ids = np.arange(12).reshape(4, 3)
    (tmp_path / "a.txt").write_text("\n".join(" ".join(map(str, row)) for row in ids))
    np.save(tmp_path / "a.npy", ids)
    np.savez(tmp_path / "a.npz", ids=ids)
    for name in ("a.txt", "a.npy", "a.npz"):
        assert read_sequences(tmp_path / name).values.tolist() == ids.tolist()
    assert read_sequences(tmp_path / "a.npy", n=2).n == 2
    (tmp_path / "b.txt").write_text("1 2\n3\n")
    (tmp_path / "c.txt").write_text("to be\nor not")
    (tmp_path / "d.npy").write_bytes((tmp_path / "a.npy").read_bytes().replace(b"3)", b"3 "))
    refused = {"b.txt": "same number of ids", "c.txt": "--text", "no.txt": "no such file", "d.npy": "header"}
    for name, words in refused.items():
        with pytest.raises(InvalidInputError, match=words):
            read_sequences(tmp_path / name)


def test_the_chain_is_found_with_and_without_attention(model, tmp_path):
    path, _ = model
    found = onnx_chain(path)
    assert [layer.name for layer in found.boundaries] == ["start", "block_0", "block_1"]
    assert (found.n_blocks, found.width) == (2, WIDTH)
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        export_onnx(path, store)
        stored = onnx_chain(path, store)
    assert [layer.name for layer in stored.boundaries] == ["start", "block_0", "block_1"]
    plain = tmp_path / "plain.onnx"
    onnx.save(decoder(attention=False, n_blocks=3)[0], plain)
    assert onnx_chain(plain).n_blocks == 3


def test_adding_what_was_not_computed_from_the_stream_is_no_block():
    def layer(name, kind, *sources):
        return ChainLayer(name, kind, 4, frozenset(sources))

    tokens, places, types = layer("t", "dense"), layer("p", "dense"), layer("s", "dense")
    sums = [layer("a", "junction", 0, 1), layer("b", "junction", 2, 3)]
    with pytest.raises(InvalidInputError, match="--blocks"):
        find_chain([tokens, places, types, *sums])
    block = [layer("mlp", "dense", 4), layer("end", "junction", 4, 5)]
    found = find_chain([tokens, places, types, *sums, *block])
    assert isinstance(found, BlockChain)
    assert [boundary.name for boundary in found.boundaries] == ["b", "end"]


def test_states_of_an_onnx_model_are_those_of_onnxruntime(model):
    import onnxruntime as ort

    path, names = model
    sequences = entity_sequences(range(1, 6), 0, shots=2)
    found = onnx_states(path, sequences, options=StateOptions(micro=Micro.POSITIONS))
    proto = onnx.load(path)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("dim_value")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"ids": sequences.values})
    for boundary in range(3):
        np.testing.assert_allclose(found.micro[Micro.POSITIONS][boundary], expected[boundary], atol=1e-5)
        np.testing.assert_allclose(found.last[boundary], expected[boundary][:, -1], atol=1e-5)
    alone = onnx_states(path, sequences)
    one = session.run(None, {"ids": np.array([[3]])})
    token = alone.inputs[sequences.values == 3][0]
    np.testing.assert_allclose(alone.micro[Micro.ALONE][2][token], one[2][0, 0], atol=1e-5)


def test_named_tensors_inputs_and_ids_that_do_not_exist(model):
    path, names = model
    sequences = entity_sequences(range(1, 6), 0, shots=2)
    found = onnx_states(path, sequences, options=StateOptions(tensors=names[1:]))
    assert found.blocks == (names[2],)
    with pytest.raises(UsageError, match="unknown tensor"):
        onnx_states(path, sequences, options=StateOptions(tensors=["nowhere", "neither"]))
    with pytest.raises(UsageError, match="unknown input"):
        onnx_states(path, sequences, options=StateOptions(input_name="tokens"))
    beyond = entity_sequences(range(1, VOCABULARY + 1), 0, shots=2)
    with pytest.raises(InvalidInputError, match="rows"):
        onnx_states(path, beyond)


def test_a_model_without_an_input_of_ids_says_so(tmp_path):
    image = onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, [1, 4])
    relu = onnx.helper.make_node("Relu", ["pixels"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])
    graph = onnx.helper.make_graph([relu], "g", [image], [result])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "m")
    with pytest.raises(UsageError, match=r"no input takes ids \(integers\).*; inputs: 'pixels'"):
        onnx_states(tmp_path / "m", entity_sequences(range(1, 6), 0, shots=2))


def test_states_of_a_module_are_those_of_its_submodules():
    torch = pytest.importorskip("torch")
    from torchnets import Gpt

    torch.manual_seed(0)
    net = Gpt()
    sequences = entity_sequences(range(1, 6), 0, shots=2)
    found = module_states(net, sequences, micro=Micro.FIRST, batch=7)
    assert found.blocks == ("blocks.0", "blocks.1")
    with torch.no_grad():
        ids = torch.as_tensor(sequences.values)
        x = net.wte(ids) + net.wpe(torch.arange(4))
        expected = [x, net.blocks[0](x), net.blocks[1](net.blocks[0](x))]
    for boundary in range(3):
        np.testing.assert_allclose(found.last[boundary], expected[boundary][:, -1].numpy(), atol=1e-6)
        np.testing.assert_allclose(
            found.micro[Micro.FIRST][boundary], expected[boundary][:, :1].numpy(), atol=1e-6
        )
    assert net.training
    with pytest.raises(UsageError, match=r"unknown submodule '.*'; available: "):
        module_states(net, sequences, blocks=["h.0"])
    with pytest.raises(InvalidInputError, match="does not run"):
        module_states(net, entity_sequences(range(1, 6), 0, shots=4, n=4))


def test_recorded_states(tmp_path):
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 6, (30, 4))
    states = {f"state_{i}": rng.standard_normal((30, 4, 5)).astype(np.float32) for i in range(3)}
    alone = {f"alone_{i}": rng.standard_normal((3, 5)).astype(np.float32) for i in range(3)}
    path = tmp_path / "states.npz"
    np.savez(path, sequences=ids, tokens=np.array([5, 3, 4]), **states, **alone)
    found = recorded_states(path)
    assert found.blocks == ("block_1", "block_2")
    np.testing.assert_array_equal(found.last[1], states["state_1"][:, -1])
    five = found.micro[Micro.ALONE][2][found.inputs[ids == 5][0]]
    np.testing.assert_array_equal(five, alone["alone_2"][0])
    assert recorded_states(path, micro=Micro.FIRST).micro[Micro.FIRST][0].shape == (30, 1, 5)
    np.savez(path, sequences=ids, **states)
    with pytest.raises(InvalidInputError, match="another micro level"):
        recorded_states(path)
    for tokens in (np.array(3), np.array([[5], [3], [4]])):
        np.savez(path, sequences=ids, tokens=tokens, **states, **alone)
        with pytest.raises(InvalidInputError, match="another micro level"):
            recorded_states(path)
    np.savez(path, sequences=ids, tokens=np.array([5, 3, 4]), **states, **alone | {"alone_1": np.array(1.0)})
    with pytest.raises(InvalidInputError, match="another micro level"):
        recorded_states(path)
    np.savez(path, sequences=ids[:5], **states)
    with pytest.raises(InvalidInputError, match="expected"):
        recorded_states(path)


def made_up(last, tokens, alone):
    return BlockStates(
        blocks=tuple(f"b{i}" for i in range(len(last) - 1)),
        last=tuple(last),
        inputs=tokens,
        micro={Micro.ALONE: tuple(alone)},
    )


def test_emergence_is_macro_less_micro():
    rng = np.random.default_rng(0)
    n, noise = 3000, np.sqrt(1 - 0.8**2)
    before = rng.standard_normal((n, 1))
    after = 0.8 * before + noise * rng.standard_normal((n, 1))
    tokens = rng.integers(0, 2, (n, 2))
    tokens[:, 1] = 0
    codes = np.array([[0.0], [1.0]])
    options = EstimatorOptions(repeats=40)
    result = information_emergence(made_up([before, after], tokens, [codes, 2 * codes]), options=options)
    (block,) = result.blocks
    # the token of two equally likely values has 1 bit, the constant one none: 1/2 bit on average
    assert block.micro_value == pytest.approx(0.5)
    assert block.flag == "macro" or block.flag.startswith("micro 1/2")
    assert result.ceiling == 1
    assert block.macro.ceiling == pytest.approx(np.log2(n)) or block.macro.ceiling <= 1
    row = result.frame().row(0, named=True)
    assert row["emergence"] == pytest.approx(row["macro"] - row["micro"])
    assert result.frame().height == 2


def test_shuffled_pairs_have_no_emergence():
    rng = np.random.default_rng(1)
    n = 1500
    states = rng.standard_normal((2, n, 2, 3))
    states[1, :, 1] = rng.permutation(states[0, :, 1])
    shuffled = BlockStates(
        blocks=("b",),
        last=tuple(states[:, :, 1]),
        inputs=np.arange(2 * n).reshape(n, 2),
        micro={Micro.FIRST: tuple(states[:, :, :1])},
    )
    options = EstimatorOptions(repeats=60, dimensions=3)
    (block,) = information_emergence(shuffled, micro=Micro.FIRST, options=options).blocks
    low, high = block.interval
    assert low < 0 < high


def test_a_deterministic_block_is_at_its_flagged_ceiling(model):
    path, _ = model
    sequences = entity_sequences(range(1, 6), 0, shots=3)
    options = EstimatorOptions(estimator=EstimatorName.CODES, repeats=4)
    result = information_emergence(onnx_states(path, sequences), options=options)
    first, second = result.blocks
    # the last token is the separator: before the first block its state says nothing
    assert (first.macro.value, first.macro.ceiling, first.macro.diagnostics["constant"]) == (0, 0, True)
    # attention without positions forgets the order: 10 sets of 3 out of 5
    assert second.macro.ceiling == pytest.approx(np.log2(10), abs=1e-6)
    assert second.macro.value == pytest.approx(np.log2(10), abs=0.3)
    assert result.ceiling == pytest.approx(np.log2(60))
    assert any("no information" in note for note in result.notes)
    capped = result.frame().filter(pl.col("at_ceiling").str.contains("macro") & (pl.col("macro_ceiling") > 0))
    assert capped["macro_low"].null_count() == capped.height > 0, "no interval is NULL, not NaN"


def test_a_micro_level_that_was_not_kept_is_refused(model):
    states = onnx_states(model[0], entity_sequences(range(1, 6), 0, shots=2))
    with pytest.raises(UsageError, match="unknown micro level 'positions'; available: alone"):
        information_emergence(states, micro=Micro.POSITIONS, options=QUICK)
    result = information_emergence(states, options=QUICK)
    assert set(result.to_dict()["blocks"][0]) >= {"emergence", "macro_estimate", "micro_estimates"}


def test_sequences_of_numbers_run_too(tmp_path):
    from nets import Net

    net = Net(seed=1)
    x = net.input(1, 3, 4, name="x")
    for block in range(2):
        x = net.op(
            "Add", x, net.dense(net.op("Tanh", net.dense(x, 5, fan_in=4)), 4, fan_in=5), name=f"b{block}"
        )
    net.output(x)
    onnx.save(net.model(), tmp_path / "mixer.onnx")
    values = np.random.default_rng(0).standard_normal((40, 3, 4)).astype(np.float32)
    found = onnx_states(tmp_path / "mixer.onnx", Sequences(values, None, "noise"))
    assert found.width == 4
    assert len(found.micro[Micro.ALONE][0]) == 120


def test_any_kind_of_model_is_measured(model, tmp_path):
    pytest.importorskip("torch")
    sequences = entity_sequences(range(1, 6), 0, shots=2)
    options = InformationOptions(estimator=QUICK)
    by_factory = measure_model("torchnets:Gpt", sequences, options=options)
    assert [block.block for block in by_factory.result.blocks] == ["blocks.0", "blocks.1"]
    assert (by_factory.source, by_factory.sha256) == ("torchnets:Gpt", None)
    seen = []
    by_file = measure_model(model[0], sequences, options=options, progress=lambda done, _: seen.append(done))
    assert by_file.result.width == WIDTH
    assert seen[-1] == 20
    np.savez(tmp_path / "weights.npz", w=np.ones((2, 2)))
    with pytest.raises(UsageError, match="leave other sequences out"):
        measure_model(tmp_path / "weights.npz", sequences)
    with pytest.raises(UsageError, match="no sequences"):
        measure_model(model[0], None)


def test_states_that_change_with_the_batch_are_run_alone(tmp_path):
    from nets import Net

    net = Net(seed=1)
    x = net.input(2, 3, 4, name="x")
    # the mean over the batch takes part, as the scale of dynamic quantization does
    mean = net.op("ReduceMean", x, axes=[0], keepdims=1)
    states = [net.op("Add", x, mean, name="mixed")]
    states.append(net.op("Add", states[0], net.op("Tanh", states[0]), name="end"))
    net.output(states[1])
    onnx.save(net.model(), tmp_path / "mixing.onnx")
    values = np.random.default_rng(0).standard_normal((30, 3, 4)).astype(np.float32)
    options = StateOptions(tensors=states, micro=Micro.POSITIONS)
    found = onnx_states(tmp_path / "mixing.onnx", Sequences(values, None, "noise"), options=options)
    assert "one sequence at a time" in found.notes[0]
    np.testing.assert_allclose(found.micro[Micro.POSITIONS][0], 2 * values, atol=1e-6)
