"""The depth-scaled GPT, registered so that Auto classes find it here and its code travels with every save."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration_nanohf import NanoHFConfig
from .modeling_nanohf import NanoHFForCausalLM, NanoHFModel

AutoConfig.register("nanohf", NanoHFConfig)
AutoModel.register(NanoHFConfig, NanoHFModel)
AutoModelForCausalLM.register(NanoHFConfig, NanoHFForCausalLM)

NanoHFConfig.register_for_auto_class()
NanoHFModel.register_for_auto_class("AutoModel")
NanoHFForCausalLM.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["NanoHFConfig", "NanoHFForCausalLM", "NanoHFModel"]
