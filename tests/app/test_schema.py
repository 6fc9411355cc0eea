"""The schemas: made from signatures, picklable, unseen by other applications."""

import pickle
import subprocess
import sys

import pytest
from composing import composed
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lr_callbacks.app import schema


def test_every_schema_is_registered_with_the_defaults_of_what_it_describes():
    held = OmegaConf.structured(schema.schema("lr_callbacks.Guard"))
    assert held.cut == 0.5
    assert held._target_ == "lr_callbacks.Guard"
    with pytest.raises(OmegaConfBaseException, match="not be converted to Float"):
        held.cut = "half"
    with pytest.raises(OmegaConfBaseException, match="cutt"):
        held.cutt = 0.5


def test_a_composed_configuration_survives_pickling_with_its_types():
    config = pickle.loads(pickle.dumps(composed("optimizer=adam")))
    with pytest.raises(OmegaConfBaseException, match="could not be converted"):
        config.optimizer.lr = "fast"


def test_all_that_a_target_takes_may_be_set_without_a_plus():
    config = composed("optimizer=adam", "optimizer.amsgrad=true", "trainer.min_steps=3")
    assert (config.optimizer.amsgrad, config.trainer.min_steps) == (True, 3)


def test_parts_of_ones_own_are_not_held_to_a_schema():
    config = composed("data=custom", "data._target_=my.Data", "+data.root=/data", "+data.fold=3")
    assert config.data == {"_target_": "my.Data", "root": "/data", "fold": 3}


def test_an_application_that_does_not_know_the_schemas_composes_the_same_options():
    code = (
        "import sys; from hydra import compose, initialize_config_module\n"
        "with initialize_config_module('lr_callbacks.conf', version_base='1.3'):\n"
        "    config = compose('train', ['optimizer=adam'])\n"
        "print(config.optimizer.lr, config.callbacks.adaptive.policy.cut)\n"
        "sys.exit('lr_callbacks.app.schema' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "0.001 0.5\n")
