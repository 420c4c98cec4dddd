"""Architectures of transformers: (class, family, kind of input, what to set in the reduced configuration)."""

import functools
from typing import Any

import torch
from zoomodels.spec import Architecture, Built, ids, tensor
from zoomodels.torchvisionfix import import_torchvision

REDUCED: dict[str, Any] = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "embed_dim": 32, "dim": 32, "emb_dim": 32,
    "embedding_size": 16, "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "num_decoder_layers": 2, "encoder_layers": 2, "decoder_layers": 2, "num_attention_heads": 4, "n_head": 4,
    "n_heads": 4, "num_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "n_inner": 48, "ffn_dim": 48,
    "hidden_dim": 48, "d_ff": 48, "d_kv": 8, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 64,
    "max_position_embeddings": 48, "n_positions": 48, "n_ctx": 48, "image_size": 32, "patch_size": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "use_cache": False,
    "projection_dim": 24, "type_vocab_size": 2, "dropout": 0.0, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24, "rotary_dim": 4, "state_size": 4, "time_step_rank": 4,
    "num_mel_bins": 16,
}  # fmt: skip
"""What a configuration that has the key is given."""

TEXT = "text encoders"
DECODER = "text decoders"
SEQ2SEQ = "encoder-decoders"
MOE = "mixture of experts"
VISION = "vision transformers"
CNN = "convolutional"
AUDIO = "audio"
MIXED = "several modalities"
RECURRENT = "recurrent and state-space"
DETECT = "detectors"
SEGMENT = "segmentation"
SERIES = "time series"

BACKBONE = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [16, 24, 32, 40],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage4"],
}
MODELS: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    ("BertModel", "BERT", TEXT, "text", {}),
    ("RobertaModel", "RoBERTa", TEXT, "text", {}),
    ("AlbertModel", "ALBERT", TEXT, "text", {}),
    ("DistilBertModel", "DistilBERT", TEXT, "text", {}),
    ("ElectraModel", "ELECTRA", TEXT, "text", {}),
    ("MPNetModel", "MPNet", TEXT, "text", {}),
    ("DebertaModel", "DeBERTa", TEXT, "text", {}),
    ("DebertaV2Model", "DeBERTa-v2", TEXT, "text", {}),
    ("FNetModel", "FNet", TEXT, "text", {}),
    ("ConvBertModel", "ConvBERT", TEXT, "text", {}),
    ("SqueezeBertModel", "SqueezeBERT", TEXT, "text", {"embedding_size": 32}),
    ("MobileBertModel", "MobileBERT", TEXT, "text", {"true_hidden_size": 32, "intra_bottleneck_size": 32}),
    ("RoFormerModel", "RoFormer", TEXT, "text", {}),
    ("NystromformerModel", "Nystromformer", TEXT, "text", {"num_landmarks": 6, "segment_means_seq_len": 6}),
    ("ModernBertModel", "ModernBERT", TEXT, "text", {}),
    ("EuroBertModel", "EuroBERT", TEXT, "text", {}),
    ("EsmModel", "ESM", TEXT, "text", {"position_embedding_type": "rotary"}),
    ("CanineModel", "CANINE", TEXT, "text", {}),
    ("XLMRobertaModel", "RoBERTa", TEXT, "text", {}),
    ("XLNetModel", "XLNet", TEXT, "text", {"d_head": 8, "d_inner": 48}),
    ("FunnelModel", "Funnel", TEXT, "text", {"block_sizes": [1, 1], "d_head": 8, "d_inner": 48}),
    ("RemBertModel", "RemBERT", TEXT, "text", {"input_embedding_size": 16}),
    ("MegatronBertModel", "Megatron-BERT", TEXT, "text", {}),
    ("IBertModel", "I-BERT", TEXT, "text", {}),
    ("NomicBertModel", "NomicBERT", TEXT, "text", {}),
    ("BigBirdModel", "BigBird", TEXT, "text", {"attention_type": "original_full"}),
    ("LayoutLMModel", "LayoutLM", TEXT, "text", {}),
    ("GPT2Model", "GPT-2", DECODER, "text", {}),
    ("OpenAIGPTModel", "GPT", DECODER, "text", {}),
    ("GPTNeoModel", "GPT-Neo", DECODER, "text", {"attention_types": [[["global", "local"], 1]]}),
    ("GPTNeoXModel", "GPT-NeoX", DECODER, "text", {}),
    ("GPTJModel", "GPT-J", DECODER, "text", {}),
    ("GPTBigCodeModel", "GPTBigCode", DECODER, "text", {}),
    ("CodeGenModel", "CodeGen", DECODER, "text", {}),
    ("CTRLModel", "CTRL", DECODER, "text", {"dff": 48}),
    ("OPTModel", "OPT", DECODER, "text", {"word_embed_proj_dim": 32}),
    ("BloomModel", "BLOOM", DECODER, "text", {}),
    ("MptModel", "MPT", DECODER, "text", {}),
    ("FalconModel", "Falcon", DECODER, "text", {}),
    ("LlamaModel", "Llama", DECODER, "text", {}),
    ("MistralModel", "Mistral", DECODER, "text", {}),
    ("Qwen2Model", "Qwen2", DECODER, "text", {}),
    ("Qwen3Model", "Qwen3", DECODER, "text", {}),
    ("GemmaModel", "Gemma", DECODER, "text", {}),
    ("Gemma2Model", "Gemma 2", DECODER, "text", {}),
    ("Gemma3TextModel", "Gemma 3", DECODER, "text", {}),
    ("PhiModel", "Phi", DECODER, "text", {}),
    ("Phi3Model", "Phi-3", DECODER, "text", {}),
    ("StableLmModel", "StableLM", DECODER, "text", {}),
    ("Starcoder2Model", "StarCoder2", DECODER, "text", {}),
    ("CohereModel", "Cohere", DECODER, "text", {}),
    ("OlmoModel", "OLMo", DECODER, "text", {}),
    ("Olmo2Model", "OLMo 2", DECODER, "text", {}),
    ("PersimmonModel", "Persimmon", DECODER, "text", {}),
    ("NemotronModel", "Nemotron", DECODER, "text", {}),
    ("GlmModel", "GLM", DECODER, "text", {}),
    ("GraniteModel", "Granite", DECODER, "text", {}),
    ("DiffLlamaModel", "DiffLlama", DECODER, "text", {}),
    ("BioGptModel", "BioGPT", DECODER, "text", {}),
    ("XGLMModel", "XGLM", DECODER, "text", {"attention_heads": 4}),
    ("MiniCPM3Model", "MiniCPM3", DECODER, "text", {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "head_dim": 8, "num_key_value_heads": 4}),
    ("NanoChatModel", "nanochat", DECODER, "text", {}),
    ("SmolLM3Model", "SmolLM3", DECODER, "text", {}),
    ("Exaone4Model", "EXAONE 4", DECODER, "text", {}),
    ("BitNetModel", "BitNet", DECODER, "text", {}),
    ("HeliumModel", "Helium", DECODER, "text", {}),
    ("BartModel", "BART", SEQ2SEQ, "seq2seq", {}),
    ("T5Model", "T5", SEQ2SEQ, "seq2seq", {}),
    ("MT5Model", "mT5", SEQ2SEQ, "seq2seq", {}),
    ("UMT5Model", "UMT5", SEQ2SEQ, "seq2seq", {}),
    ("MarianModel", "Marian", SEQ2SEQ, "seq2seq", {}),
    ("MBartModel", "mBART", SEQ2SEQ, "seq2seq", {}),
    ("PegasusModel", "Pegasus", SEQ2SEQ, "seq2seq", {}),
    ("BlenderbotModel", "Blenderbot", SEQ2SEQ, "seq2seq", {}),
    ("M2M100Model", "M2M-100", SEQ2SEQ, "seq2seq", {}),
    ("ProphetNetModel", "ProphetNet", SEQ2SEQ, "seq2seq", {}),
    ("LongT5Model", "LongT5", SEQ2SEQ, "masked seq2seq", {"local_radius": 3}),
    ("T5GemmaModel", "T5Gemma", SEQ2SEQ, "seq2seq", {}),
    ("MixtralModel", "Mixtral", MOE, "text", {}),
    ("Qwen2MoeModel", "Qwen2-MoE", MOE, "text", {}),
    ("Qwen3MoeModel", "Qwen3-MoE", MOE, "text", {}),
    ("OlmoeModel", "OLMoE", MOE, "text", {}),
    ("DeepseekV3Model", "DeepSeek-V3", MOE, "text", {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "head_dim": 8, "num_key_value_heads": 4, "v_head_dim": 8, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}),
    ("PhimoeModel", "Phi-MoE", MOE, "text", {}),
    ("GptOssModel", "gpt-oss", MOE, "text", {}),
    ("JetMoeModel", "JetMoE", MOE, "longer text", {}),
    ("GraniteMoeModel", "GraniteMoE", MOE, "longer text", {}),
    ("SwitchTransformersModel", "Switch", MOE, "masked seq2seq", {}),
    ("MambaModel", "Mamba", RECURRENT, "text", {}),
    ("Mamba2Model", "Mamba-2", RECURRENT, "text", {"head_dim": 8, "num_heads": 8, "n_groups": 1, "chunk_size": 4}),
    ("FalconMambaModel", "Falcon-Mamba", RECURRENT, "text", {}),
    ("RwkvModel", "RWKV", RECURRENT, "text", {"context_length": 48}),
    ("xLSTMModel", "xLSTM", RECURRENT, "text", {}),
    ("RecurrentGemmaModel", "RecurrentGemma", RECURRENT, "text", {}),
    ("JambaModel", "Jamba", RECURRENT, "text", {"use_mamba_kernels": False}),
    ("Lfm2Model", "LFM2", RECURRENT, "text", {}),
    ("ViTModel", "ViT", VISION, "image", {}),
    ("DeiTModel", "DeiT", VISION, "image", {}),
    ("BeitModel", "BEiT", VISION, "image", {}),
    ("Dinov2Model", "DINOv2", VISION, "image", {}),
    ("Dinov2WithRegistersModel", "DINOv2", VISION, "image", {}),
    ("IJepaModel", "I-JEPA", VISION, "image", {}),
    ("ViTMSNModel", "MSN", VISION, "image", {}),
    ("SwinModel", "Swin", VISION, "image", {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "patch_size": 4}),
    ("Swinv2Model", "Swin V2", VISION, "image", {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "patch_size": 4}),
    ("PvtModel", "PVT", VISION, "image", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]}),
    ("SegformerModel", "SegFormer", SEGMENT, "image", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4], "patch_sizes": [7, 3, 3, 3]}),
    ("SegformerForSemanticSegmentation", "SegFormer", SEGMENT, "image", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 24, "patch_sizes": [7, 3, 3, 3]}),
    ("GLPNModel", "GLPN", SEGMENT, "image", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4], "patch_sizes": [7, 3, 3, 3]}),
    ("DPTModel", "DPT", SEGMENT, "image", {}),
    ("ConvNextModel", "ConvNeXt", CNN, "image", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "patch_size": 4}),
    ("ConvNextV2Model", "ConvNeXtV2", CNN, "image", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "patch_size": 4}),
    ("ResNetModel", "ResNet", CNN, "image", {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]}),
    ("RegNetModel", "RegNetY", CNN, "image", {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1], "groups_width": 8}),
    ("BitModel", "BiT", CNN, "image", {"embedding_size": 32, "num_groups": 8, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1]}),
    ("MobileNetV1Model", "MobileNetV1", CNN, "image", {"depth_multiplier": 0.25}),
    ("PoolFormerModel", "PoolFormer", VISION, "image", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "patch_size": 16}),
    ("Swin2SRModel", "Swin2SR", "super-resolution", "image", {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 1, "image_size": 16}),
    ("CLIPVisionModel", "CLIP", VISION, "image", {}),
    ("CLIPTextModel", "CLIP", TEXT, "text", {}),
    ("CLIPModel", "CLIP", MIXED, "clip", {}),
    ("SiglipModel", "SigLIP", MIXED, "clip", {}),
    ("BlipModel", "BLIP", MIXED, "clip", {}),
    ("ViltModel", "ViLT", MIXED, "clip", {}),
    ("GroupViTModel", "GroupViT", MIXED, "clip", {}),
    ("OwlViTModel", "OWL-ViT", MIXED, "clip", {}),
    ("ImageGPTModel", "ImageGPT", DECODER, "text", {}),
    ("YolosModel", "YOLOS", DETECT, "image", {"image_size": [32, 32], "num_detection_tokens": 5}),
    ("DetrModel", "DETR", DETECT, "image", {"num_queries": 5, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": BACKBONE}),
    ("ConditionalDetrModel", "Conditional DETR", DETECT, "image", {"num_queries": 5, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": BACKBONE}),
    ("Wav2Vec2Model", "wav2vec 2.0", AUDIO, "wave", {"conv_dim": [16, 16, 16], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3], "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}),
    ("HubertModel", "HuBERT", AUDIO, "wave", {"conv_dim": [16, 16, 16], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3], "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}),
    ("WavLMModel", "WavLM", AUDIO, "wave", {"conv_dim": [16, 16, 16], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3], "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}),
    ("SEWModel", "SEW", AUDIO, "wave", {"conv_dim": [16, 16, 16], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3], "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}),
    ("WhisperModel", "Whisper", AUDIO, "whisper", {"max_source_positions": 16, "max_target_positions": 16}),
    ("ASTModel", "AST", AUDIO, "spectrogram", {"max_length": 32, "patch_size": 8}),
    ("Speech2TextModel", "Speech2Text", AUDIO, "speech2text", {"max_source_positions": 64, "max_target_positions": 16, "conv_channels": 16, "input_feat_per_channel": 16}),
    ("EncodecModel", "EnCodec", AUDIO, "codec", {"num_filters": 4, "hidden_size": 16, "codebook_size": 16, "codebook_dim": 16}),
    ("PatchTSTModel", "PatchTST", SERIES, "series", {"num_input_channels": 3, "context_length": 16, "patch_length": 4, "patch_stride": 4}),
    ("PatchTSMixerModel", "PatchTSMixer", SERIES, "series", {"num_input_channels": 3, "context_length": 16, "patch_length": 4, "patch_stride": 4}),
    ("DecisionTransformerModel", "Decision Transformer", "reinforcement learning", "decision", {"state_dim": 5, "act_dim": 3, "max_ep_len": 20}),
    ("TimesformerModel", "TimeSformer", "video", "video", {"num_frames": 2}),
    ("VivitModel", "ViViT", "video", "video", {"num_frames": 2, "tubelet_size": [2, 8, 8]}),
    ("VideoMAEModel", "VideoMAE", "video", "video", {"num_frames": 2}),
    ("PerceiverModel", "Perceiver", "set models", "perceiver", {"d_latents": 24, "num_latents": 6, "num_blocks": 1, "num_self_attends_per_block": 2, "num_cross_attention_heads": 2, "num_self_attention_heads": 4}),
)  # fmt: skip


def reduced(config_class: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What to pass to a class of configurations, and to those within, to make the model small."""
    defaults = config_class().to_dict()
    found = {key: value for key, value in REDUCED.items() if key in defaults}
    inner = getattr(config_class, "sub_configs", {})
    for key, part in inner.items():
        if hasattr(part, "to_dict") and part.__name__ != "AutoConfig":
            found[key] = reduced(part, options.get(key, {}))
    return {**found, **options}


def inputs(kind: str, config: Any) -> dict[str, torch.Tensor]:
    """Example inputs of a kind."""
    size = getattr(config, "image_size", 32)
    size = size if isinstance(size, int) else size[0]
    mels = getattr(config, "num_mel_bins", 16)
    made = {
        "text": lambda: {"input_ids": ids(1, 6)},
        # so many tokens that each expert gets some
        "longer text": lambda: {"input_ids": ids(1, 20)},
        "seq2seq": lambda: {"input_ids": ids(1, 6), "decoder_input_ids": ids(1, 4)},
        "masked seq2seq": lambda: {
            "input_ids": ids(1, 6),
            "decoder_input_ids": ids(1, 4),
            "attention_mask": torch.ones(1, 6, dtype=torch.long),
        },
        "image": lambda: {"pixel_values": tensor(1, 3, size, size)},
        "clip": lambda: {"input_ids": ids(1, 6), "pixel_values": tensor(1, 3, 32, 32)},
        "wave": lambda: {"input_values": tensor(1, 400)},
        "codec": lambda: {"input_values": tensor(1, 1, 640)},
        "whisper": lambda: {"input_features": tensor(1, mels, 32), "decoder_input_ids": ids(1, 4)},
        "spectrogram": lambda: {"input_values": tensor(1, 32, mels)},
        "speech2text": lambda: {"input_features": tensor(1, 24, 16), "decoder_input_ids": ids(1, 4)},
        "series": lambda: {"past_values": tensor(1, 16, 3)},
        "video": lambda: {"pixel_values": tensor(1, 2, 3, 32, 32)},
        "perceiver": lambda: {"inputs": tensor(1, 8, config.d_model)},
        "decision": lambda: {
            "states": tensor(1, 4, 5),
            "actions": tensor(1, 4, 3),
            "returns_to_go": tensor(1, 4, 1),
            "timesteps": torch.arange(4)[None],
            "attention_mask": torch.ones(1, 4),
        },
    }
    return made[kind]()


def _build(name: str, kind: str, options: dict[str, Any]) -> Built:
    import_torchvision()
    import transformers

    model_class = getattr(transformers, name)
    config = model_class.config_class(**reduced(model_class.config_class, options))
    return Built(module=model_class(config), kwargs=inputs(kind, config))


def architectures() -> list[Architecture]:
    """All of them."""
    return [
        Architecture(
            name=name,
            family=family,
            source="transformers",
            group=group,
            build=functools.partial(_build, name, kind, options),
        )
        for name, family, group, kind, options in MODELS
    ]
