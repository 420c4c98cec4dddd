"""Model folders whose config.json wants something from elsewhere, and a script that opens them all.

`python hostilefolders.py DIR [--unchecked]` prints a JSON object: the outcome of each folder by name. It is
the process that `runtime.offline` starts, but for many folders; `--unchecked` leaves the first wall out, the
check of the configuration.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

SMALL = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
}
BERT = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30, **SMALL}
VIT = {"model_type": "vit", "architectures": ["ViTModel"], "image_size": 8, "patch_size": 4, **SMALL}
CLIP = {
    "model_type": "clip",
    "architectures": ["CLIPModel"],
    "text_config": {**SMALL, "vocab_size": 30, "projection_dim": 4},
    "vision_config": {**SMALL, "image_size": 8, "patch_size": 4},
    "projection_dim": 4,
}
REPOSITORY = "some-owner/some-model"


def _backbones():
    kinds = {
        "detr": "DetrForObjectDetection",
        "dpt": "DPTForDepthEstimation",
        "upernet": "UperNetForSemanticSegmentation",
        "mask2former": "Mask2FormerForUniversalSegmentation",
        "maskformer": "MaskFormerForInstanceSegmentation",
        "oneformer": "OneFormerForUniversalSegmentation",
        "conditional_detr": "ConditionalDetrForObjectDetection",
        "deformable_detr": "DeformableDetrForObjectDetection",
        "table-transformer": "TableTransformerForObjectDetection",
        "depth_anything": "DepthAnythingForDepthEstimation",
        "vitmatte": "VitMatteForImageMatting",
        "zoedepth": "ZoeDepthForDepthEstimation",
        "rt_detr": "RTDetrForObjectDetection",
        "grounding-dino": "GroundingDinoForObjectDetection",
        "tvp": "TvpForVideoGrounding",
        "omdet-turbo": "OmDetTurboForObjectDetection",
    }
    for kind, architecture in kinds.items():
        base = {"model_type": kind, "architectures": [architecture], "use_timm_backbone": False}
        yield f"backbone {kind}", {**base, "backbone": REPOSITORY}, 4
    detr = {"model_type": "detr", "architectures": ["DetrForObjectDetection"]}
    yield "backbone by timm's hub", {**detr, "backbone": f"hf-hub:{REPOSITORY}", "use_timm_backbone": True}, 4
    yield "backbone in a folder", {**detr, "backbone": "local-dir:/tmp/x", "use_timm_backbone": True}, 4
    yield "backbone of one word", {**detr, "backbone": "gpt2", "use_timm_backbone": False}, 2
    yield "backbone of timm", {**detr, "backbone": "resnet50", "use_pretrained_backbone": True}, 2


def _nested():
    for part in ("vision_config", "text_config"):
        for key, value in {
            "attn_implementation": REPOSITORY,
            "_attn_implementation": f"{REPOSITORY}@main:kernel",
            "_attn_implementation_internal": REPOSITORY,
            "auto_map": {"AutoModel": "evil.Model"},
            "trust_remote_code": True,
            "tokenizer": REPOSITORY,
            "backbone": REPOSITORY,
        }.items():
            yield f"{key} in {part}", {**CLIP, part: {**CLIP[part], key: value}}, 4


CASES = {
    name: (settings, code)
    for name, settings, code in (
        *_backbones(),
        *_nested(),
        ("kernel", {**BERT, "attn_implementation": REPOSITORY}, 4),
        ("kernel, private", {**BERT, "_attn_implementation": REPOSITORY}, 4),
        ("kernel, internal", {**BERT, "_attn_implementation_internal": REPOSITORY}, 4),
        ("kernel, paged", {**BERT, "attn_implementation": f"paged|{REPOSITORY}"}, 4),
        ("kernel by part", {**CLIP, "attn_implementation": {"text_config": REPOSITORY}}, 4),
        ("kernel for experts", {**BERT, "experts_implementation": REPOSITORY}, 4),
        ("code", {**BERT, "auto_map": {"AutoModel": f"{REPOSITORY}--evil.Model"}}, 4),
        ("code without a class", {**BERT, "trust_remote_code": True}, 4),
        ("pipelines", {**BERT, "custom_pipelines": {"x": {"impl": "evil.P"}}}, 4),
        ("address", {**BERT, "weights": "https://example.invalid/w.bin"}, 4),
        ("path", {**BERT, "weights": "../../etc/passwd"}, 4),
        ("address in a list", {**BERT, "files": [["https://example.invalid/w.bin"]]}, 4),
        ("per layer", {**BERT, "per_layer_config": {"0": {"attn_implementation": REPOSITORY}}}, 4),
        ("pickle of timm", {**BERT, "model_args": {"checkpoint_path": "weights.pth"}}, 4),
        ("quantized", {**BERT, "quantization_config": {"quant_method": "awq"}}, 0),
        (
            "quantized in a part",
            {**CLIP, "text_config": {**CLIP["text_config"], "quantization_config": {"quant_method": "awq"}}},
            0,
        ),
        ("deep", {**BERT, "a": json.loads('{"a":' * 40 + "1" + "}" * 40)}, 3),
        (
            "retrieval",
            {
                "model_type": "rag",
                "architectures": ["RagModel"],
                "dataset": REPOSITORY,
                "question_encoder": BERT,
                "generator": BERT,
            },
            4,
        ),
        ("notes", {**BERT, "_name_or_path": REPOSITORY, "base_model_name_or_path": REPOSITORY}, 0),
        ("notes in parts", {**CLIP, "text_config": {**CLIP["text_config"], "_name_or_path": REPOSITORY}}, 0),
        ("flash attention", {**BERT, "attn_implementation": "flash_attention_2"}, 0),
        ("labels", {**VIT, "id2label": {"0": "a/b", "1": "http://c"}, "_attn_implementation": "sdpa"}, 0),
        (
            "backbone inline",
            {
                "model_type": "upernet",
                "architectures": ["UperNetForSemanticSegmentation"],
                "backbone": REPOSITORY,
                "hidden_size": 8,
                "pool_scales": [1],
                "auxiliary_channels": 4,
                "backbone_config": {
                    "model_type": "convnext",
                    "hidden_sizes": [4, 4, 4, 4],
                    "depths": [1, 1, 1, 1],
                    "out_features": ["stage1", "stage2", "stage3", "stage4"],
                },
            },
            0,
        ),
    )
}
"""Settings and exit code by name: 4 refused, 3 not for this tool, 2 a library is missing, 0 built."""


def write_folders(place):
    """Make all folders below a place; their names are numbers, and `name.json` holds the case."""
    from safetensors.numpy import save_file

    for number, (name, (settings, _)) in enumerate(CASES.items()):
        folder = place / f"{number:03}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(settings))
        (folder / "name.json").write_text(json.dumps(name))
        save_file({"w": np.ones((2, 2), np.float32)}, folder / "model.safetensors")
    return place


def outcome(folder):
    """The exit code of the error that a folder ends in, and its message."""
    from emergraph.errors import EmergraphError
    from emergraph.exporters.pytorch import huggingface
    from emergraph.exporters.weightfiles.reader import read_weights

    made = []

    def weights_of(model, _weights, *, unused):
        made.append(type(model).__name__)
        return ()

    try:
        # what the weights are does not matter here; the model is built before they are looked at
        with mock.patch.object(huggingface, "load_weights", weights_of):
            huggingface.load_folder(folder, read_weights(folder))
    except EmergraphError as error:
        # no example inputs for its kind, but the model was built
        return (0 if made else int(error.exit_code)), str(error)
    return 0, ""


def main():
    """Open all folders with both walls, and say what was asked for beyond them."""
    from emergraph.quiet import offline_environment

    os.environ.update(offline_environment(tempfile.mkdtemp()))
    from emergraph.exporters.pytorch import folderconfig, huggingface
    from emergraph.exporters.runtime.offlineworker import close_network

    asked = close_network()
    if "--unchecked" in sys.argv:
        huggingface.read_config = lambda folder, root=None: json.loads(
            (folder / folderconfig.CONFIG).read_text()
        )
    found = {}
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        settings = json.loads((folder / "name.json").read_text())
        found[settings] = outcome(folder)
    json.dump({"outcomes": found, "asked": asked}, sys.stdout)


if __name__ == "__main__":
    main()
