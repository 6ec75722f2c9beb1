"""Layouts of models of images: classes, vectors, boxes, segments and depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tests.model_matrix.layouts.folder import MediaFolder, Model
from tests.model_matrix.layouts.layout import Layout, in_area
from tests.model_matrix.layouts.media import Images, ImagesAndTexts, Pixels
from tests.model_matrix.layouts.rerankers import labels
from tests.model_matrix.layouts.vocabularies import clip_pairs, spaced_pairs

_layout = in_area("images")

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_DO = {"do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 0.00392156862745098}
_TEN = labels([f"class {number}" for number in range(10)])


def processor(kind: str, size: Any, **keys: Any) -> dict[str, Any]:
    """preprocessor_config.json."""
    return {"preprocessor_config.json": {"image_processor_type": kind, "size": size, **_DO, **keys}}


def square(side: int) -> dict[str, int]:
    """A size of images."""
    return {"height": side, "width": side}


def _images(
    name: str,
    model: Model,
    files: Mapping[str, Any],
    photos: Sequence[tuple[int, int]] = ((480, 640), (1080, 1920), (640, 480)),
) -> Layout:
    return _layout(name, MediaFolder(model, files), Images(model.architecture, photos))


def _vit(size: int = 224, names: Sequence[str] | None = None, **keys: Any) -> Model:
    named = _TEN if names is None else labels(names)
    config = {**named, "image_size": size, "patch_size": 16, "qkv_bias": True}
    return Model("ViTForImageClassification", "vit", config, {"encoder_stride": 16, **keys})


_VIT_224 = processor("ViTImageProcessor", square(224), resample=2, **_HALF)
_SWIN = {
    "patch_size": 4,
    "window_size": 7,
    "depths": [2, 2, 6, 2],
    "embed_dim": 96,
    "num_heads": [3, 6, 12, 24],
    **_TEN,
}
_CONVNEXT = processor("ConvNextImageProcessor", {"shortest_edge": 224}, crop_pct=0.875, resample=3, **_IMAGENET)
_DINO = processor(
    "BitImageProcessor",
    {"shortest_edge": 256},
    do_center_crop=True,
    crop_size=square(224),
    do_convert_rgb=True,
    resample=3,
    **_IMAGENET,
)
_DINO2 = {"image_size": 518, "patch_size": 14, "layerscale_value": 1.0, "mlp_ratio": 4, "qkv_bias": True}
_RESNET = {"model_type": "resnet", "layer_type": "bottleneck", "out_features": ["stage4"]}
_COCO = {"shortest_edge": 800, "longest_edge": 1333}
_DETECTED = ((480, 640), (640, 480))

_CLASSIFIERS: tuple[Layout, ...] = (
    _images("google/vit-base-patch16-224", _vit(), _VIT_224),
    _images("google/vit-base-patch16-384", _vit(384), processor("ViTImageProcessor", square(384), resample=2, **_HALF)),
    _images(
        "Falconsai/nsfw_image_detection",
        _vit(224, ("normal", "nsfw"), problem_type="single_label_classification"),
        _VIT_224,
    ),
    _images(
        "nateraw/vit-age-classifier",
        _vit(224, ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")),
        {"preprocessor_config.json": {"feature_extractor_type": "ViTFeatureExtractor", "do_resize": True, "size": 224}},
    ),
    _images(
        "facebook/deit-base-distilled-patch16-224",
        Model("DeiTForImageClassificationWithTeacher", "deit", {"image_size": 224, **_TEN}),
        processor(
            "DeiTImageProcessor", square(256), do_center_crop=True, crop_size=square(224), resample=3, **_IMAGENET
        ),
    ),
    _images(
        "microsoft/beit-base-patch16-224",
        Model(
            "BeitForImageClassification",
            "beit",
            {"image_size": 224, "use_relative_position_bias": True, "use_mean_pooling": True, **_TEN},
        ),
        processor("BeitImageProcessor", square(224), do_center_crop=False, crop_size=square(224), resample=2, **_HALF),
    ),
    _images(
        "microsoft/swin-tiny-patch4-window7-224",
        Model("SwinForImageClassification", "swin", {"image_size": 224, **_SWIN}, kept=("window_size",)),
        processor("ViTImageProcessor", square(224), resample=3, **_IMAGENET),
    ),
    _images(
        "microsoft/swinv2-tiny-patch4-window8-256",
        Model(
            "Swinv2ForImageClassification",
            "swinv2",
            {**_SWIN, "image_size": 256, "window_size": 8},
            kept=("window_size",),
        ),
        processor("ViTImageProcessor", square(256), resample=3, **_IMAGENET),
    ),
    _images("facebook/convnext-tiny-224", Model("ConvNextForImageClassification", "convnext", _TEN), _CONVNEXT),
    _images(
        "facebook/convnextv2-tiny-1k-224", Model("ConvNextV2ForImageClassification", "convnextv2", _TEN), _CONVNEXT
    ),
    _images("microsoft/resnet-50", Model("ResNetForImageClassification", "resnet", _TEN), _CONVNEXT),
    _images(
        "google/mobilenet_v1_0.75_192",
        Model("MobileNetV1ForImageClassification", "mobilenet_v1", {"image_size": 192, **_TEN}),
        processor(
            "MobileNetV1ImageProcessor",
            {"shortest_edge": 192},
            do_center_crop=True,
            crop_size=square(192),
            resample=2,
            **_HALF,
        ),
    ),
    _images(
        "google/mobilenet_v2_1.0_224",
        Model("MobileNetV2ForImageClassification", "mobilenet_v2", {"image_size": 224, **_TEN}),
        processor(
            "MobileNetV2ImageProcessor",
            {"shortest_edge": 256},
            do_center_crop=True,
            crop_size=square(224),
            resample=2,
            **_HALF,
        ),
    ),
    _images(
        "google/efficientnet-b0",
        Model("EfficientNetForImageClassification", "efficientnet", {"image_size": 224, **_TEN}),
        processor(
            "EfficientNetImageProcessor",
            square(224),
            do_center_crop=False,
            crop_size=square(289),
            include_top=True,
            rescale_offset=False,
            resample=0,
            **_IMAGENET,
        ),
    ),
    _images(
        "apple/mobilevit-small",
        Model("MobileViTForImageClassification", "mobilevit", {"image_size": 256, **_TEN}),
        {
            "preprocessor_config.json": {
                "feature_extractor_type": "MobileViTFeatureExtractor",
                "crop_size": 256,
                "do_center_crop": True,
                "do_flip_channels": True,
                "do_resize": True,
                "resample": 2,
                "size": 288,
            }
        },
    ),
    _images(
        "dima806/facial_emotions_image_detection",
        _vit(224, ("sad", "disgust", "angry", "neutral", "fear", "surprise", "happy")),
        processor("ViTImageProcessor", square(224), resample=2, do_convert_rgb=None, **_HALF),
    ),
)

_VECTORS: tuple[Layout, ...] = (
    _images("google/vit-base-patch16-224-in21k", Model("ViTModel", "vit", {"image_size": 224}), _VIT_224),
    _images(
        "facebook/dino-vitb16",
        Model("ViTModel", "vit", {"image_size": 224, "qkv_bias": True}),
        processor("ViTImageProcessor", 224, resample=3, **_IMAGENET),
    ),
    _images("facebook/dinov2-base", Model("Dinov2Model", "dinov2", _DINO2), _DINO),
    _images(
        "facebook/dinov2-with-registers-base",
        Model("Dinov2WithRegistersModel", "dinov2_with_registers", {**_DINO2, "num_register_tokens": 4}),
        _DINO,
    ),
    _images(
        "microsoft/rad-dino",
        Model("Dinov2Model", "dinov2", _DINO2),
        processor(
            "BitImageProcessor",
            {"shortest_edge": 518},
            do_center_crop=True,
            crop_size=square(518),
            do_convert_rgb=True,
            resample=3,
            image_mean=[0.5307] * 3,
            image_std=[0.2583] * 3,
        ),
    ),
    _layout(
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        MediaFolder(
            Model(
                "DINOv3ViTModel",
                "dinov3_vit",
                {"image_size": 224, "patch_size": 16, "num_register_tokens": 4, "layerscale_value": 1.0},
            ),
            processor("DINOv3ViTImageProcessorFast", square(224), resample=2, default_to_square=True, **_IMAGENET),
        ),
        Pixels("DINOv3ViTModel", ((224, 224),)),
    ),
)

_CLIP_PROCESSOR = {
    "preprocessor_config.json": {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "resample": 3,
        "size": 224,
        **_CLIP,
    }
}
_CLIP_CONFIG = {
    "projection_dim": 512,
    "text_config": {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "max_position_embeddings": 77},
    "vision_config": {"image_size": 224, "patch_size": 32},
}


def _clip(name: str, patch: int) -> Layout:
    config = {**_CLIP_CONFIG, "vision_config": {"image_size": 224, "patch_size": patch}}
    model = Model("CLIPModel", "clip", config, kept=("eos_token_id", "bos_token_id", "pad_token_id"))
    return _layout(name, MediaFolder(model, _CLIP_PROCESSOR, clip_pairs), ImagesAndTexts("CLIPModel"))


_BOTH: tuple[Layout, ...] = (
    _clip("openai/clip-vit-base-patch32", 32),
    _clip("openai/clip-vit-large-patch14", 14),
    _layout(
        "google/siglip2-base-patch16-224",
        MediaFolder(
            Model(
                "SiglipModel",
                "siglip",
                {
                    "text_config": {"max_position_embeddings": 64},
                    "vision_config": {"image_size": 224, "patch_size": 16},
                },
            ),
            {
                **processor("SiglipImageProcessor", square(224), resample=2, **_HALF),
                "processor_config.json": {"processor_class": "SiglipProcessor"},
            },
            partial(spaced_pairs, length=64, around=("", "<eos>")),
        ),
        ImagesAndTexts("SiglipModel", "max_length"),
    ),
)

_SWIN_BACKBONE = {
    "model_type": "swin",
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "embed_dim": 96,
    "window_size": 7,
    "image_size": 224,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
# Widths of the layers behind the backbone, which work on the whole image.
_NECK = {"reassemble_hidden_size": 64, "fusion_hidden_size": 16, "head_hidden_size": 8}
_BOXES: tuple[Layout, ...] = (
    _images(
        "facebook/detr-resnet-50",
        Model(
            "DetrForObjectDetection",
            "detr",
            {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": _RESNET}
            | _TEN,
        ),
        processor("DetrImageProcessor", _COCO, do_pad=True, format="coco_detection", **_IMAGENET),
        _DETECTED,
    ),
    _images(
        "hustvl/yolos-tiny",
        Model(
            "YolosForObjectDetection",
            "yolos",
            {"image_size": [800, 1333], "patch_size": 16, "use_mid_position_embeddings": False, **_TEN},
        ),
        processor(
            "YolosImageProcessor",
            {"shortest_edge": 512, "longest_edge": 1333},
            do_pad=True,
            format="coco_detection",
            resample=2,
            **_IMAGENET,
        ),
        _DETECTED,
    ),
    _images(
        "PekingU/rtdetr_r50vd",
        Model("RTDetrForObjectDetection", "rt_detr", _TEN),
        processor(
            "RTDetrImageProcessor",
            square(640),
            do_pad=False,
            format="coco_detection",
            resample=2,
            **_IMAGENET | {"do_normalize": False},
        ),
    ),
    _images(
        "PekingU/rtdetr_v2_r18vd",
        Model("RTDetrV2ForObjectDetection", "rt_detr_v2", _TEN),
        processor(
            "RTDetrImageProcessor",
            square(640),
            do_pad=False,
            format="coco_detection",
            resample=2,
            **_IMAGENET | {"do_normalize": False},
        ),
    ),
    _images(
        "nvidia/segformer-b0-finetuned-ade-512-512",
        Model("SegformerForSemanticSegmentation", "segformer", {"image_size": 224, **_TEN}),
        processor("SegformerImageProcessor", square(512), reduce_labels=True, resample=2, **_IMAGENET),
    ),
    _images(
        "mattmdjaga/segformer_b2_clothes",
        Model("SegformerForSemanticSegmentation", "segformer", {"image_size": 224, "depths": [3, 4, 6, 3], **_TEN}),
        {
            "preprocessor_config.json": {
                "feature_extractor_type": "SegformerFeatureExtractor",
                "do_resize": True,
                "do_normalize": True,
                "reduce_labels": False,
                "resample": 2,
                "size": 512,
                **_IMAGENET,
            }
        },
    ),
    _images(
        "facebook/mask2former-swin-tiny-coco-instance",
        Model(
            "Mask2FormerForUniversalSegmentation",
            "mask2former",
            {"backbone_config": _SWIN_BACKBONE, "feature_size": 32, "mask_feature_size": 32, **_TEN},
            kept=("window_size", "image_size"),
        ),
        processor("Mask2FormerImageProcessor", square(384), resample=2, ignore_index=255, num_labels=10, **_IMAGENET),
    ),
    _images(
        "Intel/dpt-large",
        Model("DPTForDepthEstimation", "dpt", {"image_size": 384, "patch_size": 16, "fusion_hidden_size": 16}),
        processor("DPTImageProcessor", square(384), ensure_multiple_of=1, keep_aspect_ratio=False, resample=2, **_HALF),
    ),
    _images(
        "depth-anything/Depth-Anything-V2-Small-hf",
        Model("DepthAnythingForDepthEstimation", "depth_anything", {"patch_size": 14, **_NECK}),
        processor(
            "DPTImageProcessor",
            square(518),
            ensure_multiple_of=14,
            keep_aspect_ratio=True,
            do_pad=False,
            size_divisor=None,
            resample=3,
            **_IMAGENET,
        ),
        _DETECTED,
    ),
)

LAYOUTS = (*_CLASSIFIERS, *_VECTORS, *_BOTH, *_BOXES)
