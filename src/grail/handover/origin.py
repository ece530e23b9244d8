"""The base model under an adapter: its name for others, who do not have this machine's paths."""

from dataclasses import dataclass
from pathlib import Path

from grail.files import file_digest
from grail.model.sources import PACKAGED, cache, find, find_packaged, version, weight_files


@dataclass(frozen=True)
class Base:
    """A base model as others know it.

    Attributes:
        name: Its Hub id; else the name of its package, folder or file, without a path.
        place: What ``from_pretrained`` opens here: a Hub id, or a path of this machine.
        on_hub: Whether ``name`` is a Hub id.
        how: Where to get it, in sentences.
    """

    name: str
    place: str
    on_hub: bool
    how: str


def base_of(model: str) -> Base:
    """Return the base of ``model.name``; a GGUF file is unpacked, nothing is loaded."""
    if Path(model).is_absolute() and not Path(model).exists():
        return Base(Path(model).name, model, False, "It is no longer where it was.")
    source = find(model)
    if not Path(source.base).exists():
        return Base(source.base, source.base, True, f"`{source.base}` is its id on the Hub.")
    digests = "; ".join(f"`{f.name}` {file_digest(f)}" for f in weight_files(Path(source.base)))
    packaged = _packaged(source.base)
    if packaged is None:
        name = Path(source.base).name
        how = "It is not on the Hub: ask whoever gave you this for it."
    else:
        name, package = packaged, PACKAGED[packaged][0].replace("_", "-")
        how = f"It is the GGUF file in the Python package {package} {version(package)}."
        how += f" Others have named the same weights `{PACKAGED[packaged][1]}`; rounded otherwise,"
        how += " they answer otherwise."
    if source.base.endswith(".gguf"):
        how += " transformers reads it with `from_pretrained(FOLDER, gguf_file=FILE)`."
    return Base(name, source.unpacked(), False, f"{how} SHA-256 of its weights: {digests}.")


def _packaged(base: str) -> str | None:
    """Return the short name of the model whose GGUF file, or unpacked copy of it, is at ``base``.

    An adapter names the folder in the cache, which says nothing to others.
    """
    for name in PACKAGED:
        file, place = find_packaged(name), Path(base)
        if file is None:
            continue
        if place == file or (place.parent == cache() and place.name.startswith(f"{file.stem}-")):
            return name
    return None
