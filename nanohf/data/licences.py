"""Licences of data by how strict they are, spelt as the Hub spells them, and the one that a model made from it gets.

A small table and a simple rule, described in docs/licences.md. It is information, not legal advice. Loads nothing.
"""

from collections.abc import Iterable

LIST = "https://huggingface.co/docs/hub/repositories-licenses"
OURS = "apache-2.0"  # of the toy world, of identity files and of the code that travels with a model
UNKNOWN, OTHER = "unknown", "other"

# From the most permissive kind to the strictest, and within a kind likewise: the later one wins. All of the Hub's ids.
KINDS: dict[str, str] = {
    "public domain": "wtfpl unlicense pddl cc0-1.0",
    "permissive": "zlib isc postgresql ncsa bsl-1.0 mit bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear ecl-2.0 "
    "afl-3.0 artistic-2.0 ms-pl openmdw-1.0 openmdw-1.1 apache-2.0",
    "attribution": "cdla-permissive-1.0 cdla-permissive-2.0 etalab-2.0 odc-by cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0",
    "share-alike": "cdla-sharing-1.0 odbl ofl-1.1 lppl-1.3c mpl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 osl-3.0 gfdl "
    "cc-by-sa-3.0 cc-by-sa-4.0 lgpl-lr lgpl lgpl-2.1 lgpl-3.0 gpl gpl-2.0 gpl-3.0 agpl-3.0",
    "non-commercial": "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0",
    "non-commercial and share-alike": "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0",
    "no derivatives": "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0",
    "terms of its own": "cc c-uda openrail openrail++ bigscience-openrail-m bigscience-bloom-rail-1.0 "
    "creativeml-openrail-m bigcode-openrail-m gemma llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community "
    "apple-ascl apple-amlr intel-research h-research deepfloyd-if-license fair-noncommercial-research-license",
    "not known": f"{OTHER} {UNKNOWN}",
}
KIND = {licence: kind for kind, licences in KINDS.items() for licence in licences.split()}
ORDER = {licence: place for place, licence in enumerate(KIND)}
FREE = ("public domain", "permissive", "attribution", "share-alike")  # kinds that are published without a question
SAME_TERMS = "share-alike"  # kinds from here on may ask that what is made of the data keeps their own terms


def known(licence: str) -> str:
    """The licence as the Hub spells it; `unknown` if the Hub has no such id."""
    licence = licence.strip().lower()
    return licence if licence in KIND else UNKNOWN


def strictest(licences: Iterable[str]) -> str:
    """The one that wins, as an id for a card: `other` where one is not known; nanohf's own where there is no data."""
    winner = max(map(known, licences), key=ORDER.__getitem__, default=OURS)
    return OTHER if is_unknown(winner) else winner


def is_unknown(licence: str) -> bool:
    return KIND[known(licence)] == "not known"


def needs_decision(licence: str) -> bool:
    """Whether data of this licence is published only if the user says under which licence."""
    return KIND[known(licence)] not in FREE


def rivals(licences: Iterable[str]) -> list[str]:
    """Licences other than the winner that may ask for their own terms too, such as odbl beside cc-by-sa-4.0."""
    ids = set(map(known, licences))
    winner = max(ids, key=ORDER.__getitem__, default=OURS)
    kinds = list(KINDS)[list(KINDS).index(SAME_TERMS) :]
    return sorted((one for one in ids - {winner} if KIND[one] in kinds), key=ORDER.__getitem__)


def said(licence: str) -> str:
    """`cc-by-nc-4.0 (non-commercial)`."""
    return "of unknown licence" if is_unknown(licence) else f"{licence} ({KIND[known(licence)]})"


def wrong_licence(key: str, licence: str | None) -> list[str]:
    """An error for a value of a recipe or a flag that is not an id of the Hub."""
    if licence is None or licence in KIND:
        return []
    return [f"{key}={licence!r} must be a licence as the Hub spells it, such as mit, cc-by-4.0 or other: see {LIST}"]
