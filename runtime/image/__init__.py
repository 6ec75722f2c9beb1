"""Pictures in, results of the task out, with the preprocessing and labels in the artifact; no transformers.

    session = runtime.load("model.pt")
    session.image.classify(["cat.jpg"])

The results equal those of transformers' pipelines for the same model. `api` has the public methods, `batched` runs the
model, and `pictures` is the only module that imports Pillow, which arrays of pixels do without.
"""

from runtime.image.api import Image
from runtime.image.results import Box, Detection, Masks, Segmentation

__all__ = ["Box", "Detection", "Image", "Masks", "Segmentation"]
