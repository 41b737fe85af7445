"""Everything nanohf raises on purpose.

NanoHFError
├── RecipeError    the user's input: a recipe, a flag, a file, a row. Exit status 2
├── DiskFullError  no room for a checkpoint or result; what was there before is safe. Exit status 1
└── PushError      the Hub did not take a finished stage; the result is safe. Exit status 1

Anything else that escapes is a fault of ours or of the machine, and keeps its traceback.
"""


class NanoHFError(Exception):
    """exit_status: what the process ends with."""

    exit_status = 1


class RecipeError(NanoHFError, ValueError):
    """What the user can put right: one or more errors, each with value, rule and fix."""

    exit_status = 2

    def __init__(self, messages: list[str] | str):
        self.messages = [messages] if isinstance(messages, str) else list(messages)
        super().__init__("\n".join(self.messages))


class DiskFullError(NanoHFError, OSError):
    """No room for what was to be written. Nothing half-written is kept, and the same command resumes."""


class PushError(NanoHFError, RuntimeError):
    """A push that failed. The stage's folder is untouched, and the message says how to push it later."""
