"""Model folders that name repositories, addresses, kernels and code reach nobody, under strace."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostilefolders
import pytest
from hostilefolders import BERT, CASES, REPOSITORY, VIT, write_folders
from straced import watch

pytestmark = [
    pytest.mark.strace,
    pytest.mark.skipif(
        shutil.which("strace") is None, reason="no strace: apt-get install strace (Linux only)"
    ),
]

SCRIPT = Path(hostilefolders.__file__)
BARE = f"import transformers; transformers.DPTConfig(backbone={REPOSITORY!r})"
SAVE = """
import sys, transformers
config = transformers.CONFIG_MAPPING["bert"].from_dict({bert!r})
transformers.BertModel(config).save_pretrained(sys.argv[1])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders: where the commands work, a home, a temporary folder, strace's notes."""
    pytest.importorskip("transformers")
    folders = {name: tmp_path_factory.mktemp(name) for name in ("folder", "home", "temporary", "logs")}
    (folders["folder"] / "all").mkdir()
    write_folders(folders["folder"] / "all")
    for name, settings in {
        "kernel": {**VIT, "attn_implementation": REPOSITORY},
        "code": {**BERT, "auto_map": {"AutoModel": "evil.Model"}},
    }.items():
        (folders["folder"] / name).mkdir()
        (folders["folder"] / name / "config.json").write_text(json.dumps(settings))
        shutil.copy(folders["folder"] / "all" / "000" / "model.safetensors", folders["folder"] / name)
    return folders


@pytest.fixture(scope="module")
def ran(place):
    """What each run did, by its name; two at a time."""
    python, tool = [sys.executable, "-W", "ignore"], [sys.executable, "-m", "emergraph"]

    def whole(name):
        words = {
            "export": "export saved a.duckdb",
            "information": "information saved --entities 5 --first-id 1 --shots 2 --repeats 2",
            "kernel": "export kernel b.duckdb",
            "code": "information code --entities 5 --first-id 1",
        }[name]
        return watch([*tool, *words.split()], **place)

    def commands():
        bert = {**BERT, "max_position_embeddings": 8}
        saved = watch([*python, "-c", SAVE.format(bert=bert), "saved"], **place)
        assert saved.code == 0, saved.err
        config = place["folder"] / "saved" / "config.json"
        noted = {**json.loads(config.read_text()), "_name_or_path": REPOSITORY, "attn_implementation": "sdpa"}
        config.write_text(json.dumps(noted))
        return {name: whole(name) for name in ("export", "information", "kernel", "code")}

    def scripts():
        return {
            "checked": watch([*python, SCRIPT, "all"], **place),
            "unchecked": watch([*python, SCRIPT, "all", "--unchecked"], **place),
        }

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(commands), pool.submit(scripts)
        return first.result() | second.result()


def test_a_bare_library_asks_the_network(place, tmp_path):
    seen = watch([sys.executable, "-W", "ignore", "-c", BARE], **{**place, "home": tmp_path})
    assert seen.network != ()


def test_every_folder_ends_as_it_should(ran):
    seen = ran["checked"]
    assert seen.code == 0, seen.err
    answer = json.loads(seen.out)
    assert {name: code for name, (code, _) in answer["outcomes"].items()} == {
        name: code for name, (_, code) in CASES.items()
    }
    assert answer["asked"] == []
    for _, line in answer["outcomes"].values():
        assert "\n" not in line


def test_without_the_check_of_settings_the_second_wall_holds(ran):
    seen = ran["unchecked"]
    assert seen.code == 0, seen.err
    outcomes = json.loads(seen.out)["outcomes"]
    assert len(outcomes) == len(CASES)
    assert sum(code == 0 for code, _ in outcomes.values()) < len(CASES)


@pytest.mark.parametrize("name", ["checked", "unchecked", "export", "information", "kernel", "code"])
def test_nobody_is_called_and_nothing_is_written_elsewhere(ran, place, name):
    seen = ran[name]
    assert seen.code == {"kernel": 4, "code": 4}.get(name, 0), seen.err
    assert seen.network == ()
    assert seen.outside(place["folder"], place["temporary"]) == []


def test_nothing_stays_in_the_temporary_folder(place, ran):
    assert ran
    assert not [path for path in place["temporary"].iterdir() if path.name.startswith("emergraph-")]
