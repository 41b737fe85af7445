"""Tool turns of OpenAI messages as calculator calls: a `python` part, and the `python_output` part that answers it.

The only tool a model has here is the calculator. A call is one if its only argument is an expression that the
calculator can work out and the tool's answer is that number; the output is spelled as the calculator spells it, which
is what the model will see. A conversation with any other call cannot be learned from and is left out.
"""

import json
from math import isclose
from typing import Any

from nanohf.data.row_faults import Malformed
from nanohf.generation.calculator import calculate

SAME = 1e-6  # relative; tools round differently


def with_calculator_calls(messages: list[dict]) -> list[dict]:
    """Messages {role, content, tool_calls}, content a list of parts: an assistant's calls become parts of what it says.

    The tool's answers and what the assistant says after them belong to the same message.

    Raises:
        Malformed: a call that is none of the calculator's, or one without its answer.
    """
    merged: list[dict] = []
    answered, waiting = False, [message for message in messages if message["role"] == "tool"]
    for message in messages:
        if message["role"] == "tool":
            if not answered:
                raise Malformed("a tool's answer follows no call")
            continue
        content = [part for part in message["content"] if part["text"] != "" or not message.get("tool_calls")]
        calls = message.get("tool_calls") or []
        if calls and message["role"] != "assistant":
            raise Malformed("a tool call by somebody else than the assistant")
        for call in calls:
            content += _parts(call, _answer(call, waiting))
        if answered and message["role"] == "assistant":
            merged[-1]["content"] += content
        else:
            merged.append({"role": message["role"], "content": content})
        answered = bool(calls)
    if waiting:
        raise Malformed("a tool's answer follows no call")
    return merged


def _answer(call: dict, waiting: list[dict]) -> str:
    """The tool's answer with the call's id, or the next one where there are no ids."""
    found = next((m for m in waiting if call.get("id") and m.get("tool_call_id") == call["id"]), None)
    if found is None and waiting and not waiting[0].get("tool_call_id"):
        found = waiting[0]
    if found is None:
        raise Malformed("a tool call has no answer")
    waiting.remove(found)
    return "".join(part["text"] for part in found["content"] if isinstance(part["text"], str))


def _parts(call: dict, answer: str) -> list[dict]:
    function = call.get("function") or {}
    expression = _expression(function.get("arguments"))
    result = calculate(expression) if expression else None
    if expression is None or result is None:
        raise Malformed(f"a call of {function.get('name')}, which the calculator cannot answer")
    try:
        same = isclose(float(answer.replace(",", "")), float(result), rel_tol=SAME)
    except ValueError:
        same = False
    if not same:
        raise Malformed(f"an answer of {function.get('name')} that is not the calculator's")
    return [{"type": "python", "text": expression}, {"type": "python_output", "text": result}]


def _expression(arguments: Any) -> str | None:
    """The only argument, if it is text. arguments: an object, or one as JSON text."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    if not isinstance(arguments, dict):
        return None
    given = [value for value in arguments.values() if value is not None]  # Arrow fills in what other rows have
    return given[0] if len(given) == 1 and isinstance(given[0], str) else None
