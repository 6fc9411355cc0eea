"""Forty bad inputs: each gets one sentence that says what to do, and exit code 1.

All run in one process, as the imports take seconds; `test_errors.py` has the most usual ones.
"""

# ruff: noqa: E501 - a row of the table is a line

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import preloaded
import pytest

from lr_callbacks.cli import main

FILES = {
    "before.yaml": "resume: true\n",
    "typo.yaml": "optimizer:\n  lrr: 0.1\n",
    "group.yaml": "optimiser:\n  lr: 0.1\n",
    "type.yaml": "trainer:\n  max_steps: many\n",
    "option.yaml": "defaults:\n  - override /schedule: cosin\n",
    "broken.yaml": "optimizer: {lr: 0.1\n",
    "nested.yaml": "callbacks:\n  adaptive:\n    policy:\n      cutt: 0.5\n",
}
OWN = "data._target_"
DATA = ["data=custom", f"{OWN}=pytorch_lightning.demos.boring_classes.BoringDataModule"]

BAD = {
    "typos in a file": [
        (["experiment=typo"], "experiment/typo.yaml: unknown key `optimizer.lrr`; did you mean `op"),
        (["experiment=group"], "experiment/group.yaml: unknown key `optimiser`; did you mean `optim"),
        (["experiment=type"], "experiment/type.yaml: `trainer.max_steps` must be a whole number"),
        (["experiment=option"], "unknown option `schedule=cosin`; did you mean `cosine`?"),
        (["experiment=broken"], "broken.yaml, line 3: this is no valid YAML: "),
        (["experiment=nested"], "`callbacks.adaptive.policy.cutt`; did you mean `callbacks.adaptive"),
    ],
    "typos on the command line": [
        (["schedule.finale=0.1"], "unknown key `schedule.finale`; did you mean `schedule.final`?"),
        (["trainer.max_stepps=5"], "did you mean `trainer.max_steps`?"),
        (["callbacks=[guard,chekpoint]"], "unknown option `callbacks=chekpoint`; did you mean `check"),
        (["data.name=digit"], "`data.name` must be one of breast_cancer, diabetes, digits, gaussian"),
        (["schedule=constant", "schedule.drops=2"], "The keys of `schedule` are interval, frequency"),
        (["optimizer.lr=[0.1"], "write KEY=VALUE, or 'KEY=[A,B]' in quotes"),
        (["optimizer=null"], "a group takes the name of an option or a list of them; `~group` skip"),
        (["~optimizer"], "`optimizer` must be chosen: say optimizer=OPTION."),
    ],
    "wrong types and ranges": [
        (["model.width=wide"], "`model.width` must be a whole number, got 'wide'."),
        (["model.depth=-3"], "`model.depth` must be at least 1, got -3."),
        (["fail_on_divergence=perhaps"], "`fail_on_divergence` must be true or false, got 'perhaps'."),
        (["schedule=multistep", "schedule.milestones=0.5"], "must be a list, as [0.1, 0.2]"),
        (["schedule.warm_up=1.5"], "`schedule.warm_up` must be at least 0 and below 1, got 1.5."),
        (["optimizer.momentum=-1"], "optimizer SGD: Invalid momentum value: -1.0"),
        (["callbacks.adaptive.policy.cut=null"], "`callbacks.adaptive.policy.cut` must have a value"),
        (["callbacks.adaptive.read_every=0"], "`read_every` must be at least 1 step, got 0."),
        (["penalty=nan"], "`penalty` must be a finite number, got nan."),
        (["trainer.devices=0"], "`Trainer(devices=0)` value is not a valid input"),
    ],
    "impossible combinations": [
        (["callbacks=[monitor,guard]"], "two options of `callbacks` both set `callbacks.adaptive.pol"),
        (["model=cnn", "data=diabetes"], "model `cnn` needs images (channels, height, width), not"),
        (["model=transformer", "data=text", "model.heads=7"], "`model.heads` must be a divisor of mod"),
        (["callbacks=[checkpoint]", "trainer.enable_checkpointing=false"], "enable_checkpointing=Fal"),
        (["-m", "trainer=ddp"], "starts processes of its own, which Hydra's sweeps do not support"),
        (["-m", "skip_finished=true", "logger=none"], "`skip_finished=true` needs a record of the jobs"),
        (["callbacks=[bad_batch]", "callbacks.bad_batch.at=0", "model=recurrent", "data=text"],
         "`callbacks=bad_batch` needs inputs that are numbers, not text."),
        (["callbacks=[early_stopping]", "callbacks.early_stopping.monitor=val/bogus",
          "trainer.max_steps=20"], "`val/bogus` which is not available. Pass in or modify your"),
    ],
    "one's own parts": [
        (["data=custom"], "`data._target_` must be given: say data._target_=VALUE."),
        (["data=custom", f"{OWN}=my.Data"], "there is no `my.Data` to import; name it as package."),
        (["data=custom", f"{OWN}=torch.nn.ReLU"], "`data` must be a LightningDataModule, got ReLU."),
        ([*DATA, "trainer.max_steps=-1"], "nothing says how long the training takes: say trainer.max_ep"),
        (["optimizer._target_=torch.optim.AdamW"], "unexpected keyword argument 'momentum'; see optimizer=cus"),
        (["optimizer=custom", "optimizer._target_=torch.optim.SGD"], "`optimizer.lr` must be given: say"),
        (["schedule._target_=torch.optim.lr_scheduler.StepLR"], "'horizon'; see schedule=custom"),
        (["schedule=custom", "schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"],
         "follows a metric: say schedule.monitor=val/loss."),
        (["model=custom", "model._target_=pytorch_lightning.demos.boring_classes.BoringModel"],
         "`model` must be a torch.nn.Module without a training of its own, got BoringModel"),
    ],
    "files, places, servers": [
        (["--config-dir", "/nothere"], "Additional config directory '/nothere' not found"),
        (["--config-name", "bogus"], "Cannot find primary config 'bogus'."),
        (["hydra.run.dir=/proc/no"], "/proc/no: No such file or directory; name a place that can be"),
        (["logger.mlflow.journal_dir=/proc/no"], "/proc/no"),
        (["ckpt_path=no.ckpt"], '`ckpt_path` must be a checkpoint that exists, or "last", got'),
        (["logger=csv", "logger.csv.save_dir=/proc/no"], "/proc/no"),
        (["-m", "skip_finished=true", "logger.mlflow.tracking_uri=http://127.0.0.1:9"], "cannot ask MLf"),
    ],
    "names of before": [
        (["resume=true"], "`resume` is `skip_finished` now."),
        (["logger.tracking_uri=x"], "`logger.tracking_uri` is `logger.mlflow.tracking_uri` now."),
        (["+logger.log_model=true"], "`logger.log_model` is `logger.mlflow.log_model` now."),
        (["experiment=before"], "experiment/before.yaml: `resume` is `skip_finished` now."),
    ],
    "missing packages": [
        (["HIDE=prodigyopt", "optimizer=prodigy"], "pip install 'lr-callbacks[optimizers]'"),
        (["HIDE=schedulefree", "optimizer=schedule_free_sgd"], "'lr-callbacks[optimizers]'"),
        *([] if importlib.util.find_spec("ray") else [
            (["-m", "hydra/launcher=ray"], "needs another package: pip install 'lr-callbacks[ray]'."),
        ]),
    ],
}  # fmt: skip
CASES = [case for cases in BAD.values() for case in cases]

RUNNER = """
import os, sys
from lr_callbacks.app.train import main
for arguments in {cases!r}:
    hidden = [a[5:] for a in arguments if a.startswith("HIDE=")]
    kept = {{name: sys.modules.get(name) for name in hidden}}
    sys.modules.update(dict.fromkeys(hidden))
    short = ["trainer.enable_progress_bar=false"]
    short += [] if any("max_st" in a for a in arguments) else ["trainer.max_steps=1"]
    sys.argv = ["lr-train", *(a for a in arguments if not a.startswith("HIDE=")), *short]
    os.environ.pop("HYDRA_FULL_ERROR", None)
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    for name, module in kept.items():
        del sys.modules[name]
        sys.modules.update({{name: module}} if module else {{}})
    print("ANSWER", repr(code), flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "own" / "experiment").mkdir(parents=True)
    for name, text in FILES.items():
        (folder / "own" / "experiment" / name).write_text(f"# @package _global_\n{text}")
    own = ["--config-dir", str(folder / "own")]
    cases = [
        arguments if "--config-dir" in arguments else [*own, *arguments] for arguments, _ in CASES
    ]
    told = preloaded.run(
        "-c",
        RUNNER.format(cases=cases),
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"},
    )
    lines = [line for line in told.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(lines) == len(CASES), told.stderr[-3000:]
    return [eval(line.removeprefix("ANSWER ")) for line in lines]


def test_there_are_forty():
    assert len(CASES) >= 40


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: " ".join(CASES[i][0]))
def test_a_bad_input_gets_one_sentence_that_says_what_to_do(answers, index):
    said = answers[index]
    assert isinstance(said, str), said  # `sys.exit` of a text prints it and exits with 1
    assert said.startswith("lr-train: ")
    assert CASES[index][1] in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sink"], "invalid choice: 'sink'"),
        (["sync", "/nothere"], "/nothere is not a folder"),
        (["ui", "--port", "many"], "invalid int value: 'many'"),
        ([], "the following arguments are required: command"),
    ],
)
def test_wrong_usage_of_the_second_command_is_told_with_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_an_old_python_is_refused_before_anything_is_installed(tmp_path):
    old = tmp_path / "python3"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10, 0); '
        'exec(sys.argv[2])" "$@"\n'
    )
    old.chmod(0o755)
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [
            "make",
            "-C",
            root,
            f"PYTHON={old}",
            f"VENV={tmp_path}/venv",
            f"{tmp_path}/venv/bin/python",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode != 0
    assert "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." in told.stderr
    assert not (tmp_path / "venv").exists()
