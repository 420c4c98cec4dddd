"""Five hundred spoiled models: each is exported or refused, and nothing else happens (more in tests/fuzz)."""

import random
import sys
from pathlib import Path

import pytest
from onnxmutations import fields, mutate
from onnxseeds import own_seeds

from emergraph.exporters.onnxfile.check import check_onnx
from emergraph.exporters.onnxfile.reader import read_onnx

sys.path.insert(0, str(Path(__file__).parents[2] / "fuzz"))
import fuzz_onnx

SEEDS = own_seeds()


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_the_models_that_are_spoiled_are_sound(seed, tmp_path):
    for name, content in seed.beside.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "m.onnx").write_bytes(seed.content)
    read_onnx(tmp_path / "m.onnx")
    assert not [finding for finding in check_onnx(tmp_path / "m.onnx") if finding.severity == "error"]


def test_mutations_reach_every_depth_and_stay_decided_by_their_seed():
    content = SEEDS[1].content
    spoiled = [mutate(content, random.Random(case)) for case in range(300)]
    assert spoiled == [mutate(content, random.Random(case)) for case in range(300)]
    assert sum(one != content for one in spoiled) > 290
    assert sum(fields(one) is not None for one in spoiled) > 150  # most still look like protobuf


@pytest.mark.parametrize("block", range(5))
def test_spoiled_models_are_exported_or_refused(block, tmp_path):
    with fuzz_onnx.chosen_stages() as stages:
        outcomes = [
            fuzz_onnx.run_case(case, 0, SEEDS, stages, tmp_path, limit=20)
            for case in range(100 * block, 100 * block + 100)
        ]
    assert [outcome for outcome in outcomes if outcome.failed] == []
    for stage in ("read", "export"):
        assert len({outcome.results[stage] for outcome in outcomes}) > 1  # some are done, some refused
