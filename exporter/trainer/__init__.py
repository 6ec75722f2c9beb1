"""jit mode for evaluation and prediction: with transformers' Trainer, in your own loop, or with a loaded artifact.

    trainer = JitTrainer(model, args, eval_dataset=data, jit_mode_eval=True, use_ipex=True)
    trainer.evaluate()

Training uses the model as it is. Needs the package accelerate, as transformers' Trainer does.
"""

from __future__ import annotations

from exporter.trainer.artifact_model import ArtifactModel
from exporter.trainer.evaluate import evaluate_rows
from exporter.trainer.jit import jit_model
from exporter.trainer.mixin import JitEvaluation, JitTrainer

__all__ = ["ArtifactModel", "JitEvaluation", "JitTrainer", "evaluate_rows", "jit_model"]
