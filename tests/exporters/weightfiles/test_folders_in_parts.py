"""Folders in which training left a checkpoint in parts are named with the command that joins them."""

import pytest

from emergraph.errors import InvalidInputError
from emergraph.exporters.sources import export_any
from emergraph.exporters.weightfiles.reader import read_weights

torch = pytest.importorskip("torch")


def refusal(path):
    with pytest.raises(InvalidInputError) as caught:
        export_any(path, None)
    return str(caught.value)


@pytest.mark.parametrize("where", ["", "step_5/"])
def test_distributed_checkpoints(where, tmp_path):
    folder = tmp_path / "run"
    (folder / where).mkdir(parents=True)
    for name in ("__0_0.distcp", "__1_0.distcp", ".metadata"):
        (folder / where / name).write_bytes(b"x")
    message = refusal(folder)
    place = f"run/{where}".rstrip("/")
    assert f"torch.distributed.checkpoint.format_utils dcp_to_torch {place} weights.pt" in message
    assert "--no-cpu" not in message


def test_the_command_for_distributed_checkpoints_works(tmp_path):
    """What the message says, run: the joined file has the weights."""
    from torch.distributed.checkpoint import format_utils

    torch.save({"fc.weight": torch.arange(6.0).reshape(2, 3)}, tmp_path / "whole.pt")
    format_utils.torch_save_to_dcp(tmp_path / "whole.pt", tmp_path / "run")
    assert "dcp_to_torch run weights.pt" in refusal(tmp_path / "run")
    format_utils.dcp_to_torch_save(tmp_path / "run", tmp_path / "weights.pt")
    assert read_weights(tmp_path / "weights.pt").tensors["fc.weight"].shape == (2, 3)


@pytest.mark.parametrize(
    "names",
    [
        ["zero_pp_rank_0_mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"],
        ["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"],
        ["mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"],
    ],
)
@pytest.mark.parametrize("where", ["", "global_step5/"])
def test_deepspeed_in_parts(names, where, tmp_path):
    folder = tmp_path / "run"
    (folder / where).mkdir(parents=True)
    for name in names:
        (folder / where / name).write_bytes(b"x")
    (folder / "latest").write_text("global_step5")
    message = refusal(folder)
    assert (
        "a checkpoint of DeepSpeed in parts; join them: python -m deepspeed.utils.zero_to_fp32 run" in message
    )


def test_deepspeed_whose_weights_are_whole(tmp_path):
    """The file that the message names is read."""
    folder = tmp_path / "run" / "global_step5"
    folder.mkdir(parents=True)
    state = {"module": {"fc.weight": torch.ones(2, 3)}, "optimizer": None, "global_steps": 5}
    torch.save(state, folder / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": {}}, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    (tmp_path / "run" / "latest").write_text("global_step5")
    assert "global_step5/mp_rank_00_model_states.pt: name that file" in refusal(tmp_path / "run")
    weights = read_weights(folder / "mp_rank_00_model_states.pt")
    assert list(weights.tensors) == ["fc.weight"]


def test_other_folders_are_asked_for_a_file(tmp_path):
    (tmp_path / "mp_rank_00_model_states.pt.txt").write_bytes(b"x")
    (tmp_path / "latest").write_text("x")
    assert "name the weight file itself" in refusal(tmp_path)


def test_a_zip_with_a_model_in_it_says_to_unpack_it(tmp_path):
    import zipfile

    torch.save({"fc.weight": torch.ones(2, 3)}, tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "release.zip", "w") as archive:
        archive.write(tmp_path / "m.pt", "weights/m.pt")
        archive.writestr("README.md", "a model")
    assert "unpack it" in refusal(tmp_path / "release.zip")
