"""Each mistake gets one sentence and an exit code, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import preloaded
import pytest

MISTAKES = [
    (["optimizer.lrr=0.1"], "unknown key `optimizer.lrr`; did you mean `optimizer.lr`?"),
    (["optimzer=sgd"], "unknown key `optimzer`; did you mean `optimizer`?"),
    (["bogus.thing=1"], "unknown key `bogus.thing`. The keys of the configuration are model, data"),
    (["+foo=1"], "unknown key `foo`; the keys are model, data"),
    (["optimizer=sdg"], "unknown option `optimizer=sdg`; did you mean `sgd`? The options of"),
    (["experiment=nothing"], "unknown option `experiment=nothing`. The options of `experiment`"),
    (["optimizer.lr=-1"], "`optimizer.lr` must be a positive finite number, got -1.0."),
    (["optimizer.lr=nan"], "`optimizer.lr` must be a positive finite number, got nan."),
    (["+optimizer.beta=1"], "unexpected keyword argument 'beta'"),
    (["seed=x"], "`seed` must be a whole number from 0 on, got 'x'."),
    (["trainer.max_steps=many"], "`trainer.max_steps` must be a whole number, got 'many'."),
    (["trainer.precision=17"], "Precision 17 is invalid"),
    (["data.batch_size=0"], "`data.batch_size` must be at least 1, got 0."),
    (["model=cnn", "data=text"], "model `cnn` needs images (channels, height, width)"),
    (["model=transformer", "data=digits"], "model `transformer` needs text, not numbers (data `di"),
    (["model=linear", "data=text"], "model `linear` needs numbers, not text"),
    (["callbacks.adaptive.policy.cut=2"], "`cut` must be between 0 and 1, got 2."),
    (
        ["logger.mlflow.tracking_uri=ftp://there"],
        "`tracking_uri` must be sqlite:///PATH, http(s)://HOST",
    ),
    (
        ["logger.mlflow.tracking_uri=sqlite:////proc/no/mlflow.db"],
        "must name a file that can be written",
    ),
    (["optimizer.lr"], "missing EQUAL"),
]

RUNNER = """
import os, sys
from lr_callbacks.app.train import main
for arguments in {cases!r}:
    sys.argv = ["lr-train", "trainer.max_steps=1", "trainer.enable_progress_bar=false", *arguments]
    os.environ.pop("HYDRA_FULL_ERROR", None)
    os.environ.pop("LR_TRAIN_FULL_ERROR", None)
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    print("ANSWER", repr(code), flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What the command says to each mistake; one process, for the imports take seconds."""
    code = RUNNER.format(cases=[arguments for arguments, _ in MISTAKES])
    told = preloaded.run(
        "-c",
        code,
        cwd=tmp_path_factory.mktemp("mistakes"),
        env={k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"},
    )
    lines = [line for line in told.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(lines) == len(MISTAKES), told.stderr
    assert "Traceback" not in told.stderr
    return [eval(line.removeprefix("ANSWER ")) for line in lines]


@pytest.mark.parametrize("index", range(len(MISTAKES)), ids=lambda i: " ".join(MISTAKES[i][0]))
def test_a_mistake_gets_one_sentence(answers, index):
    said = answers[index]
    assert isinstance(said, str)  # `sys.exit` of a text prints it and exits with 1
    assert said.startswith("lr-train: ")
    assert MISTAKES[index][1] in said
    assert "\n" not in said


def test_the_command_exits_with_1_and_prints_nothing_but_the_sentence(tmp_path):
    told = subprocess.run(
        [Path(sys.executable).parent / "lr-train", "optimizer.lr=-1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert told.returncode == 1
    assert told.stderr == "lr-train: `optimizer.lr` must be a positive finite number, got -1.0.\n"
