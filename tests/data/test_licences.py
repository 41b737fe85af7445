"""The table of licences against the Hub's own list, the rule that combines them, and where a licence is read."""

import os
import subprocess
import sys

import pytest

from nanohf.data.licence_lookup import folder_licence
from nanohf.data.licences import KINDS, known, needs_decision, rivals, strictest, wrong_licence

# huggingface/hub-docs, docs/hub/repositories-licenses.md, and what the Hub has added since that page was stored.
STORED = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1
lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl
lgpl-lr deepfloyd-if-license llama2 gemma unknown other
"""
ADDED = """
eupl-1.2 openmdw-1.0 openmdw-1.1 h-research intel-research apple-ascl apple-amlr llama3 llama3.1 llama3.2 llama3.3
llama4 grok2-community fair-noncommercial-research-license
"""
HUB = (STORED + ADDED).split()


def test_every_id_of_the_hub_stands_in_the_table_once():
    ids = " ".join(KINDS.values()).split()
    assert sorted(ids) == sorted(HUB)


@pytest.mark.parametrize(
    ("licences", "wins"),
    [
        ([], "apache-2.0"),
        (["cc0-1.0"], "cc0-1.0"),
        (["cc0-1.0", "mit"], "mit"),
        (["apache-2.0", "mit", "bsd-3-clause"], "apache-2.0"),
        (["odc-by", "apache-2.0"], "odc-by"),
        (["cc-by-4.0", "odc-by", "cdla-permissive-2.0"], "cc-by-4.0"),
        (["cdla-sharing-1.0", "cc-by-4.0"], "cdla-sharing-1.0"),
        (["cc-by-sa-4.0", "cdla-sharing-1.0", "odbl"], "cc-by-sa-4.0"),
        (["cc-by-nc-4.0", "cc-by-sa-4.0", "mit"], "cc-by-nc-4.0"),
        (["cc-by-nc-sa-4.0", "cc-by-nc-4.0"], "cc-by-nc-sa-4.0"),
        (["cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0"], "cc-by-nc-nd-4.0"),
        (["llama2", "cc-by-nc-nd-4.0"], "llama2"),
        (["unknown", "llama2"], "other"),
        (["other", "mit"], "other"),
        (["of my own making", "mit"], "other"),
        (["MIT", " Apache-2.0 "], "apache-2.0"),
    ],
)
def test_the_strictest_wins_in_any_order(licences, wins):
    assert strictest(licences) == strictest(licences[::-1]) == wins


def test_what_is_published_without_a_question():
    free = {licence for licence in HUB if not needs_decision(licence)}
    assert {"mit", "cc0-1.0", "odc-by", "cc-by-sa-4.0", "gpl-3.0", "odbl"} < free
    assert not {i for i in free if "-nc" in i or "-nd" in i or "llama" in i or "rail" in i or "research" in i}
    assert not {"other", "unknown", "cc", "gemma"} & free
    assert needs_decision("of my own making")


def test_licences_that_may_ask_for_terms_of_their_own_are_named():
    assert rivals(["mit", "cc-by-4.0", "cc-by-sa-4.0"]) == []
    assert rivals(["cc-by-sa-4.0", "odbl", "mit", "odbl"]) == ["odbl"]
    assert rivals(["cc-by-sa-4.0", "cc-by-nc-4.0"]) == ["cc-by-sa-4.0"]


def test_an_id_that_the_hub_does_not_have_is_an_error():
    assert wrong_licence("license", "cc-by-4.0") == wrong_licence("license", None) == []
    (message,) = wrong_licence("license", "CC BY 4.0")
    assert "license='CC BY 4.0' must be a licence as the Hub spells it" in message
    assert known("CC BY 4.0") == "unknown"


@pytest.mark.parametrize(
    ("readme", "licence", "origin"),
    [
        ("---\nlicense: odc-by\n---\n# Text", "odc-by", "the folder's README.md"),
        ("---\nlicense: MIT\n---\n", "mit", "the folder's README.md"),
        ("---\nlicense: [mit, cc-by-sa-4.0]\n---\n", "cc-by-sa-4.0", "the folder's README.md"),
        ("---\nlicense: other\n---\n", "other", "the folder's README.md says other"),
        ("---\nlicense: free | for all\n---\n", "unknown", "the folder's README.md says 'free | for all'"),
        ("---\nlicense: {a: b}\n---\n", "unknown", "the folder's README.md says \"{'a': 'b'}\""),
        ("---\nlanguage: en\n---\n", "unknown", "the folder's README.md names no license"),
        ("# Text\nlicense: mit", "unknown", "the folder's README.md names no license"),
        ("---\nlicense: [mit\n---\n", "unknown", "the folder's README.md: its front matter cannot be read"),
        ("---\n- mit\n---\n", "unknown", "the folder's README.md: its front matter cannot be read"),
        ("\xff\xfe", "unknown", "the folder's README.md: its front matter cannot be read"),
        (None, "unknown", "the folder has no README.md"),
    ],
)
def test_a_folders_readme(tmp_path, readme, licence, origin):
    if readme is not None:
        (tmp_path / "README.md").write_bytes(readme.encode("latin-1"))
    found = folder_licence(tmp_path)
    assert (found.id, found.origin) == (licence, origin)


def test_a_file_and_nothing_at_all(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    assert folder_licence(tmp_path / "a.txt").origin == "a single file has no card"
    assert folder_licence(tmp_path / "b").origin == "there is no such file or folder"


ASK = """
import sys
from nanohf.data.licence_lookup import hub_licence
for name in sys.argv[2:]:
    found = hub_licence(name, sys.argv[1])
    print(found.id, found.origin, sep=": ")
"""


def ask(kind: str, *names: str, **environment: str) -> list[str]:
    """In a process of its own: HF_ENDPOINT and HF_HUB_OFFLINE are read at import."""
    command = [sys.executable, "-c", ASK, kind, *names]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub does not answer"),
    ],
)
def test_without_a_network_and_a_cache_it_is_unknown(tmp_path, environment, why):
    found = ask("dataset", "openai/gsm8k", HF_HOME=str(tmp_path), **({"HF_HUB_OFFLINE": "0"} | environment))
    assert found == [f"unknown: its card is not in the cache, and {why}"]


@pytest.mark.hub
@pytest.mark.skipif("127.0.0.1" not in os.environ.get("HF_ENDPOINT", ""), reason="needs a Hub on 127.0.0.1")
def test_on_a_hub_the_card_is_asked_and_its_copy_in_the_cache_without_one(tmp_path):
    names = ("openai/gsm8k", "karpathy/climbmix-400b-shuffle", "allenai/ai2_arc", "roneneldan/TinyStories")
    licences = ["mit", "cc-by-nc-4.0", "cc-by-sa-4.0", "cdla-sharing-1.0"]
    found = ask("dataset", *names, "tester/math-problems", "nobody/nothing", HF_HOME=str(tmp_path))
    assert [line.partition(": ")[0] for line in found] == [*licences, "other", "unknown"]
    assert found[-1] == "unknown: no such dataset on the Hub, or this token may not read it"
    for without in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        again = ask("dataset", *names, HF_HOME=str(tmp_path), **without)
        assert [line.partition(": ")[0] for line in again] == licences
        assert all("its card in the cache" in line for line in again)
