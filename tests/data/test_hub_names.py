"""USER/NAME@REVISION wherever a model or tokenizer is named; a folder of such a name is a folder."""

import os
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from records import a_record
from transformers import AutoModelForCausalLM

from nanohf.chat.terminal import last_stage
from nanohf.data.hub_names import pretrained, split_revision
from nanohf.data.licence_lookup import hub_licence
from nanohf.errors import RecipeError
from nanohf.hub.card import card
from nanohf.hub.paths import without_paths
from nanohf.hub.publish import base_model
from nanohf.runs.data_used import collect
from nanohf.runs.find_model import load_model, model_type

on_hub = pytest.mark.skipif("127.0.0.1" not in os.environ.get("HF_ENDPOINT", ""), reason="needs a Hub on 127.0.0.1")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("alice/model@v1.0", ("alice/model", "v1.0")),
        ("alice/model@refs/pr/3", ("alice/model", "refs/pr/3")),
        ("alice/model", ("alice/model", None)),
        ("./alice/model@v1", ("./alice/model@v1", None)),
        ("midtrain", ("midtrain", None)),
        ("alice/model@", ("alice/model@", None)),
        ("alice/" + "x" * 9999 + "@v1", ("alice/" + "x" * 9999, "v1")),
    ],
)
def test_the_parts_of_a_name(source, parts):
    assert split_revision(source) == parts
    assert pretrained(source).get("revision") == parts[1]


def test_a_folder_of_such_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("alice/model@v1").mkdir(parents=True)
    assert split_revision("alice/model@v1") == ("alice/model@v1", None)


@pytest.mark.parametrize("source", ["alice/model@v1", "alice/model@refs/pr/3"])
def test_it_is_a_name_of_the_hub_to_whoever_reads_it(source):
    assert last_stage(source) == source
    assert without_paths(source) == source
    record = a_record("sft", recipe={"model_name_or_path": source})
    assert base_model(Path("runs/a"), record) == "alice/model"
    text = card(record, None, "tester/x-sft", "alice/model")
    assert f"from [alice/model](https://huggingface.co/alice/model) at `{source.partition('@')[2]}`" in text


@pytest.mark.hub
@on_hub
def test_on_a_hub(tmp_path):
    """The licence and the config are those of the revision, and a revision that is not there is said."""
    api, readme = HfApi(), "---\nlicense: {}\nlanguage: {}\n---\n"
    api.create_repo("tester/two", exist_ok=True)

    def upload(name: str, content: str) -> None:
        api.upload_file(path_or_fileobj=content.encode(), path_in_repo=name, repo_id="tester/two")

    upload("README.md", readme.format("mit", "[en, fr]"))
    upload("config.json", '{"model_type": "nanohf"}')
    api.create_tag("tester/two", tag="v1")
    upload("README.md", readme.format("cc-by-sa-4.0", "de"))
    upload("config.json", '{"model_type": "nanochat"}')
    assert [hub_licence(f"tester/two{at}", "model").id for at in ("@v1", "")] == ["mit", "cc-by-sa-4.0"]
    assert [model_type(f"tester/two{at}") for at in ("@v1", "")] == ["nanohf", "nanochat"]
    *_, parent = collect("sft", {"mixture": [], "model_name_or_path": "tester/two@v1"}, tmp_path)
    assert (parent.dataset, parent.licence, parent.languages) == ("tester/two@v1", "mit", ["en", "fr"])
    upload("pytorch_model.bin", "a pickle")
    with pytest.raises(RecipeError, match="tester/two has no safetensors that can be loaded"):
        load_model(AutoModelForCausalLM, "tester/two")
    with pytest.raises(RecipeError, match="tester/two@v2"):
        model_type("tester/two@v2")
    assert hub_licence("tester/two@v2", "model").id == "unknown"
