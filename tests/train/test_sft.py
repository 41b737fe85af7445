"""What SFT really trains on: the labels of the batches that the stage's own settings give the trainer."""

from pathlib import Path

import pytest
from trl import SFTTrainer

from nanohf.data.chat_source import ChatSource
from nanohf.data.mixture import mixture
from nanohf.errors import RecipeError
from nanohf.recipe.loading import load_recipe
from nanohf.stages import sft
from nanohf.train.trl_arguments import training_arguments

RECIPE = Path(__file__).parents[2] / "recipes/demo/sft.yaml"
SOURCES = [
    ChatSource("builtin", "gsm8k", "problems", rows=20),
    ChatSource("builtin", "messages", "conversations", rows=20),
    ChatSource("builtin", "document", rows=10),
]


def trainer_of(model, tokenizer, tmp_path, *overrides) -> SFTTrainer:
    args = training_arguments(load_recipe("sft", ["--config", str(RECIPE), *overrides]), "unused")
    args.output_dir = str(tmp_path)
    rows, _ = mixture(tokenizer, SOURCES, args)
    args.assistant_only_loss = False
    return SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)


def test_only_the_assistants_own_tokens_are_trained(model, tokenizer, tmp_path):
    """In packed rows: each label is its token where an assistant speaks or calls, or in a document; else -100."""
    trained, documents = set(), 0
    for batch in trainer_of(model, tokenizer, tmp_path).get_train_dataloader():
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        names = tokenizer.convert_ids_to_tokens(ids)
        speaking = output = document = False
        for i, name in enumerate(names):
            if name == "<|bos|>":
                document = names[i + 1] != "<|user_start|>"
                documents += document
                continue  # predicted from nothing, whatever its label
            if name == "<|output_start|>":
                output = True
            expected = document or (speaking and not output)
            assert labels[i] == (ids[i] if expected else -100), (name, expected)
            trained |= {name} if labels[i] != -100 else set()
            if name == "<|assistant_start|>":
                speaking = True
            elif name == "<|assistant_end|>":
                speaking = False
            elif name == "<|output_end|>":
                output = False
    assert documents == 10
    assert trained >= {"<|assistant_end|>", "<|python_start|>", "<|python_end|>"}
    assert not trained & {"<|user_start|>", "<|user_end|>", "<|output_start|>", "<|output_end|>", "<|bos|>"}


def test_the_trainers_loss_is_the_models(model, tokenizer, tmp_path):
    """TRL computes the loss from the last hidden state and the head; with the softcap and packing it must agree."""
    trainer = trainer_of(model, tokenizer, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(model, dict(batch))
    inputs = {key: batch[key] for key in ("input_ids", "position_ids", "labels")}
    assert abs(theirs.item() - model(**inputs, use_cache=False).loss.item()) < 1e-4


def test_a_model_of_another_architecture_is_refused(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"model_type": "nanohf"', '"model_type": "llama"'))
    with pytest.raises(RecipeError, match="is a llama model, not nanohf"):
        sft.starting_model(str(tmp_path))


def test_packed_documents_do_not_see_each_other(model, tokenizer, tmp_path):
    """Changing the first document of a packed row leaves the logits of the second as they were."""
    batch = next(iter(trainer_of(model, tokenizer, tmp_path).get_train_dataloader()))
    ids, positions = batch["input_ids"], batch["position_ids"]
    border = (positions[0, 1:] == 0).nonzero()[0].item() + 1
    changed = ids.clone()
    changed[0, 1:border] = 20
    before = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, border:]
    after = model(input_ids=changed, position_ids=positions, use_cache=False).logits[0, border:]
    assert (before - after).abs().max() < 1e-5


CHAT = "{dataset: builtin, config: problems, rows: 5, converter: gsm8k}"
DOCUMENTS = "{dataset: builtin, converter: document, share: %s}"


@pytest.mark.parametrize(
    ("mixture", "held_out", "more", "says"),
    [
        (DOCUMENTS % 0.5, CHAT, "", "mixture has documents only; add at least one source of conversations"),
        (f"{CHAT}, {DOCUMENTS % 0.5}, {DOCUMENTS % 0.6}", CHAT, "", "documents add up to 1.1; leave room below 1"),
        (CHAT, f"{CHAT}, {DOCUMENTS % 0.5}", "", "eval_mixture: a share has no meaning there"),
        (f"{CHAT}, {DOCUMENTS % 20}", CHAT, "", "share=20 must be between 0 and 1"),
        (CHAT, CHAT, "truncation_mode: keep_end", "truncation_mode: leave it out"),
        (CHAT, CHAT, "lora_r: 0", "lora_r=0 must be at least 1"),
        (CHAT, CHAT, "lora_target_modules: all-linear", "must be a list, such as [all-linear]"),
    ],
)
def test_a_recipe_that_cannot_be_meant(tmp_path, mixture, held_out, more, says):
    path = tmp_path / "sft.yaml"
    path.write_text(f"stage: sft\nmixture: [{mixture}]\neval_mixture: [{held_out}]\n{more}\n")
    with pytest.raises(RecipeError) as error:
        load_recipe("sft", ["--config", str(path)])
    assert says in str(error.value)
