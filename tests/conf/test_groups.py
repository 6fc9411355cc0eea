"""Every file of the configuration composes, instantiates, and says what it is."""

import inspect
import re
from pathlib import Path

import pytest
from composing import composed
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import OmegaConf

from lr_callbacks.app.assemble import (
    build_loggers,
    build_model,
    build_optimizer,
    build_schedule,
    build_trainer,
    make,
)
from lr_callbacks.app.versions import VERSION_BASE
from lr_callbacks.zoo.data import describe

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(path for path in CONF.rglob("*.yaml"))
OPTIONS = [(str(path.parent.relative_to(CONF)), path.stem) for path in FILES if path.parent != CONF]
PLAIN = [(g, option) for g, option in OPTIONS if not g.startswith(("hydra", "groups"))]
#: For other applications, under a name of their own; ours are made of them.
OFFERED = [(g, option) for g, option in OPTIONS if g.startswith("groups")]

#: Where the value of a file is meant to differ from the default in the code: that is its point.
MEANT = {
    ("data", "batch_size"),
    ("optimizer", "lr"),
    ("optimizer/momentum", "momentum"),
    ("optimizer/nesterov", "momentum"),
    ("optimizer/nesterov", "nesterov"),
    ("schedule/greedy", "monitor"),
    ("schedule/plateau", "interval"),
    ("schedule/plateau", "monitor"),
    ("schedule/warmup_cosine", "warm_up"),
    ("schedule/warmup_linear", "warm_up"),
    ("schedule/wsd", "warm_up"),
    ("logger/mlflow", "experiment_name"),
    ("logger/mlflow", "run_name"),
    ("logger/csv", "name"),
    ("logger/tensorboard", "name"),
    ("logger/tensorboard", "default_hp_metric"),
    ("callbacks/checkpoint", "dirpath"),
    ("callbacks/checkpoint", "monitor"),
    ("callbacks/checkpoint", "save_last"),
    ("trainer", "max_steps"),
    ("trainer", "enable_progress_bar"),
    ("trainer", "enable_model_summary"),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_a_file_opens_with_one_comment_line_that_says_what_it_selects(path):
    first, second = path.read_text().splitlines()[:2]
    told = second if first.startswith("# @package") else first
    assert re.fullmatch(r"# [A-Z].+\.|# .+; .+", told)


STEP = "torch.optim.lr_scheduler.StepLR"


def overrides(group, option):
    given = {
        "data=custom": ["data._target_=lr_callbacks.zoo.data.Bundled", "+data.name=digits"],
        "model=custom": ["model._target_=lr_callbacks.zoo.models.mlp"],
        "optimizer=custom": ["optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1"],
        "schedule=custom": [f"schedule._target_={STEP}", "+schedule.step_size=3"],
        "model=transformer": ["data=text"],
        "model=recurrent": ["data=text"],
        "data=text": ["model=transformer"],
        "model=cnn": ["data=digits"],
    }.get(f"{group}={option}", [])
    alone = [] if group == "logger" else ["logger=none"]
    return [f"{group}={option}", *given, *alone, "trainer.enable_progress_bar=false"]


@pytest.mark.parametrize(("group", "option"), PLAIN, ids=lambda value: value)
def test_an_option_composes_and_instantiates(group, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9" if "server" in option else "")
    monkeypatch.setenv("APPRISE_URLS", "json://127.0.0.1:9")  # of callbacks=alerts
    config = composed(*overrides(group, option), name="train")
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    build_optimizer(config.optimizer)
    build_schedule(config.schedule)
    callbacks = [make(node) for node in (config.callbacks or {}).values()]
    loggers = build_loggers(config)
    assert len(loggers) == len(config.logger or ())
    if group in ("model", "data", "experiment"):
        build_model(config, describe(make(config.data)))
    if "gpu" not in option:  # Lightning refuses a device that is not there
        build_trainer(config, callbacks, [])


def test_a_missing_gpu_is_said_by_lightning_in_words():
    config = composed("trainer=gpu", "logger=none")
    import torch

    if torch.cuda.is_available():
        build_trainer(config, [], [])
    else:
        with pytest.raises(Exception, match="No supported gpu backend found"):
            build_trainer(config, [], [])


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "slurm"])
def test_a_launcher_composes(launcher):
    composed(f"hydra/launcher={launcher}")


@pytest.mark.parametrize(
    "chosen", ["[guard,checkpoint,early_stopping]", "[none,bad_batch]", "[monitor,bad_batch]"]
)
def test_callbacks_are_combined_by_their_names(chosen):
    held = composed(f"callbacks={chosen}").callbacks
    named = [name for name in chosen.strip("[]").split(",") if name != "none"]
    expected = []
    for name in named:
        expected += ["adaptive", "report"] if name in ("guard", "monitor") else [name]
    assert list(held) == expected


def settings(node, place):
    """Every mapping with a target in a file, and the place it has there."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node, place
        for key, value in node.items():
            yield from settings(value, f"{place}.{key}")


def defaults(path):
    """The defaults of a target."""
    known = inspect.signature(get_object(path)).parameters
    return {k: p.default for k, p in known.items() if p.default is not p.empty}


@pytest.mark.parametrize(("group", "option"), PLAIN + OFFERED, ids=lambda value: value)
def test_a_value_in_a_file_is_the_default_in_the_code_unless_it_is_the_files_point(group, option):
    held = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))
    if group in ("experiment", "hparams_search"):
        return
    if group == "trainer" and option == "default":
        held["_target_"] = "pytorch_lightning.Trainer"
    group = group.removeprefix("groups/lr_callbacks/")
    different = []
    for node, _ in settings(held, group):
        if node["_target_"] == "???":
            continue
        known = defaults(node["_target_"])
        if group == "schedule":
            formula = "done" in inspect.signature(get_object(node["_target_"])).parameters
            factory = "schedules.Curve" if formula else "factories.ScheduleFactory"
            known = defaults(f"lr_callbacks.app.{factory}") | known
        for key, value in node.items():
            given = list(known[key]) if isinstance(known.get(key), tuple) else known.get(key)
            same = key not in known or isinstance(value, dict) or given == value
            if not same and not {(group, key), (f"{group}/{option}", key)} & MEANT:
                different.append((key, value, given))
    assert different == []


def test_another_application_finds_what_is_offered_and_nothing_else(tmp_path):
    (tmp_path / "main.yaml").write_text(
        "defaults:\n  - lr_callbacks/callbacks: guard\n  - lr_callbacks/logger: mlflow\n"
        "  - _self_\n"
        "hydra:\n  searchpath: [pkg://lr_callbacks.conf.groups]\n"
    )
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), **VERSION_BASE):
        found = compose("main", ["callbacks.adaptive.policy.cut=0.3", "logger.mlflow.strict=true"])
        for mistyped in ("model=cnn", "optimizer=sgd"):
            with pytest.raises(HydraException):
                compose("main", [mistyped])
    own = composed("callbacks=guard", "callbacks.adaptive.policy.cut=0.3")
    assert found.callbacks == own.callbacks
    assert set(found) == {"callbacks", "logger"}


def test_every_target_of_ours_has_its_schema():
    for path in FILES:
        held = OmegaConf.to_container(OmegaConf.load(path))
        for node, place in settings({"": held}, ""):
            target = node["_target_"].removeprefix("lr_callbacks.")
            if target == "???" or path.parent.parent.name == "hydra" or "optuna" in target:
                continue
            text = path.read_text()
            assert re.search(
                r"optional /hydra/lr_callbacks@\S+: [\w.]+|- mlflow|- /groups", text
            ), (
                path,
                place,
            )
