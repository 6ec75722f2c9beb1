"""Text in, answers out, with the tokenizer and the labels that the artifact carries; no transformers.

    session = runtime.load("model.pt")
    session.text.classify(["How do I reset my password?"])

In: texts. Out: input tensors (`encode`), or the answers of the artifact's task, those that transformers' pipelines
give for the same model. Refuses (InputTextError) texts that do not fit, (InputTaskError) answers of another task.
`tokenizer` is the only module that imports `tokenizers`; `rows` runs the model; the others turn its scores into words.
"""

from runtime.text.api import Text
from runtime.text.encoder import TextEncoder
from runtime.text.results import Answer, Candidate, Classification, Tag

__all__ = ["Answer", "Candidate", "Classification", "Tag", "Text", "TextEncoder"]
