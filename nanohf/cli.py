"""The `nanohf` command. Imports nothing heavy: each verb imports what it needs when it is called."""

import argparse
import sys
from functools import partial

from nanohf import console

LICENSE = "under which licence you publish it, such as cc-by-nc-4.0; default: the strictest of its data's"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="nanohf",
        description="Train a small GPT from raw text to a chat model, on the Hugging Face stack, with one dial: depth.",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="warnings and errors only")
    loudness.add_argument("--verbose", action="store_true", help="what the libraries say, too")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _run(verbs.add_parser("run", help="all stages of a recipe folder in order; finished ones are skipped"))
    _doctor(verbs.add_parser("doctor", help="check recipes on a few of their real rows before the hours are spent"))
    _plan(verbs.add_parser("plan", help="what a depth costs: parameters, text, steps, bytes, minutes"))
    _chat(verbs.add_parser("chat", help="talk to a model, calculator included"))
    _push(verbs.add_parser("push", help="push finished stages of a run to the Hub"))
    _convert(verbs.add_parser("convert", help="to transformers' NanoChatForCausalLM, or from it or nanochat itself"))
    args = parser.parse_args(argv)
    if args.quiet or args.verbose:
        console.set_level("quiet" if args.quiet else "verbose")
    return console.exit_status(partial(args.handler, args))


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe_dir", help="a folder with one YAML per stage, such as recipes/demo")
    parser.add_argument("--name", help="the run's name, folder runs/NAME; default: the recipe folder's name")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STAGE.KEY=VALUE",
        help="override a recipe's key; STAGE=RECIPE takes another recipe of the folder for a stage",
    )
    parser.add_argument("--push", metavar="USER/NAME", help="push every stage to the Hub as USER/NAME-STAGE")
    parser.add_argument("--license", metavar="ID", help=LICENSE)
    parser.add_argument("--from-hub", metavar="USER/NAME[@REVISION]", help="continue from the stages pushed there")
    parser.add_argument("--from", dest="first", metavar="STAGE", help="do this stage and those after it again")
    parser.add_argument("--until", dest="last", metavar="STAGE", help="stop after this stage")
    parser.add_argument("--accelerate-config", metavar="FILE", help="default: ours for this machine")

    def handler(args) -> int:
        from nanohf.pipeline import run

        stages = (args.first, args.last)
        rest = (args.accelerate_config, args.license, args.from_hub)
        return run(args.recipe_dir, args.name, args.set, args.push, *stages, *rest)

    parser.set_defaults(handler=handler)


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe_dir", help="a folder with one YAML per stage, such as recipes/demo")
    parser.add_argument("--name", help="the run's name, folder runs/NAME; default: the recipe folder's name")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.KEY=VALUE", help="override a recipe's key")

    def handler(args) -> int:
        from nanohf.doctor.examine import examine

        return examine(args.recipe_dir, args.name, args.set)

    parser.set_defaults(handler=handler)


def _plan(parser: argparse.ArgumentParser) -> None:
    from nanohf.plan import plan_text as report

    def handler(args) -> int:
        if not args.recipe_dir:
            return report.main(args)
        from nanohf.plan.recipe_plan import recipe_plan

        return report.main(args, recipe_plan(args.recipe_dir, args.hardware))

    report.add_arguments(parser)
    parser.set_defaults(handler=handler)


def _chat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a run's folder (its last stage), a stage's folder or a Hub id")
    parser.add_argument("--prompt", help="answer this and exit")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, is greedy")
    parser.add_argument("--max-new-tokens", type=int, default=256)

    def handler(args) -> int:
        from nanohf.chat.terminal import chat

        return chat(args.model, args.prompt, args.temperature, args.max_new_tokens)

    parser.set_defaults(handler=handler)


def _push(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", help="the run's folder, such as runs/demo")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="default: all that are finished")
    parser.add_argument("--to", required=True, metavar="USER/NAME", help="each stage goes to USER/NAME-STAGE")
    parser.add_argument("--private", action="store_true", default=None, help="make new repos private")
    parser.add_argument("--license", metavar="ID", help=LICENSE)

    def handler(args) -> int:
        from nanohf.hub.push_run import push

        return push(args.run_dir, args.stages, args.to, args.private, args.license)

    parser.set_defaults(handler=handler)


def _convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a model folder, a Hub id, or a checkpoint folder of nanochat")
    parser.add_argument("target", help="the folder to write; it must not exist")
    parser.add_argument(
        "--to", choices=("nanochat", "nanohf"), help="what the result shall be; default: what the source is not"
    )

    def handler(args) -> int:
        from nanohf.convert.formats import convert
        from nanohf.hub.fetch import model_folder

        return convert(model_folder(args.source), args.target, args.to)

    parser.set_defaults(handler=handler)


if __name__ == "__main__":
    sys.exit(main())
