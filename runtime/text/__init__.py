"""Text in, results of the task out, with the tokenizer and labels in the artifact; no transformers.

    session = runtime.load("model.pt")
    session.text.classify(["How do I reset my password?"])

The results equal those of transformers' pipelines for the same model. `api` has the public methods, `batched` runs the
model on batches, `tokenizer` is the only module that imports the package tokenizers, and there is one module per task.
"""

from runtime.text.api import Text
from runtime.text.encoder import TextEncoder
from runtime.text.results import Answer, Candidate, Classification, Generated, Ranked, Tag

__all__ = ["Answer", "Candidate", "Classification", "Generated", "Ranked", "Tag", "Text", "TextEncoder"]
