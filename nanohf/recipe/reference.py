"""docs/recipes.md: every key of every recipe, from the schemas themselves.

python -m nanohf.recipe.reference    # writes it again, after a change of a schema; a test compares the two
"""

from dataclasses import MISSING, fields
from pathlib import Path

from nanohf.recipe.loading import SCHEMAS
from nanohf.recipe.stage_names import CHAT_STAGES
from nanohf.recipe.trl_keys import OUR_DEFAULTS

PAGE = Path(__file__).parents[2] / "docs/recipes.md"
HEAD = """# Recipe keys

One YAML file per stage; a folder of them is what `nanohf run` takes. Unknown keys are errors. `base: FILE` takes the
keys of another recipe, found from the recipe's own folder, but for those that are given. On the command line a key is
`--set STAGE.KEY=VALUE`, or `--KEY VALUE` where the stage is launched by itself.

A batch is that of all processes, so that a recipe means the same on 1 and on 8 GPUs: `batch_tokens`,
`conversations_per_step`, `problems_per_step`. Each process reads it in micro-batches of `per_device_train_batch_size`
rows; how many of them make a step follows. If the processes cannot share a batch evenly, the stage is refused with the
nearest that they can.

This page is made from the schemas (`python -m nanohf.recipe.reference`).
"""


def page() -> str:
    parts = [HEAD]
    for stage, (schema, config) in SCHEMAS.items():
        if stage == CHAT_STAGES[1]:
            continue
        title = "midtrain and sft" if stage in CHAT_STAGES else stage
        parts.append(f"## {title}\n")
        if config:
            parts.append(f"Besides these, all keys of TRL's `{config}`.{_ours(config)}\n")
        parts.append("| key | default | meaning |\n|---|---|---|")
        parts += [f"| `{f.name}` | {_default(f)} | {f.metadata.get('help', '')} |" for f in fields(schema)]
        parts.append("")
    return "\n".join(parts)


def _ours(config: str) -> str:
    ours = [f"`{key}: {_value(v)}`" for key, v in OUR_DEFAULTS[config].items() if v is not None]
    return f" Defaults that differ from TRL's: {', '.join(ours)}; `bf16` and `use_cpu` by what the machine has."


def _default(field) -> str:
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return f"`{_value(value)}`" if value != [] else "none"


def _value(value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else f"{value:_}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
