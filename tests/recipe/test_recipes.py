"""Every shipped recipe is sound, and what a user can get wrong ends in a message that helps."""

from pathlib import Path

import pytest
import yaml

from nanohf.cli import main
from nanohf.errors import RecipeError
from nanohf.pipeline import MODULES
from nanohf.recipe.loading import LISTS, load_recipe, read
from nanohf.recipe.recipe_folder import find_recipe_folder, stage_arguments
from nanohf.recipe.stage_names import STAGES
from nanohf.train.trl_arguments import training_arguments

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))


def test_all_recipes_are_there():
    folders = {path.parent.name for path in RECIPES}
    assert folders == {"base", "demo", "d1", "d2", "d3", "d4", "d12", "d20"}
    names = (*STAGES, "grpo_fast")
    assert {(path.parent.name, path.stem) for path in RECIPES} == {(f, s) for f in folders for s in names}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_recipe_parses_and_every_key_means_something(path):
    recipe = load_recipe(path.stem.partition("_")[0], ["--config", str(path)])
    written, _ = read(path)
    for key, value in written.items():
        holder = recipe.settings if hasattr(recipe.settings, key) else recipe.trl
        if key not in LISTS:
            assert getattr(holder, key) == value, key
    if recipe.trl:
        args = training_arguments(recipe, str(recipe.run_dir))
        assert args.per_device_train_batch_size == recipe.trl.per_device_train_batch_size


@pytest.mark.parametrize("name", ["demo", "d1", "d2", "d3", "d4", "d12", "d20"])
def test_the_sizes_are_those_the_recipes_speak_of(name):
    from nanohf.scaling.parameters import parameters

    tok = load_recipe("tokenizer", ["--config", str(ROOT / f"recipes/{name}/tokenizer.yaml")]).settings
    pre = load_recipe("pretrain", ["--config", str(ROOT / f"recipes/{name}/pretrain.yaml")]).settings
    total = {
        "demo": 655_360, "d1": 1_622_016, "d2": 1_179_700, "d3": 6_045_696,
        "d4": 7_340_136, "d12": 135_266_304, "d20": 560_988_160,
    }  # fmt: skip
    assert parameters(pre.depth, tok.vocab_size, pre.preset, pre.num_attention_heads).total == total[name]
    if name != "demo":
        row = next(line for line in (ROOT / "README.md").read_text().splitlines() if f"`recipes/{name}` |" in line)
        assert f"| {total[name]:,} | {tok.vocab_size:,} |" in row


@pytest.mark.parametrize("name", ["demo", "d1", "d2", "d3", "d4", "d12", "d20"])
def test_text_is_scored_in_rows_as_long_as_pretrainings(name):
    folder = ROOT / "recipes" / name
    pre = load_recipe("pretrain", ["--config", str(folder / "pretrain.yaml")]).settings
    evaluate = load_recipe("evaluate", ["--config", str(folder / "evaluate.yaml")]).settings
    assert evaluate.max_length == pre.max_length


SFT = """
stage: sft
mixture: [{dataset: builtin, config: problems, rows: 5, converter: gsm8k}]
eval_mixture: [{dataset: builtin, config: problems, rows: 7, converter: gsm8k}]
conversations_per_step: 8
"""


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A copy of the demo recipes in an empty working directory."""
    import shutil

    shutil.copytree(ROOT / "recipes/demo", tmp_path / "recipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank/text.jsonl").write_text('{"text": "  "}\n' * 200)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "pretrain.dpeth=3"], ["dpeth", "Did you mean 'depth'?"]),
        (["--set", "grpo.num_generation=4"], ["num_generation", "Did you mean 'num_generations'?"]),
        (["--set", "pretrian.depth=3"], ["pretrian", "Did you mean 'pretrain'?"]),
        (["--from", "pretain"], ["pretain", "Did you mean 'pretrain'?"]),
        (["--until", "rlhf"], ["rlhf", "tokenizer, pretrain, midtrain, sft, grpo, evaluate"]),
        (["--from", "sft", "--until", "pretrain"], ["--from sft", "--until pretrain"]),
        (["--set", "tokenizer.vocab_size=100"], ["vocab_size=100", "9 special tokens", "320"]),
        (["--set", "tokenizer.vocab_size=1000"], ["multiple of 64", "1,024"]),
        (["--set", "pretrain.depth=two"], ["depth='two' must be a whole number"]),
        (["--set", "pretrain.batch_tokens=5000"], ["batch_tokens=5,000", "4,096", "Try 4,096"]),
        (["--set", "pretrain.dataset=./nowhere"], ["./nowhere", "no such file or folder"]),
        (["--set", "pretrain.dataset=./empty"], ["./empty", "no data files"]),
        (["--set", "pretrain.dataset=./blank"], ["./blank", "text"]),
        (["--set", "pretrain.depth"], ["STAGE.KEY=VALUE"]),
        (
            ["--set", "grpo.num_generations=5"],
            ["num_generations=5 = 80 rows", "Try 64, or per_device_train_batch_size=40"],
        ),
        (["--set", "sft.gradient_accumulation_steps=4"], ["leave it out", "Write the batch", "batch_tokens"]),
        (["--set", "grpo.gradient_accumulation_steps=4"], ["leave it out", "Write the batch", "problems_per_step"]),
        (["--set", "sft.packing=false"], ["batch_tokens=8,192 does nothing", "conversations_per_step is missing"]),
        (["--accelerate-config", "nope.yaml"], ["nope.yaml"]),
        (["--name", "../elsewhere"], ["../elsewhere", "plain name"]),
        (["--set", "evaluate.tasks=nanohf_gms8k"], ["nanohf_gms8k", "nanohf_gsm8k"]),
        (["--set", "evaluate.stages=tokenizer"], ["tokenizer", "pretrain, midtrain, sft and grpo"]),
        (["--set", "evaluate.limit=0"], ["limit=0", "at least 1"]),
        (["--set", "evaluate.text_dataset=./nowhere"], ["./nowhere", "no such file or folder"]),
        (["--set", "grpo=grpo_fst"], ["grpo_fst.yaml cannot be read"]),
        (["--set", "grpo="], ["STAGE=RECIPE"]),
        (["--set", "grpo.skip_settled=1"], ["skip_settled=1 ", "from 0 to below 1"]),
        (["--set", "grpo.num_iterations=2"], ["save_steps=25", "multiple of 2", "Try 24"]),
        (["--set", "grpo.use_vllm=true"], ["use_vllm needs"]),
        (["--set", "grpo.top_p=0.9", "--set", "grpo.min_p=0.1"], ["top_p, min_p", "temperature and top_k only"]),
        (["--set", "pretrain.num_attention_heads=5"], ["num_attention_heads=5", "hidden_size=128"]),
        (["--set", "pretrain.max_grad_norm=-1"], ["max_grad_norm=-1 must be at least 0"]),
        (["--set", "pretrain.warmup_steps=-5"], ["warmup_steps=-5 must be at least 0"]),
        (["--set", "pretrain.normuon=1"], ["normuon=1 must be from 0 to below 1"]),
        (["--set", "grpo.top_k=-1"], ["top_k=-1 must be at least 0"]),
        (["--set", "evaluate.temperature=-1"], ["temperature=-1 must be at least 0"]),
        (["--set", "grpo.eval_every=0"], ["eval_every=0", "at least 1"]),
        (["--set", "grpo.dataset_config=nonsense"], ["nonsense", "problems"]),
        (["--set", "sft.output_dir=elsewhere"], ["output_dir: leave it out, a stage writes run_dir/STAGE"]),
        (["--set", "grpo.learning_rate=0.1"], ["learning_rate", "lr_scale"]),
        (["--set", "grpo.optimizer=trl"], ["lr_scale=0.07 does nothing with optimizer: trl", "(default: 1.0)"]),
        (["--set", "sft.lr_scale=-1"], ["lr_scale=-1 must be at least 0"]),
        (["--set", "sft.lora_r=4"], ["lora_r=4 does nothing without use_peft: true"]),
        (["--set", "pretrain.report_to=wandb"], ["wandb", "not installed"]),
    ],
)
def test_a_mistake_ends_in_a_message_and_status_2_before_any_work(workspace, capsys, arguments, says):
    assert main(["run", "recipe", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    for words in says:
        assert words in error
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: (d / "sft.yaml").unlink(), "sft.yaml cannot be read: No such file"),
        (lambda d: (d / "sft.yaml").write_text("a: [1"), "sft.yaml is not valid YAML"),
        (lambda d: (d / "sft.yaml").write_text("- 1"), "must map keys to values"),
        (lambda d: (d / "sft.yaml").write_text("stage: sft"), "mixture is empty"),
        (lambda d: (d / "sft.yaml").write_text("mixture: builtin"), "mixture='builtin' must be a list"),
        (lambda d: (d / "pretrain.yaml").write_text("depth: 2.5"), "depth=2.5 must be a whole number"),
        (
            lambda d: (d / "pretrain.yaml").write_text("tokens_per_parameter: 0"),
            "tokens_per_parameter=0 must be above 0",
        ),
        (
            lambda d: (d / "sft.yaml").write_text(SFT + "max_length: 64.5"),
            "max_length=64.5 must be a whole number",
        ),
        (lambda d: (d / "sft.yaml").write_text(SFT.replace("rows: 5, ", "")), "set rows"),
        (lambda d: (d / "sft.yaml").write_text(SFT.replace("builtin, config: problems, rows: 7", "./no")), "./no"),
        (lambda d: (d / "sft.yaml").write_text("stage: sft\nmixture: [{dataset: x/y, converter: gsm9k}]"), "gsm9k"),
    ],
)
def test_a_broken_recipe_file(workspace, capsys, change, says):
    change(workspace / "recipe")
    assert main(["run", "recipe"]) == 2
    assert says in capsys.readouterr().err


def test_what_the_launched_processes_cannot_share_is_said_before_any_work(workspace, capsys):
    (workspace / "eight.yaml").write_text("num_processes: 8\n")
    assert main(["run", "recipe", "--accelerate-config", "eight.yaml"]) == 2
    error = capsys.readouterr().err
    assert "pretrain.yaml: batch_tokens=8,192 is not a multiple of 16 rows x 256 tokens x 8 processes = 32,768" in error
    assert "grpo.yaml: problems_per_step=16 x num_generations=16 = 256 rows is not a multiple of 64 rows" in error
    assert "sft.yaml" not in error
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize("path", ["recipez", "my/recpies/d4", "recipes/d5"])
def test_a_recipe_folder_that_is_not_there(workspace, capsys, path):
    assert main(["run", path]) == 2
    assert "Ours are d1, d12, d2" in capsys.readouterr().err


def test_our_recipes_are_found_from_anywhere(workspace):
    for path in ("recipes/d4", "d4"):
        assert find_recipe_folder(path) == ROOT / "recipes/d4"


def test_a_stage_takes_another_recipe_of_the_folder():
    changes = ["grpo=grpo_fast", "grpo.max_steps=7", "sft.max_steps=3"]
    arguments = stage_arguments(ROOT / "recipes/d4", ROOT / "runs/x", "grpo", changes, None)
    recipe = load_recipe("grpo", arguments)
    stage, args = recipe.settings, recipe.trl
    assert (args.num_generations, args.max_completion_length, args.max_steps) == (8, 128, 7)
    assert (stage.eval_every, stage.eval_problems) == (100, 50)
    assert training_arguments(recipe, "unused").generation_batch_size == 16 * 8


def test_all_problems_are_told_at_once(workspace, capsys):
    main(["run", "recipe", "--set", "pretrain.dpeth=3", "--set", "grpo.betta=1", "--set", "tokenizer.vocab_size=7"])
    error = capsys.readouterr().err
    assert all(word in error for word in ("dpeth", "betta", "vocab_size=7"))


def test_overrides_win_and_access_tokens_are_not_recorded():
    argv = ["--config", str(ROOT / "recipes/demo/grpo.yaml"), "--max_steps", "7", "--hub_token", "hf_secret"]
    recipe = load_recipe("grpo", argv)
    assert recipe.trl.max_steps == 7
    assert recipe.settings.eval_every == yaml.safe_load((ROOT / "recipes/demo/grpo.yaml").read_text())["eval_every"]
    assert recipe.written["max_steps"] == 7
    assert recipe.hub_token == "hf_secret"
    assert "hf_secret" not in str(recipe.written)


def test_a_recipes_rates_can_be_put_back_for_another_optimizer():
    argv = ["--config", str(ROOT / "recipes/demo/grpo.yaml"), "--optimizer", "trl", "--learning_rate", "5e-4"]
    recipe = load_recipe("grpo", [*argv, "--lr_scale", "1", "--use_peft", "true", "--lora_r", "4"])
    assert (recipe.settings.optimizer, recipe.trl.learning_rate, recipe.settings.lora_r) == ("trl", 5e-4, 4)


def test_a_recipe_wins_over_our_defaults(tmp_path):
    text = (ROOT / "recipes/demo/sft.yaml").read_text() + "assistant_only_loss: false\ndisable_tqdm: false\n"
    (tmp_path / "sft.yaml").write_text(text)
    args = training_arguments(load_recipe("sft", ["--config", str(tmp_path / "sft.yaml")]), str(tmp_path))
    assert (args.assistant_only_loss, args.disable_tqdm, args.report_to) == (False, False, [])
    assert load_recipe("sft", ["--config", str(ROOT / "recipes/demo/sft.yaml")]).trl.assistant_only_loss


@pytest.mark.slow
def test_a_stage_alone_gives_status_2_too(tmp_path):
    import subprocess
    import sys

    (tmp_path / "p.yaml").write_text("dpeth: 2")
    for module, stage in ((MODULES["pretrain"], "pretrain"), (MODULES["tokenizer"], "tokenizer")):
        result = subprocess.run(
            [sys.executable, "-m", module, "--config", str(tmp_path / "p.yaml")], capture_output=True, text=True
        )
        assert result.returncode == 2, stage
        assert "unknown key 'dpeth'" in result.stderr


def test_null_is_taken_however_often_recipes_are_read(tmp_path):
    (tmp_path / "sft.yaml").write_text(SFT + "save_total_limit: null\n")
    for _ in range(2):
        assert load_recipe("sft", ["--config", str(tmp_path / "sft.yaml")]).trl.save_total_limit is None


def test_unknown_stage():
    with pytest.raises(RecipeError, match="unknown stage 'x'"):
        load_recipe("x", ["--config", str(ROOT / "recipes/demo/grpo.yaml")])


@pytest.mark.parametrize("path", sorted((ROOT / "accelerate_configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_accelerate_takes_every_launch_config(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= config.num_machines >= 1
    assert not config.mixed_precision, "the recipe says in which precision; a launcher's would overrule it"
    assert str(config.distributed_type.value) == yaml.safe_load(path.read_text())["distributed_type"]


def test_there_is_a_launch_config_for_every_machine():
    names = {path.stem for path in (ROOT / "accelerate_configs").glob("*.yaml")}
    assert names == {"cpu", "single_gpu", "ddp", "fsdp2", "multi_node"}
