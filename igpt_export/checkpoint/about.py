"""What a checkpoint says of itself besides the model: for the bundle's model card, and nothing that a runtime needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from igpt_runtime.bundle.directory import CARD_FILE
from igpt_runtime.privacy import HUB, turn_off

_LICENSE_FIELDS = ("license", "license_name", "license_link")  # of a card's header, as the Hugging Face Hub reads it


@dataclass(frozen=True)
class About:
    """What the files beside a checkpoint's weights tell its readers."""

    license: Mapping[str, str | list[str]] = field(default_factory=dict)  # of the fields above, those that are given
    sampling_left_out: tuple[str, ...] = ()  # what generation_config.json asks for and this project's sampler lacks


def read_license(directory: Path) -> dict[str, str | list[str]]:
    """The licence fields in the header of a directory's README.md; nothing if it has none, or none that can be read.

    A card is for people: one that is not as the Hub wants it keeps nobody from using the model.
    """
    path = directory / CARD_FILE
    if not path.is_file():
        return {}
    turn_off(HUB)
    try:
        from huggingface_hub.repocard import metadata_load

        header = metadata_load(path) or {}
    except Exception:  # the YAML library's errors, wrong encodings, or no huggingface_hub
        return {}
    return {name: header[name] for name in _LICENSE_FIELDS if _is_text(header.get(name))}


def _is_text(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
