"""Tool turns: what the calculator could have answered becomes its calls, any other conversation is left out."""

import json

import pytest

from nanohf.data.conversations import from_messages, from_sharegpt
from nanohf.data.row_faults import Malformed


def call(arguments, name="calculator", **more) -> dict:
    return {"type": "function", "function": {"name": name, "arguments": arguments}} | more


def conversation(calls: list[dict], *answers: dict, before="", after="So 7.") -> list[dict]:
    return [
        {"role": "user", "content": "3+4?"},
        {"role": "assistant", "content": before, "tool_calls": calls},
        *({"role": "tool", "name": None, **answer} for answer in answers),
        {"role": "assistant", "content": after, "tool_calls": None},
    ]


def said(*parts: tuple[str, str]) -> list[dict]:
    return [{"type": kind, "text": text} for kind, text in parts]


def reply(messages: list[dict]) -> list[dict]:
    user, assistant = from_messages({"messages": messages})["messages"]
    assert (user["role"], assistant["role"]) == ("user", "assistant")
    return assistant["content"]


CALLED = ("python", "3+4"), ("python_output", "7")


@pytest.mark.parametrize(
    "arguments",
    ['{"expression": "3+4"}', {"expression": "3+4"}, {"expression": "3+4", "unit": None}, {"code": "3+4"}],
)
def test_a_call_and_its_answer_are_parts_of_what_the_assistant_says(arguments):
    messages = conversation([call(arguments)], {"content": "7"}, before=None)
    assert reply(messages) == said(*CALLED, ("text", "So 7."))


def test_text_before_the_call_and_turns_after_it():
    messages = conversation([call({"e": "3+4"})], {"content": "7.0"}, before="Let me see: ")
    messages += [{"role": "user", "content": "Thanks."}, {"role": "assistant", "content": "Bye."}]
    first, second = from_messages({"messages": messages})["messages"][1::2]
    assert first["content"] == said(("text", "Let me see: "), *CALLED, ("text", "So 7."))
    assert second["content"] == said(("text", "Bye."))


def test_several_calls_at_once_are_answered_by_id():
    calls = [call({"e": "3+4"}, id="a"), call({"e": "1,000*2"}, id="b")]
    answers = {"content": "2,000", "tool_call_id": "b"}, {"content": "7", "tool_call_id": "a"}
    both = (*CALLED, ("python", "1,000*2"), ("python_output", "2000"))
    assert reply(conversation(calls, *answers)) == said(*both, ("text", "So 7."))
    in_order = conversation([call({"e": "3+4"}), call({"e": "1,000*2"})], {"content": "7"}, {"content": "2000"})
    assert reply(in_order) == reply(conversation(calls, *answers))


def test_the_output_is_spelled_as_the_calculator_spells_it():
    messages = conversation([call({"e": "10/3"})], {"content": "3.3333333333333335"})
    assert reply(messages)[1] == {"type": "python_output", "text": "3.3333333333"}


@pytest.mark.parametrize(
    ("calls", "answers", "reason"),
    [
        ([call({"city": "Rome"}, "weather")], [{"content": "sunny"}], "a call of weather, which the calculator cannot"),
        ([call({"a": "3", "b": "4"}, "add")], [{"content": "7"}], "a call of add, which the calculator cannot answer"),
        ([call({"e": 7})], [{"content": "7"}], "a call of calculator, which the calculator cannot answer"),
        ([call("3+4")], [{"content": "7"}], "a call of calculator, which the calculator cannot answer"),
        ([call({"e": "3+"})], [{"content": "7"}], "a call of calculator, which the calculator cannot answer"),
        ([call({"e": "3+4"})], [{"content": "8"}], "an answer of calculator that is not the calculator's"),
        ([call({"e": "10/3"})], [{"content": "3.3333"}], "an answer of calculator that is not the calculator's"),
        ([call({"e": "3+4"})], [{"content": "error"}], "an answer of calculator that is not the calculator's"),
        ([call({"e": "3+4"})], [], "a tool call has no answer"),
        ([call({"e": "3+4"}, id="a")], [{"content": "7", "tool_call_id": "b"}], "a tool call has no answer"),
        ([], [{"content": "7"}], "a tool's answer follows no call"),
        ([call({"e": "3+4"})], [{"content": "7"}, {"content": "7"}], "a tool's answer follows no call"),
    ],
)
def test_what_is_left_out(calls, answers, reason):
    with pytest.raises(Malformed, match=reason):
        from_messages({"messages": conversation(calls, *answers)})


def test_a_call_by_the_user_and_a_function_call_of_old():
    messages = conversation([], after="b")
    with pytest.raises(Malformed, match="by somebody else than the assistant"):
        from_messages({"messages": [messages[0] | {"tool_calls": [call({"e": "3+4"})]}, *messages[1:]]})
    with pytest.raises(Malformed, match="function_call"):
        from_messages({"messages": [messages[0], messages[1] | {"function_call": {"name": "f"}}]})


def test_sharegpt_with_a_tool():
    function = json.dumps({"name": "calculator", "arguments": {"expression": "3+4"}})
    turns = [("human", "3+4?"), ("function_call", function), ("observation", "7"), ("gpt", "So 7.")]
    messages = from_sharegpt({"conversations": [{"from": who, "value": text} for who, text in turns]})["messages"]
    assert messages[1]["content"] == said(*CALLED, ("text", "So 7."))
