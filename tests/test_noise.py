"""What other packages print that no user can act on stays off the screen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from conftest import run_python

from exporter import ExportRequest, export
from runtime import environment
from runtime.torchscript import filtered

SPEECH = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (10, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
}


@pytest.mark.skipif(environment.ipex_problem(environment.detect()) is not None, reason="no IPEX")
@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_a_speech_model_through_ipex(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """At every one-dimensional convolution IPEX speaks of its own next release, seven times at a load."""
    torch.manual_seed(2)
    config = transformers.AutoConfig.for_model(kind, **SPEECH)
    transformers.AutoModelForAudioClassification.from_config(config).save_pretrained(tmp_path / "model")
    capfd.readouterr()
    request = ExportRequest(str(tmp_path / "model"), tmp_path / "m.pt", backend="ipex", tune="off", verify="off")
    export(request)
    assert capfd.readouterr().err == ""
    # In a process without the settings of these tests.
    code = "import runtime, sys; session = runtime.load(sys.argv[1]); print(session.manifest.backend)"
    done = run_python(code, tmp_path / "m.pt")
    assert (done.stdout, done.stderr) == ("ipex\n", "")


def test_what_a_filtered_call_raises_comes_through() -> None:
    for error in (KeyError("none"), KeyboardInterrupt()):

        def fails(raised: BaseException = error) -> None:
            raise raised

        with pytest.raises(type(error)):
            filtered(fails)
    assert filtered(lambda: "an answer") == "an answer"
