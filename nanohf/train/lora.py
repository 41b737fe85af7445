"""LoRA through peft: a stage trains small adapters instead of the model, and leaves a plain model behind."""

from peft import LoraConfig, PeftModel, get_peft_model


def with_lora(stage, model):
    """The model with adapters, all else frozen, if stage.use_peft; else the model itself. Before the optimizer is made.

    stage: use_peft, lora_r, lora_alpha, lora_dropout, lora_target_modules, under the names of TRL's ModelConfig.
    `all-linear` means attention's and the MLP's matrices, which in nanohf is every matrix but embedding and head: those
    two stay as they are, so LoRA teaches no new tokens. An adapter begins as 0, and works on matrices that are 0 too.

    Raises:
        ValueError: no module of the model has such a name (from peft).
    """
    if not stage.use_peft:
        return model
    targets = stage.lora_target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=stage.lora_r,
        lora_alpha=stage.lora_alpha,
        lora_dropout=stage.lora_dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
    )
    return get_peft_model(model, config)


def merged(model):
    """The plain model with its adapters added to the weights, in place; a model without adapters as it is."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model
