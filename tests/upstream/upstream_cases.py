"""What transformers' common tests ask of a model, for both presets. Copied beside them by run_upstream.py."""

import unittest

import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask
from tests.test_training_mixin import TrainingTesterMixin
from transformers.testing_utils import torch_device

from nanohf.model import NanoHFConfig, NanoHFForCausalLM, NanoHFModel


class Tester:
    """A tiny model and its inputs, under the names that the mixins read."""

    config_class, base_model_class, causal_lm_class = NanoHFConfig, NanoHFModel, NanoHFForCausalLM
    batch_size, seq_length, is_training = 3, 7, True
    vocab_size, hidden_size, num_hidden_layers, num_attention_heads = 99, 64, 2, 2
    intermediate_size = 4 * hidden_size

    def __init__(self, parent, preset: str):
        self.parent, self.preset = parent, preset

    def get_config(self) -> NanoHFConfig:
        shape = {"hidden_size": self.hidden_size, "num_attention_heads": self.num_attention_heads}
        tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        return NanoHFConfig.from_depth(self.num_hidden_layers, self.vocab_size, self.preset, **shape, **tokens)

    def prepare_config_and_inputs_for_common(self):
        ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size).to(torch_device)
        mask = random_attention_mask([self.batch_size, self.seq_length]).to(torch_device)
        mask[:, :] = torch.ones_like(mask)
        return self.get_config(), {"input_ids": ids, "attention_mask": mask}

    prepare_config_and_inputs = prepare_config_and_inputs_for_common


class Common(ModelTesterMixin, TrainingTesterMixin):
    preset: str
    all_model_classes = (NanoHFModel, NanoHFForCausalLM)

    def setUp(self):
        self.model_tester = Tester(self, self.preset)
        self.config_tester = ConfigTester(self, config_class=NanoHFConfig, hidden_size=64, num_attention_heads=2)

    def test_config(self):
        self.config_tester.run_common_tests()


class ClassicTest(Common, unittest.TestCase):
    preset = "classic"


class ModernTest(Common, unittest.TestCase):
    preset = "modern"
