"""Refuse a manifest whose fields have the right types but contradict each other or are out of range.

A manifest that passes can be printed, warmed up and compared with inputs without an unexpected exception.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from runtime.errors import ManifestDamagedError
from runtime.format.manifest import (
    FORMAT_VERSION,
    OLDEST_FORMAT_VERSION,
    CtcInfo,
    GenerationInfo,
    Manifest,
    PicturePrompts,
    PictureResults,
    Preprocessing,
    TensorSpec,
    TextInfo,
    TextSide,
    TokenOutputs,
    TokenRules,
)

# Limits far above what real manifests have; beyond them a warm-up would exhaust time or memory.
MAX_WARMUP_TOKENS = 2**16
MAX_WARMUP_ELEMENTS = 2**22  # for pixels or audio samples, each of which needs less computation than a token
MAX_WARMUP_CALLS = 100
# Tensors of keys and values (no model has a thousand layers), and characters of a chat template.
MAX_CACHES, MAX_TEMPLATE = 2048, 2**18
# Beams: each is a row of a cache.
MAX_BEAMS = 256
# What the method `preprocess` takes.
PREPROCESSED_AXES = {"image": ("height", "width", "channels"), "audio": ("samples",)}
# Masks are resized to the size to which pictures are padded.
MAX_PADDED_SIDE = 2**13
# Task → the output with the scores of classes, and the place of the axis that runs over them.
PICTURE_LOGITS = {
    "image-classification": ("logits", 1),
    "semantic-segmentation": ("logits", 1),
    "object-detection": ("logits", 2),
    "image-segmentation": ("class_queries_logits", 2),
}
_RELEASE = re.compile(r"\d{1,4}\.\d{1,4}(\.\d{1,4})?([a-z0-9.+-]{0,40})", re.ASCII)


def validate(manifest: Manifest, origin: str) -> None:
    """Check the whole manifest; `origin` names the file in errors.

    Raises:
        ManifestDamagedError: names the first invalid field.
    """
    for place, expected in _problems(manifest):
        raise ManifestDamagedError(
            f"damaged manifest.json of {origin}: {place} makes no sense",
            expected,
            "export the model again, or copy the file again if it was damaged on the way",
        )


def _problems(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The place of each problem, and what was expected there."""
    if not OLDEST_FORMAT_VERSION <= manifest.format_version <= FORMAT_VERSION:
        yield f"format_version {manifest.format_version}", f"{OLDEST_FORMAT_VERSION} to {FORMAT_VERSION}"
    for name, release in (("requires.torch", manifest.requires.torch), ("requires.ipex", manifest.requires.ipex)):
        if release is not None and not _RELEASE.fullmatch(release):
            yield name, "a release number such as 2.8.0"
    for side, specs in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        names = [spec.name for spec in specs]
        if not names or len(set(names)) != len(names):
            yield side, "at least one, each name once"
        for spec in specs:
            yield from _tensor_problems(spec)
    if all(spec.fill is not None for spec in manifest.inputs):
        yield "inputs", "one that cannot be left out"
    yield from _warmup_problems(manifest)
    for name, bound in (("max_error", manifest.tolerance.max_error), ("rms_error", manifest.tolerance.rms_error)):
        if not 0 <= bound <= 1:
            yield f"tolerance.{name} {bound}", "0 to 1"
    if manifest.text is not None:
        yield from _text_problems(manifest.text)
    if manifest.embedding is not None and manifest.embedding.tokens is not None:
        yield from _token_problems(manifest, manifest.embedding.tokens)
    if manifest.late_interaction is not None:
        yield from _side_problems(manifest.late_interaction.query, "late_interaction.query")
        yield from _side_problems(manifest.late_interaction.document, "late_interaction.document")
    if manifest.ctc is not None:
        yield from _ctc_problems(manifest, manifest.ctc)
    if manifest.preprocessing is not None:
        yield from _preprocessing_problems(manifest.preprocessing, {spec.name for spec in manifest.inputs})
    if manifest.pictures is not None:
        yield from _picture_problems(manifest, manifest.pictures)
    if manifest.generation is not None:
        yield from _generation_problems(manifest, manifest.generation)
    if manifest.prompts is not None:
        yield from _prompt_problems(manifest, manifest.prompts)
    if manifest.labels:
        last = {spec.axes[-1].maximum for spec in manifest.outputs if spec.axes}
        if last != {len(manifest.labels)}:
            yield "labels", f"as many as the outputs' last axis, {last}"


def _warmup_problems(manifest: Manifest) -> Iterator[tuple[str, str]]:
    axes = {axis.name: axis for spec in manifest.inputs for axis in spec.axes}
    floats = any(spec.dtype == "float32" for spec in manifest.inputs)
    most = MAX_WARMUP_ELEMENTS if floats else MAX_WARMUP_TOKENS
    for shape in manifest.execution.warmup_shapes:
        for name, size in shape.items():
            axis = axes.get(name)
            if axis is None or size < axis.minimum or (axis.maximum is not None and size > axis.maximum):
                yield f"execution.warmup_shapes: {name} {size}", "axes of the inputs within their range"
        for spec in manifest.inputs:
            elements = math.prod(shape.get(axis.name, axis.minimum) for axis in spec.axes)
            if elements > most:
                yield f"execution.warmup_shapes: {elements} elements of {spec.name}", f"at most {most}"
    if not 0 <= manifest.execution.warmup_calls <= MAX_WARMUP_CALLS:
        yield "execution.warmup_calls", f"0 to {MAX_WARMUP_CALLS}"


def _text_problems(text: TextInfo) -> Iterator[tuple[str, str]]:
    if not (0 < text.max_length < 2**24 and 0 <= text.pad_id < 2**31 and 0 <= text.pad_type_id < 2**31):
        yield "text", "lengths and ids that are not negative"
    ids = (text.rules.unknown_id, text.rules.class_id, text.rules.mask_id) if text.rules is not None else ()
    if not all(number is None or 0 <= number < 2**31 for number in ids):
        yield "text.rules", "ids that are not negative"
    last = text.pair_template.last_ids if text.pair_template is not None else ()
    if not all(0 <= number < 2**31 for number in last):
        yield "text.pair_template.last_ids", "ids that are not negative"
    padded = None if text.rules is None else text.rules.padded_length
    if padded is not None and not 0 < padded <= text.max_length:
        yield f"text.rules.padded_length {padded}", f"1 to {text.max_length}, the longest text"


def _token_problems(manifest: Manifest, tokens: TokenOutputs) -> Iterator[tuple[str, str]]:
    axes = {spec.name: [axis.name for axis in spec.axes][:2] for spec in manifest.outputs}
    for name in (tokens.weights, tokens.vectors):
        if axes.get(name) != ["batch", "sequence"]:
            yield f"embedding.tokens: {name}", "an output along batch and sequence"
    if not all(0 <= number < 2**31 for number in tokens.skipped_ids):
        yield "embedding.tokens.skipped_ids", "ids that are not negative"


def _side_problems(side: TextSide, place: str) -> Iterator[tuple[str, str]]:
    added = side.expansion
    if not 0 < side.max_length < 2**24 or (added is not None and not 0 < added.length <= side.max_length):
        yield place, "lengths from 1, an expansion's at most max_length"
    ids = (*side.skipped_ids, *([] if added is None else [added.token_id]))
    if not all(0 <= number < 2**31 for number in ids):
        yield place, "ids that are not negative"


def _ctc_problems(manifest: Manifest, ctc: CtcInfo) -> Iterator[tuple[str, str]]:
    scores = next((spec for spec in manifest.outputs if spec.name == "logits"), None)
    if scores is None or len(scores.axes) != 3:
        yield "ctc", "an output logits of three axes"
    elif ctc.characters is not None and len(ctc.characters.tokens) != scores.axes[-1].maximum:
        yield "ctc.characters.tokens", f"as many as the last axis of logits, {scores.axes[-1].maximum}"
    if ctc.samples_per_step is not None and not 0 < ctc.samples_per_step < 2**31:
        yield "ctc.samples_per_step", "a number of samples from 1"


def _preprocessing_problems(found: Preprocessing, inputs: set[str]) -> Iterator[tuple[str, str]]:
    names = tuple(axis.name for axis in found.axes)
    if names != PREPROCESSED_AXES[found.kind]:
        yield "preprocessing.axes", ", ".join(PREPROCESSED_AXES[found.kind])
    for axis in found.axes:
        if not 1 <= axis.minimum <= (axis.maximum or axis.minimum) or axis.multiple != 1:
            yield f"preprocessing.{axis.name} {axis.minimum}..{axis.maximum}", "a range from 1 on, without a step"
    if not found.inputs or len(set(found.inputs)) != len(found.inputs) or not inputs.issuperset(found.inputs):
        yield "preprocessing.inputs", "names of the model's inputs, each once"
    if (found.rate is None) != (found.kind == "image") or (found.rate is not None and not 0 < found.rate < 2**31):
        yield f"preprocessing.rate {found.rate}", "samples per second for sounds alone"


def _picture_problems(manifest: Manifest, found: PictureResults) -> Iterator[tuple[str, str]]:
    known = PICTURE_LOGITS.get(manifest.task)
    outputs = {spec.name: spec for spec in manifest.outputs}
    if known is None or known[0] not in outputs or len(outputs[known[0]].axes) <= known[1]:
        yield "pictures", f"a task with logits: {', '.join(PICTURE_LOGITS)}"
        return
    axis = outputs[known[0]].axes[known[1]]
    # One class of those of a query is that there is nothing.
    count = len(found.classes) + (known[1] == 2 and found.scores == "softmax")
    if axis.maximum != count or axis.minimum != count:
        yield "pictures.classes", f"as many as the logits' axis {axis.name}"
    if found.most is not None and not 0 < found.most < 2**31:
        yield f"pictures.most {found.most}", "a number from 1"
    size = found.mask_size
    if size is not None and (len(size) != 2 or not all(0 < side <= 2**13 for side in size)):
        yield "pictures.mask_size", "a height and a width, at most 8192"
    if manifest.task == "object-detection":
        boxes = outputs.get("pred_boxes")
        if boxes is None or len(boxes.axes) != 3 or boxes.axes[2].maximum != 4 or boxes.axes[2].minimum != 4:
            yield "pictures", "an output pred_boxes of four numbers"
    if manifest.task == "image-segmentation":
        masks = outputs.get("masks_queries_logits")
        if masks is None or len(masks.axes) != 4:
            yield "pictures", "an output masks_queries_logits"


def _generation_problems(manifest: Manifest, found: GenerationInfo) -> Iterator[tuple[str, str]]:
    if not 2 <= len(found.caches) <= MAX_CACHES or len(found.caches) % 2:
        yield f"generation.caches: {len(found.caches)} tensors", f"2 to {MAX_CACHES}, keys and values in turn"
    if not all(0 < size < 2**16 for one in found.caches for size in (one.heads, one.width)):
        yield "generation.caches", "heads and widths from 1 on"
    if not 0 < found.longest < 2**24:
        yield f"generation.longest {found.longest}", "a number of tokens from 1"
    if not all(0 <= number < 2**31 for number in found.stop_ids):
        yield "generation.stop_ids", "ids that are not negative"
    defaults = found.defaults
    if not (defaults.temperature > 0 and defaults.repetition_penalty > 0):
        yield "generation.defaults", "a temperature and a penalty above 0"
    if defaults.top_k is not None and not 0 <= defaults.top_k < 2**31:
        yield f"generation.defaults.top_k {defaults.top_k}", "a number of tokens"
    shares = (defaults.top_p, defaults.min_p, defaults.typical_p, defaults.epsilon_cutoff, defaults.eta_cutoff)
    if not all(share is None or 0 <= share <= 1 for share in shares):
        yield "generation.defaults", "shares from 0 to 1"
    values = manifest.inputs[0].values if manifest.inputs else None
    yield from _token_rule_problems(defaults.rules, 2**31 if values is None else values.maximum + 1)
    if not 1 <= defaults.beams.count <= MAX_BEAMS:
        yield f"generation.defaults.beams.count {defaults.beams.count}", f"1 to {MAX_BEAMS}"
    if found.chat is not None and len(found.chat.template) > MAX_TEMPLATE:
        yield f"generation.chat.template: {len(found.chat.template)} characters", f"at most {MAX_TEMPLATE}"


def _token_rule_problems(rules: TokenRules, vocabulary: int) -> Iterator[tuple[str, str]]:
    forced = () if rules.forced_bos_token_id is None else (rules.forced_bos_token_id,)
    ids = (*rules.forced_eos_token_ids, *rules.suppress_tokens, *rules.begin_suppress_tokens, *forced)
    if not all(0 <= one < vocabulary for one in (*ids, *(one for word in rules.bad_words_ids for one in word))):
        yield "generation.defaults.rules", f"ids from 0 to {vocabulary - 1}"
    if not all(rules.bad_words_ids):
        yield "generation.defaults.rules.bad_words_ids", "words of at least one token"
    numbers = (rules.no_repeat_ngram_size, rules.min_length, rules.min_new_tokens, rules.decay_start)
    if not all(0 <= one < 2**31 for one in numbers) or not rules.decay_factor > 0:
        yield "generation.defaults.rules", "numbers that are not negative"


def _prompt_problems(manifest: Manifest, found: PicturePrompts) -> Iterator[tuple[str, str]]:
    axes = {spec.name: [axis.name for axis in spec.axes] for spec in (*manifest.inputs, *manifest.outputs)}
    if axes.get("input_points", [])[:-1] != ["batch", "prompts", "points"] or axes.get("input_labels") != [
        "batch",
        "prompts",
        "points",
    ]:
        yield "prompts", "inputs input_points and input_labels along batch, prompts and points"
    masks, scores = axes.get("pred_masks", []), axes.get("iou_scores", [])
    if masks[:2] != ["batch", "prompts"] or len(masks) != 5 or scores != masks[:3]:
        yield "prompts", "outputs pred_masks and iou_scores along batch and prompts"
    if len(found.padded_size) != 2 or not all(
        0 < found.longest_side <= side <= MAX_PADDED_SIDE for side in found.padded_size
    ):
        yield "prompts.padded_size", f"a height and a width from longest_side to {MAX_PADDED_SIDE}"


def _tensor_problems(spec: TensorSpec) -> Iterator[tuple[str, str]]:
    if not spec.axes:
        yield f"{spec.name}.axes", "at least one axis"
    for axis in spec.axes:
        if axis.minimum < 1 or (axis.maximum is not None and axis.maximum < axis.minimum):
            yield f"{spec.name}.{axis.name} {axis.minimum}..{axis.maximum}", "a range from 1 on"
        most = axis.maximum
        if axis.multiple < 1 or (most is not None and most // axis.multiple * axis.multiple < axis.minimum):
            yield f"{spec.name}.{axis.name}: multiples of {axis.multiple}", "a step that leaves sizes within the range"
    values = spec.values
    if values is not None and (values.minimum > values.maximum or spec.dtype != "int64"):
        yield f"{spec.name}.values", "a range of integers, for an int64 input"
    if values is not None and spec.fill is not None and not values.minimum <= spec.fill <= values.maximum:
        yield f"{spec.name}.fill", "one of its values"
    if spec.required_token_id is not None and (
        values is None or not values.minimum <= spec.required_token_id <= values.maximum
    ):
        yield f"{spec.name}.required_token_id", "one of its values"
