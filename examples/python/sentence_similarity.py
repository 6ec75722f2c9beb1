"""Embed sentences with an exported model and print how similar they are.

Usage: python sentence_similarity.py model.pt

Needs torch, safetensors and tokenizers. transformers is made impossible to import here, to show that nothing asks
for it.
"""

import sys

# An entry of None makes `import transformers` fail, here and in every package that is imported.
sys.modules["transformers"] = None  # type: ignore[assignment]

import runtime  # noqa: E402 (the block above has to come first)

SENTENCES = [
    "How do I reset my password?",
    "I forgot the password of my account.",
    "The bakery sells bread from six in the morning.",
    "Interest rates rose by half a percent.",
]


def main(path: str) -> None:
    session = runtime.load(path)
    vectors = session(**session.text.encode(SENTENCES))["sentence_embedding"]
    similarities = vectors @ vectors.T

    print(f"{path} in a process without transformers:\n")
    for number, sentence in enumerate(SENTENCES):
        row = "  ".join(f"{value:5.2f}" for value in similarities[number].tolist())
        print(f"  {number + 1}  {row}   {sentence}")
    related = similarities[0, 1]
    others = max(similarities[i, j] for i in range(4) for j in range(i) if (j, i) != (0, 1))
    print(f"\nrelated pair 1-2: {related:.2f}; the closest other pair: {others:.2f}")
    if related <= others:
        sys.exit("the related pair should have been the closest")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
