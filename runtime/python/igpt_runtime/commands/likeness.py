"""Saying when pictures are of another kind than those that the model was trained on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from igpt_runtime.console import harmless

if TYPE_CHECKING:
    from igpt_runtime.tasks.likeness import Likeness

_TOLD = 5  # pictures, by name


def tell_unlike(images: Sequence[str], found: "Sequence[Likeness | None]") -> None:
    """Say on stderr which pictures are unlike the model's own."""
    unlike = [(image, one.notice) for image, one in zip(images, found, strict=True) if one is not None and one.unlike]
    for image, notice in unlike[:_TOLD]:
        click.echo(harmless(f"{image}: {notice}"), err=True)
    if len(unlike) > _TOLD:
        click.echo(f"{len(unlike) - _TOLD} more pictures are unlike what this model was trained on", err=True)


def record_of(found: "Likeness | None") -> dict[str, Any] | None:
    """As --json shows it."""
    return None if found is None else found.record()
