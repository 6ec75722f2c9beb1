"""Sizes by attribute name, and settings of architectures whose sizes depend on each other in other ways.

`TARGETS` limits attributes, `KEPT` lists those that stay unchanged, and `OVERRIDES` has, by model type, attributes that
are set after shrinking; a dict reaches into a part of the configuration. To support one more, add a row with its
reason.
"""

from __future__ import annotations

from typing import Any

VOCABULARY = 512
WIDTH = 64
HEADS = 4
LAYERS = 2

# Names that look like a size of the model but say what its input is, or how it behaves.
_KEPT = """
    num_channels in_channels in_chans audio_channels out_channels num_channels_out type_vocab_size visual_pos_dim
    num_mel_bins max_window_layers num_feat_extract_layers num_conv_layers text_encoder_proj_layers query_dec_layers
    feature_projection_input_dim input_dim dim_bbox num_attractors dim_model_base max_2d_position_embeddings
    num_hidden_groups task_type_vocab_size tie_encoder_decoder num_residual_layers
"""
KEPT = frozenset(_KEPT.split())

# The first pattern that matches an attribute's whole name gives its target; a value never grows.
TARGETS: tuple[tuple[str, int], ...] = tuple(
    (rf"(?:.*_)?(?:{names})", target)
    for names, target in (
        ("vocab_size|vocab_size_per_layer_input|num_hash_buckets|num_embeddings", VOCABULARY),
        ("max_position_embeddings|max_(source|target|encoder|decoder)_positions?(_embeddings)?|n_positions", 512),
        ("n_ctx|max_seq_len|seq_length|max_sequence_length|max_text_positions", 512),
        ("sliding_window|sliding_window_size|attention_window_size|local_attention", 8),
        ("qk_rope_head_dim|rotary_dim|index_head_dim", 8),
        ("head_dim|head_size|d_head|dim_head|d_kv|qk_nope_head_dim|v_head_dim|key_dim|mamba_headdim", 16),
        ("lora_rank|adapter_rank|mamba_d_state|state_size|d_state|ssm_state_size|embedding_rank", 16),
        ("(hidden_|encoder_|decoder_|residual_)?layers|num_blocks|n_layers?|depth|layers_per_block", LAYERS),
        ("num_self_attends_per_block|num_layers_per_stack", LAYERS),
        ("first_k_dense_replace", 1),
        ("attention_heads|n_heads?|num_heads|index_n_heads|query_groups", HEADS),
        ("num_experts|num_local_experts|n_routed_experts|moe_num_experts|zero_expert_num", 8),
        ("num_experts_per_tok|moe_topk|moe_k|n_group|n_groups|moe_top_k", 2),
        ("topk_group|n_shared_experts|num_shared_experts|mamba_n_groups", 1),
        ("intermediate_(size|dim)|ffn_dim|mlp_dim|d_ff|dff|n_inner|ffn_hidden_size|feed_forward_size", 2 * WIDTH),
        ("dim_ff|linear_units|dim_feedforward|feedforward_dim|ffn_embed_dim|ffn_size|mlp_hidden_size", 2 * WIDTH),
        ("hidden_(size|dim)|d_model|dim|n_embd|embd_dim|embed_dim|emb_dim|embedding_(size|dim)|emb_size", WIDTH),
        ("(proj|projection)_(size|dim)|d_latents|word_embed_proj_dim|true_hidden_size|bottleneck_size", WIDTH),
        ("hidden_size_global|lru_width|fpn_feature_size|output_channels|conv_channels|prompt_mid_dim", WIDTH),
        ("num_queries|num_detection_tokens|num_latents|two_stage_num_proposals|num_denoising|num_landmarks", 16),
        (
            "output_dim|mask_dim|codevector_dim|channels|upsample_initial_channel|codebook_size|num_codevectors_per_group|pooler_output_size",
            WIDTH,
        ),
        ("index_topk", 8),
    )
)

# Convolutions by kernel, stride and padding, as released: text is long and narrow.
_INTRACLASS = {
    "reduce_channel": [1, 1, 0],
    "return_channel": [1, 1, 0],
    **{
        f"{name}_{ratio}ratio": [kernel, [1, 1], padding]
        for ratio, size in (("long", 7), ("mid", 5), ("short", 3))
        for name, kernel, padding in (
            ("vertical_long_to_small_conv", [size, 1], [size // 2, 0]),
            ("horizontal_small_to_long_conv", [1, size], [0, size // 2]),
            ("symmetric_conv_long", [size, size], [size // 2, size // 2]),
        )
    },
}
_EFFICIENTNET = {"width_coefficient": 0.25, "hidden_dim": 320, "num_block_repeats": [1] * 7}
# Blocks by kernel, channels in and out, stride, squeeze and excitation.
_LCNET = {
    "stem_channels": [3, 8, 16],
    "block_configs": [
        [[3, 16, 16, 1, True]],
        [[3, 16, 32, 2, False]],
        [[3, 32, 48, 2, False], [3, 48, 48, 1, True]],
        [[3, 48, 64, 2, False]],
    ],
    "depths": [1, 1, 2, 1],
    "stage_out_channels": [16, 32, 48, 64],
    "out_indices": [1, 2, 3, 4],
}
_MIMI = {
    "num_filters": 4,
    "codebook_dim": 64,
    "vector_quantization_hidden_dimension": 64,
    "upsample_groups": 64,
    "num_quantizers": 8,
}
_FORECAST = {"prediction_length": 8}
_TWO_KINDS = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_chunk_size": 8}

OVERRIDES: dict[str, dict[str, Any]] = {
    # The last convolution is as wide as a rounding of 1280 times the coefficient.
    "efficientnet": _EFFICIENTNET,
    "align_vision_model": _EFFICIENTNET,
    "align": {"projection_dim": 80},
    # Semantic segmentation takes four layers.
    "beit": {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]},
    # A chunk at least, so that some characters are in the next one.
    "longformer": {"attention_window": 16},
    "led": {"attention_window": 16},
    # A window no larger than the last stage.
    "swin": {"window_size": 4, "image_size": 128},
    "donut-swin": {"window_size": 4, "image_size": 128},
    "textnet": {"stem_out_channels": 8},
    # Four coordinates and two extents of a box make up a hidden vector.
    "layoutlmv3": {"coordinate_size": 10, "shape_size": 12},
    # Six embeddings of a box, and a quarter of them a head.
    "lilt": {"hidden_size": 96},
    "sapiens2": {
        "num_hidden_layers": 3,
        "num_key_value_heads_per_layer": [4, 2, 4],
        "num_first_full_attention_layers": 1,
        "num_last_full_attention_layers": 1,
        "head_config": {
            "upsample_out_channels": [32],
            "upsample_kernel_sizes": [4],
            "conv_out_channels": [32],
            "conv_kernel_sizes": [1],
        },
    },
    # The tokenizer's, as released: the default configuration leaves them out.
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "zoedepth": {"bottleneck_features": 64},
    # The mask head's groups of eight channels hold one channel a head.
    "detr": {"encoder_attention_heads": 8, "decoder_attention_heads": 8},
    "lw_detr": {"projector_scale_factors": [1.0]},
    # As many landmarks as positions, or it reshapes every length into that many segments.
    "nystromformer": {"num_landmarks": 64},
    "wav2vec2-bert": {"vocab_size": 32},
    "wav2vec2-conformer": {"vocab_size": 32},
    # Released checkpoints leave the language to the user.
    "xmod": {"default_language": "en_XX"},
    "pp_doclayout_v3": {"x4_feat_dim": 16},
    "pp_doclayout_v2": {"class_thresholds": [0.0] * 2, "class_order": [0, 1]},
    # Heads of detection read four stages; the defaults name one, and leave the neck's settings to the user.
    "pp_ocrv5_server_det": {
        "intraclass_block_config": _INTRACLASS,
        "kernel_list": [3, 2, 2],
        "scale_factor_list": [1, 2, 4, 8],
    },
    "pp_ocrv6_medium_det": {
        "intraclass_block_config": _INTRACLASS,
        "kernel_list": [3, 2, 2],
        "scale_factor_list": [1, 2, 4, 8],
        "backbone_config": _LCNET,
    },
    "pp_ocrv6_small_det": {"layer_list_out_channels": [16, 32, 48, 64], "backbone_config": _LCNET},
    # Rates of dropped paths are looked up by the stage in a list as long as its depth.
    "cvt": {"depth": [1, 2, 3]},
    # Three scales of one image, cut into patches: of four tokens a side, one is cut off where patches overlap.
    "depth_pro": {
        "patch_size": 32,
        "merge_padding_value": 1,
        "intermediate_hook_ids": [1, 0],
        "intermediate_feature_dims": [64, 64],
        "scaled_images_feature_dims": [64, 64, 64],
        "image_model_config": {"image_size": 32, "patch_size": 8},
        "patch_model_config": {"image_size": 32, "patch_size": 8},
        "fov_model_config": {"image_size": 32, "patch_size": 8},
    },
    # Stages double the first one's width.
    "focalnet": {"embed_dim": 16, "hidden_sizes": [16, 32, 64, 128]},
    "clap_audio_model": {"patch_embeds_hidden_size": 32, "hidden_size": 256},
    # Groups divide a quarter of every stage's width.
    "bit": {"num_groups": 8},
    "omdet-turbo": {"encoder_in_channels": [32, 64, 128], "d_model": 64},
    "mobilenet_v1": {"depth_multiplier": 0.25},
    # The axes of the position table make up the longest length and the width.
    "reformer": {
        "axial_pos_shape": [16, 32],
        "axial_pos_embds_dim": [16, 48],
        "local_attn_chunk_length": 16,
        "lsh_attn_chunk_length": 16,
    },
    # Sounds of one length only: a short one.
    "audio-spectrogram-transformer": {"max_length": 128},
    "whisper": {"max_source_positions": 64},
    # Vocabularies under names of their own.
    "mgp-str": {"num_bpe_labels": 512, "num_wordpiece_labels": 512},
    "blt": {"encoder_hash_byte_group_vocab": 512, "num_hidden_layers": 2},
    "tvp": {"max_img_size": 64, "visual_prompt_size": 8, "num_frames": 4},
    # Channels double at every step down: the last one is the hidden width, whole codes of which are quantized.
    "dac": {"encoder_hidden_size": 8, "decoder_hidden_size": 128, "hidden_size": 128},
    "encodec": {"num_filters": 4, "hidden_size": 64, "codebook_dim": 64},
    "mimi": _MIMI,
    "mimi_encoder": _MIMI,
    "mimi_decoder": _MIMI,
    "pocket_tts_audio_tokenizer": {"num_filters": 4, "upsample_groups": 64},
    "pocket_tts_audio_tokenizer_encoder": {"num_filters": 4, "upsample_groups": 64},
    "pocket_tts_audio_tokenizer_decoder": {"num_filters": 4, "upsample_groups": 64},
    "xcodec2": {"encoder_hidden_size": 8},
    "neucodec": {"encoder_hidden_size": 8},
    "univnet": {"model_hidden_channels": 8},
    "vibevoice_acoustic_tokenizer": {"num_filters": 4},
    "vibevoice_acoustic_tokenizer_encoder": {"num_filters": 4},
    "vibevoice_acoustic_tokenizer_decoder": {"num_filters": 4},
    # The length to forecast has no default.
    "autoformer": _FORECAST,
    "informer": _FORECAST,
    "time_series_transformer": _FORECAST,
    # Layers are counted from a description of their kinds.
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 8},
    # Heads of the state make up the expanded width; the default has one kind of layers only.
    "bamba": {**_TWO_KINDS, "attn_layer_indices": [1]},
    "falcon_h1": {**_TWO_KINDS, "mamba_d_ssm": 128},
    "granitemoehybrid": {**_TWO_KINDS, "layer_types": ["linear_attention", "full_attention"]},
    "mamba2": {"head_dim": 32, "chunk_size": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    # A layer shared by the hybrid ones, of which there have to be two.
    "zamba": {
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "mamba_dt_rank": 4,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    # Four outputs, and images are merged before the first.
    "seggpt": {"num_hidden_layers": 5, "merge_index": 0, "intermediate_hidden_state_indices": [1, 2, 3, 4]},
    # Its rotary embedding fits heads of an eighth of the width.
    "efficientloftr": {
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "out_features": [64, 64, 64, 64],
        "fine_fusion_dims": [64, 64, 64],
    },
    # Experts, or their number, are left to the user.
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    # Settings that the classes read and the default configurations lack.
    "moonshine_streaming": {"num_key_value_heads": 4},
    "t5gemma2_encoder": {"text_config": {"dropout_rate": 0.0}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "chameleon": {"vocabulary_map": {"<image>": 500}},
    "emu3": {"vocabulary_map": {"<image>": 500, "<|extra_200|>": 501}},
    # One token out of so many is pooled, so a multiple of them is chosen.
    "glm5_next_text": {"index_kpool": 4},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 16}},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2}},
    "diffusion_gemma": {"text_config": {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 32}},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            name: {"rope_type": "default", "rope_theta": 10000.0} for name in ("sliding_attention", "full_attention")
        },
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
    },
    # Three sections make up half of a head, the first two of the same size.
    "ernie4_5_vl_moe_text": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [3, 3, 2]}
    },
    "molmo2": {"adapter_config": {"vision_feature_layer": [1, 0]}},
    # A token that is checked before it could be moved.
    "nemotron3_5_transcribe_word_timestamp": {"blank_token_id": 400},
    # Blocks as above, five stages: a wide and deep one lets images fade.
    "pp_lcnet": {
        "block_configs": [
            [[3, 16, 16, 1, False]],
            [[3, 16, 32, 2, False]],
            [[3, 32, 48, 2, False]],
            [[3, 48, 64, 2, False], [5, 64, 64, 1, False]],
            [[5, 64, 64, 2, True]],
        ],
        "depths": [1, 1, 1, 2, 1],
    },
}
