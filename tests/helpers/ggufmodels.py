"""Tiny models of transformers, and the GGUF files that llama.cpp's converter would write of them."""

import re

import gguf
import numpy as np
import torch
import transformers

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 48,
    "max_position_embeddings": 64,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_EXPERTS = {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_EDGE = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

FAMILIES = {
    "llama": (transformers.LlamaConfig, _GROUPED),
    "qwen2": (transformers.Qwen2Config, _GROUPED),
    "qwen3": (transformers.Qwen3Config, {**_GROUPED, "head_dim": 16}),
    "qwen2moe": (transformers.Qwen2MoeConfig, {**_EXPERTS, "shared_expert_intermediate_size": 64}),
    "qwen3moe": (transformers.Qwen3MoeConfig, {**_EXPERTS, "head_dim": 16, "norm_topk_prob": True}),
    "mixtral": (transformers.MixtralConfig, {**_GROUPED, "num_local_experts": 4}),
    "gemma2": (transformers.Gemma2Config, {**_GROUPED, "head_dim": 16, "sliding_window": 32}),
    "gemma3": (transformers.Gemma3TextConfig, {**_GROUPED, "head_dim": 16, "sliding_window": 32}),
    "phi3": (transformers.Phi3Config, {**_GROUPED, **_EDGE}),
    "gpt2": (
        transformers.GPT2Config,
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_inner": 96,
            "vocab_size": 48,
            "n_positions": 64,
            **_EDGE,
        },
    ),
    "bloom": (transformers.BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 48}),
    "stablelm": (transformers.StableLmConfig, {**_GROUPED, "use_qkv_bias": True}),
    "starcoder2": (transformers.Starcoder2Config, _GROUPED),
    "nemotron": (transformers.NemotronConfig, _GROUPED),
}
"""Configurations by GGUF's name of the architecture; "mixtral" is llama with experts."""


def tiny(family, **more):
    """A model with random weights, norms and biases included."""
    config_class, sizes = FAMILIES[family]
    torch.manual_seed(0)
    config = config_class(**{**sizes, **more})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.5)
    return model


def write_gguf(path, model, family, *, quantized=None):
    """Write a model as llama.cpp's converter would; large matrices packed as a type, if one is given."""
    arch = "llama" if family == "mixtral" else family
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    _metadata(writer, config)
    tensors = _tensors(model, arch)
    for name, array in tensors.items():
        if quantized is not None and array.ndim > 1 and array.shape[-1] % 32 == 0:
            writer.add_tensor(name, gguf.quantize(array, quantized), raw_dtype=quantized)
        else:
            writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_KEYS = (
    ("max_position_embeddings", "add_context_length"),
    ("num_hidden_layers", "add_block_count"),
    ("hidden_size", "add_embedding_length"),
    ("num_attention_heads", "add_head_count"),
    ("num_key_value_heads", "add_head_count_kv"),
    ("intermediate_size", "add_feed_forward_length"),
    ("n_inner", "add_feed_forward_length"),
    ("rms_norm_eps", "add_layer_norm_rms_eps"),
    ("norm_eps", "add_layer_norm_rms_eps"),
    ("layer_norm_eps", "add_layer_norm_eps"),
    ("norm_epsilon", "add_layer_norm_eps"),
    ("layer_norm_epsilon", "add_layer_norm_eps"),
    ("num_experts", "add_expert_count"),
    ("num_local_experts", "add_expert_count"),
    ("num_experts_per_tok", "add_expert_used_count"),
    ("moe_intermediate_size", "add_expert_feed_forward_length"),
    ("shared_expert_intermediate_size", "add_expert_shared_feed_forward_length"),
    ("bos_token_id", "add_bos_token_id"),
    ("eos_token_id", "add_eos_token_id"),
    ("pad_token_id", "add_pad_token_id"),
)
"""Settings, and what writes them."""
_HEADS = (("head_dim", "add_key_length"), ("head_dim", "add_value_length"))
_MORE = {
    "qwen3": _HEADS,
    "qwen3_moe": _HEADS,
    "gemma2": (*_HEADS, ("sliding_window", "add_sliding_window")),
    "gemma3_text": (*_HEADS, ("sliding_window", "add_sliding_window")),
}
"""Settings of some kinds of models."""


def _metadata(writer, config):
    written = set()
    for name, method in (*_KEYS, *_MORE.get(config.model_type, ())):
        value = getattr(config, name, None)
        if value is not None and method not in written:
            written.add(method)
            getattr(writer, method)(value)
    writer.add_token_list([f"t{n}" for n in range(config.vocab_size)])
    rotary = getattr(config, "rope_parameters", None)
    if rotary:
        writer.add_rope_freq_base(rotary.get("full_attention", rotary)["rope_theta"])
    if config.model_type in ("llama", "mixtral"):
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)


def _tensors(model, arch):
    """Tensors under llama.cpp's names, with what its converter does to values."""
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    tied = model.config.tie_word_embeddings
    found = {}
    for name, value in model.state_dict().items():
        array = value.float().numpy()
        if name == "lm_head.weight" and tied:
            continue
        pair = re.fullmatch(r".*layers\.(\d+)\.mlp\.experts\.gate_up_proj", name)
        if pair:
            half = array.shape[1] // 2
            found[f"blk.{pair[1]}.ffn_gate_exps.weight"] = array[:, :half]
            found[f"blk.{pair[1]}.ffn_up_exps.weight"] = array[:, half:]
            continue
        stem, _, suffix = name.rpartition(".")
        if suffix not in ("weight", "bias"):
            stem, suffix = name, "weight"
        there = names.get_name(stem) or names.get_name(stem.partition(".")[2])
        assert there is not None, name
        found[f"{there}.{suffix}"] = _changed(there, suffix, array, model.config)
    return found


_TURNED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


def _changed(name, suffix, array, config):
    kind = config.model_type
    if kind in ("llama", "mixtral") and name.endswith(("attn_q", "attn_k")):
        heads = config.num_attention_heads if name.endswith("q") else config.num_key_value_heads
        halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        return halves.swapaxes(1, 2).reshape(array.shape)
    if kind.startswith(("gemma", "nemotron")) and name.endswith("norm") and suffix == "weight":
        return array + 1
    if (
        kind == "gpt2"
        and suffix == "weight"
        and name.endswith(("attn_qkv", "attn_output", "ffn_up", "ffn_down"))
    ):
        return array.T
    if kind == "bloom" and name.endswith("attn_qkv"):
        parts = array.reshape(config.n_head, 3, -1, *array.shape[1:])
        return np.concatenate([parts[:, n].reshape(-1, *array.shape[1:]) for n in range(3)])
    if name.endswith("ffn_gate_inp_shexp"):
        return array[0]
    return array
