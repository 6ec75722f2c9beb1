"""Settings of single architectures whose sizes hang together in ways no rule by name can see.

In: nothing. Out: `OVERRIDES`, by model type: attributes set after shrinking; a dict reaches into a part of the
configuration. Refuses nothing. To support one more, add a row with its reason.
"""

from __future__ import annotations

from typing import Any

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
    "pp_ocrv5_server_det": {"intraclass_block_config": _INTRACLASS, "kernel_list": [3, 2, 2]},
    "pp_ocrv6_medium_det": {
        "intraclass_block_config": _INTRACLASS,
        "kernel_list": [3, 2, 2],
        "backbone_config": {"stem_channels": [3, 48, 96], "out_indices": [1, 2, 3, 4]},
    },
    "pp_ocrv6_small_det": {"backbone_config": {"stem_channels": [3, 48, 96], "out_indices": [1, 2, 3, 4]}},
    # Rates of dropped paths are looked up by the stage in a list as long as its depth.
    "cvt": {"depth": [1, 2, 3]},
    "depth_pro": {
        "patch_size": 112,
        "merge_padding_value": 1,
        "intermediate_hook_ids": [1, 0],
        "intermediate_feature_dims": [64, 64],
        "scaled_images_feature_dims": [64, 64, 64],
        "image_model_config": {"image_size": 112},
        "patch_model_config": {"image_size": 112},
        "fov_model_config": {"image_size": 112},
    },
}
