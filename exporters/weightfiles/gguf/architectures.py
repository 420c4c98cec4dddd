"""What a GGUF file says about its network, in the words of `transformers`: class, settings, tensors."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from emergraph.choices import unknown
from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.gguf.elements import require_gguf
from emergraph.exporters.weightfiles.gguf.header import Several
from emergraph.exporters.weightfiles.recipes import Made, Recipe
from emergraph.exporters.weightfiles.weightfile import WeightFile

ARCHITECTURE = "general.architecture"
_HEAD = "output.weight"
_TABLE = "token_embd.weight"

_SIZES = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}
"""Settings of most decoders by their keys in the metadata, which stand behind the architecture's name."""
_ROTARY = {**_SIZES, "rope.freq_base": "rope_theta", "attention.layer_norm_rms_epsilon": "rms_norm_eps"}
_LLAMA = {**_ROTARY, "rope.dimension_count": "head_dim"}
_KEYED = {**_ROTARY, "attention.key_length": "head_dim"}
_EXPERTS = {"expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size"}
_QWEN_EXPERTS = {**_EXPERTS, "expert_count": "num_experts"}
_SHARED = {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"}
_WINDOW = {"attention.sliding_window": "sliding_window"}
_LAYER_NORM = {**_SIZES, "attention.layer_norm_epsilon": "layer_norm_eps"}

_TOKENS = {
    "tokenizer.ggml.bos_token_id": "bos_token_id",
    "tokenizer.ggml.eos_token_id": "eos_token_id",
    "tokenizer.ggml.unknown_token_id": "unk_token_id",
    "tokenizer.ggml.padding_token_id": "pad_token_id",
}
"""Settings of all architectures: tokens with a part to play."""

Change = Mapping[str, tuple[str, str | int | None]]
"""Operation of `recipes`, and the setting that is its argument, by a pattern of names in the file."""
_PERMUTED: Change = {
    r"blk\.\d+\.attn_q\.(weight|bias)": ("rotary", "num_attention_heads"),
    r"blk\.\d+\.attn_k\.(weight|bias)": ("rotary", "num_key_value_heads"),
}
_NORMS: Change = {r".*norm\.weight": ("minus_one", None)}
_GPT2: Change = {r"blk\.\d+\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight": ("transpose", None)}
_BLOOM: Change = {r"blk\.\d+\.attn_qkv\.(weight|bias)": ("head_blocks", "n_head")}
_SHARED_GATE: Change = {r"blk\.\d+\.ffn_gate_inp_shexp\.weight": ("expand", 0)}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network that transformers has, too."""

    kind: str
    """`model_type` there."""
    model: str
    """The class."""
    keys: Mapping[str, str]
    """Names of settings there by keys of the metadata."""
    changes: Change = field(default_factory=dict)
    """What the file did to values when it was written, taken back."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings that no key says."""
    always_tied: bool = False
    """The head is the table of the embedding, also where the file holds it twice."""
    table: str | None = None
    """Architecture whose names of tensors it has; its own by default."""


_MIXTRAL = Architecture(
    kind="mixtral",
    model="MixtralForCausalLM",
    keys={**_LLAMA, "expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
    changes=_PERMUTED,
)
_MISTRAL = Architecture(kind="mistral", model="MistralForCausalLM", keys=_LLAMA, changes=_PERMUTED)

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(kind="llama", model="LlamaForCausalLM", keys=_LLAMA, changes=_PERMUTED),
    "qwen2": Architecture(kind="qwen2", model="Qwen2ForCausalLM", keys=_ROTARY),
    "qwen3": Architecture(kind="qwen3", model="Qwen3ForCausalLM", keys=_KEYED),
    "qwen2moe": Architecture(
        kind="qwen2_moe",
        model="Qwen2MoeForCausalLM",
        keys={**_ROTARY, **_QWEN_EXPERTS, **_SHARED},
        changes=_SHARED_GATE,
    ),
    "qwen3moe": Architecture(
        kind="qwen3_moe",
        model="Qwen3MoeForCausalLM",
        keys={**_KEYED, **_QWEN_EXPERTS},
        settings={"norm_topk_prob": True},
    ),
    "gemma2": Architecture(
        kind="gemma2", model="Gemma2ForCausalLM", keys={**_KEYED, **_WINDOW}, changes=_NORMS
    ),
    "gemma3": Architecture(
        kind="gemma3_text", model="Gemma3ForCausalLM", keys={**_KEYED, **_WINDOW}, changes=_NORMS
    ),
    "phi3": Architecture(kind="phi3", model="Phi3ForCausalLM", keys=_ROTARY),
    "gpt2": Architecture(
        kind="gpt2",
        model="GPT2LMHeadModel",
        keys={
            "block_count": "n_layer",
            "context_length": "n_positions",
            "embedding_length": "n_embd",
            "feed_forward_length": "n_inner",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        changes=_GPT2,
    ),
    "bloom": Architecture(
        kind="bloom",
        model="BloomForCausalLM",
        keys={
            "block_count": "n_layer",
            "embedding_length": "hidden_size",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        changes=_BLOOM,
        always_tied=True,
    ),
    "stablelm": Architecture(kind="stablelm", model="StableLmForCausalLM", keys=_LAYER_NORM),
    "starcoder2": Architecture(
        kind="starcoder2",
        model="Starcoder2ForCausalLM",
        keys={**_SIZES, "attention.layer_norm_epsilon": "norm_epsilon", "rope.freq_base": "rope_theta"},
    ),
    "nemotron": Architecture(
        kind="nemotron",
        model="NemotronForCausalLM",
        keys={**_SIZES, "rope.freq_base": "rope_theta", "attention.layer_norm_rms_epsilon": "norm_eps"},
        changes=_NORMS,
    ),
}
"""Architectures by the name that a GGUF file has for them."""

_EXPERT_PAIR = re.compile(r"(?P<layer>.*layers\.(?P<number>\d+)\.mlp\.experts)\.gate_up_proj")


@dataclass(frozen=True)
class Described:
    """A network as transformers would have it in a config.json."""

    settings: Mapping[str, Any]
    _weights: WeightFile = field(repr=False)
    _table: str = ""
    _changes: Change = field(default_factory=dict)

    def recipes(self, names: Collection[str]) -> dict[str, Made]:
        """How tensors of the module are made of those of the file.

        Args:
            names: Of the module's parameters.

        Returns:
            By name; those that the file does not have are left out.
        """
        gguf = require_gguf("wiring a GGUF file")
        arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self._table)
        table = gguf.get_tensor_name_map(arch, _count(self._weights, self._table, "block_count"))
        found: dict[str, Made] = {}
        for name in names:
            pair = _EXPERT_PAIR.fullmatch(name)
            if pair is not None:
                stems = [f"blk.{pair['number']}.ffn_{part}_exps.weight" for part in ("gate", "up")]
                if all(stem in self._weights.tensors for stem in stems):
                    found[name] = Recipe("join", tuple(stems), (1,))
                continue
            stored = self._stored_name(name, table)
            if stored is not None:
                found[name] = self._made(stored)
        return found

    def _stored_name(self, name: str, table: Any) -> str | None:  # noqa: ANN401 - of the gguf package
        stem, _, suffix = name.rpartition(".")
        if suffix not in ("weight", "bias"):
            stem, suffix = name, "weight"
        for known in (stem, stem.partition(".")[2]):
            there = table.get_name(known) if known else None
            if there is not None and f"{there}.{suffix}" in self._weights.tensors:
                return f"{there}.{suffix}"
        return None

    def _made(self, stored: str) -> Made:
        for pattern, (op, given) in self._changes.items():
            if re.fullmatch(pattern, stored):
                argument = self.settings.get(given) if isinstance(given, str) else given
                return Recipe(op, (stored,), () if argument is None else (argument,))
        return stored


def described(weights: WeightFile) -> Described:
    """What a GGUF file says about its network.

    Raises:
        InvalidInputError: It names none, or one that is not known here.
    """
    source = printable(weights.source)
    name = weights.metadata.get(ARCHITECTURE)
    if not isinstance(name, str):
        raise InvalidInputError(f"{source}: {ARCHITECTURE} names no architecture; use --wire none")
    known = _known(name, weights)
    if known is None:
        said = unknown("architecture of a GGUF file", name, ARCHITECTURES)
        raise InvalidInputError(f"{source}: {said}; use --wire none")
    settings = {**known.settings, **_settings(name, known, weights)}
    if "num_attention_heads" in settings:
        settings.setdefault("num_key_value_heads", settings["num_attention_heads"])
    tied = known.always_tied or _HEAD not in weights.tensors
    settings.update(model_type=known.kind, architectures=[known.model], tie_word_embeddings=tied)
    table = weights.tensors.get(_TABLE)
    if table is not None:
        settings["vocab_size"] = (table.blocks.shape if table.blocks is not None else table.shape)[0]
    return Described(settings, weights, name, known.changes)


def _known(name: str, weights: WeightFile) -> Architecture | None:
    if name == "llama" and weights.metadata.get("llama.expert_count"):
        return _MIXTRAL
    if name == "llama" and "mistral" in str(weights.metadata.get("general.name", "")).lower():
        return _MISTRAL
    if name == "stablelm":
        return _stablelm(weights)
    return ARCHITECTURES.get(name)


def _stablelm(weights: WeightFile) -> Architecture:
    """Biases and the second norm are there or not, and only the tensors say so."""
    known = ARCHITECTURES["stablelm"]
    biased = any(name.endswith("attn_q.bias") for name in weights.tensors)
    second = any("ffn_norm" in name for name in weights.tensors)
    return Architecture(
        kind=known.kind,
        model=known.model,
        keys=known.keys,
        settings={"use_qkv_bias": biased, "use_parallel_residual": not second},
    )


def _settings(name: str, known: Architecture, weights: WeightFile) -> dict[str, Any]:
    found: dict[str, Any] = {}
    _count(weights, name, "block_count")
    keys = {f"{name}.{key}": setting for key, setting in known.keys.items()} | _TOKENS
    for key, setting in keys.items():
        value = weights.metadata.get(key)
        if value is None:
            continue
        if isinstance(value, Several):
            value = _one(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            shown = printable(str(value), 40)
            raise InvalidInputError(
                f"{printable(weights.source)}: {key} is {shown}; expected one number; use --wire none"
            )
        found[setting] = value
    return found


def _one(several: Several) -> object:
    """The number that all layers have."""
    values = set(several.all() or ())
    return next(iter(values)) if len(values) == 1 else f"{several.count} values that differ"


def _count(weights: WeightFile, name: str, key: str) -> int:
    """A number of layers: each has tensors of its own."""
    found = weights.metadata.get(f"{name}.{key}")
    if type(found) is not int or not 0 < found <= len(weights.tensors):
        shown = printable(str(found), 40)
        raise InvalidInputError(
            f"{printable(weights.source)}: {name}.{key} is {shown}; expected a whole number from 1 to "
            f"{len(weights.tensors)}, the tensors of the file; use --wire none"
        )
    return found
