# /// script
# requires-python = ">=3.11"
# dependencies = ["nanohf @ git+https://github.com/nanohf/nanohf"]
# ///
"""`nanohf run` on Hugging Face Jobs, with the same arguments, in a container that has nothing but uv.

    hf jobs uv run --flavor a10g-small --timeout 8h --secrets HF_TOKEN scripts/job.py recipes/d2 --push USER/NAME

The line `dependencies` above says which nanohf: a release, a commit (append @COMMIT) or a wheel's address.
"""

import sys

from huggingface_hub import get_token

from nanohf.cli import main


def job(arguments: list[str]) -> int:
    """The exit status of the run; 2 where its results could not outlive the job."""
    asks = bool({"-h", "--help"} & set(arguments))
    pushes = any(argument.partition("=")[0] == "--push" for argument in arguments)
    if not asks and not pushes:
        print("error: add --push USER/NAME: the job's disk is gone when it ends", file=sys.stderr)
        return 2
    if not asks and get_token() is None:
        print("error: the job has no token to push with: hf jobs uv run --secrets HF_TOKEN ...", file=sys.stderr)
        return 2
    return main(["run", *arguments])


if __name__ == "__main__":
    sys.exit(job(sys.argv[1:]))
