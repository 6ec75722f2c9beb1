"""Talk with a model that export-model wrote, in the terminal.

    python examples/python/chat.py model.pt

Each turn goes through the model's chat template with all turns before it. An empty line ends the conversation.
"""

import sys

import runtime


def main() -> int:
    session = runtime.load(sys.argv[1])
    messages = []
    while question := input("> ").strip():
        messages.append({"role": "user", "content": question})
        stream = session.text.generate(messages, stream=True)
        for piece in stream:
            print(piece, end="", flush=True)
        print()
        messages.append({"role": "assistant", "content": stream.result.text})
    return 0


if __name__ == "__main__":
    sys.exit(main())
