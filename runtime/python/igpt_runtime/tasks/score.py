"""Likelihood: what every pixel of a picture costs the model, one prefill per picture.

As in the paper (section 2.1, and `gen_loss` of image-gpt's src/model.py), the tokens are fed behind sos, and the loss
is the mean of minus the log-likelihood of all of them, in nats. A token is a pixel, so nats / ln 2 are bits per pixel.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from igpt_runtime.bundle import graph_io
from igpt_runtime.engine.cuda_start import is_on_cuda
from igpt_runtime.engine.generate import Tokens, nats
from igpt_runtime.engine.numbers import check_numbers
from igpt_runtime.engine.session import Session
from igpt_runtime.errors import BundleError, OptionError
from igpt_runtime.pictures.reading import Picture, as_pictures
from igpt_runtime.pictures.surprise import surprise_map
from igpt_runtime.tasks.complete import images_of
from igpt_runtime.tasks.features import Broken, behind_sos, check_any_read, rules_of, token_batches


@dataclass(frozen=True)
class Score:
    """The likelihood of one picture."""

    index: int  # number of the picture among those given, from 0
    nats: npt.NDArray[np.float32]  # minus the log-likelihood of each pixel, [height, width]
    tokens: Tokens  # int64 [height * width]

    @property
    def nats_per_token(self) -> float:
        """The mean of `nats`."""
        return float(self.nats.mean(dtype=np.float64))

    @property
    def bits_per_pixel(self) -> float:
        """The same in bits: `nats_per_token` / ln 2."""
        return self.nats_per_token / math.log(2)


def score(
    session: Session,
    pictures: Sequence[Picture] | Picture,
    *,
    protocol: str = "hf",
    crop: bool = False,
    broken: Broken | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Score]:
    """The score of every picture, one after the other. An error is raised when the result is iterated over.

    pictures: one or several.
    protocol: "hf" squashes pictures, "paper" crops them; both feed sos first.
    crop: with "hf", keep only the centre of each picture, in the shape of the model's pictures.
    broken: called with a line of text for each picture that cannot be read, which is then left out; None raises.
    progress: called after each batch with the number of pictures in it.

    Raises:
        BundleError: the bundle has no language-model head, or is damaged.
        DeviceError: CUDA was asked for and ONNX Runtime did not start it.
        ImageError: a picture cannot be read.
        OptionError: there are no pictures, or no such protocol.
    """
    pictures = as_pictures(pictures)
    if not pictures:
        raise OptionError("no pictures were given; give at least one")
    crop = crop or rules_of(protocol).crop
    if graph_io.DECODE not in session.manifest.graphs:
        raise BundleError(
            f"{session.bundle.path} has no language-model head, so no likelihood; "
            "export an ImageGPTForCausalImageModeling checkpoint"
        )
    form, read = session.manifest.image_format, 0
    with session.part(graph_io.PREFILL, [graph_io.LOGITS]) as graph:
        on_gpu = is_on_cuda(graph)
        for indices, tokens in token_batches(session, pictures, crop=crop, broken=broken, on_gpu=on_gpu):
            (logits,) = graph.run([graph_io.LOGITS], {graph_io.INPUT_IDS: behind_sos(session, tokens)})
            for index, row, picture in zip(indices, logits, tokens, strict=True):
                costs = nats(row, picture).reshape(form.height, form.width)
                check_numbers(session, costs)
                yield Score(index, costs, picture)
            read += len(tokens)
            if progress is not None:
                progress(len(tokens))
    check_any_read(read, len(pictures))


def summary(nats: Sequence[float]) -> dict[str, float | int | None]:
    """Mean and standard error (None for a single picture) of pictures' nats per token, and the same in bits."""
    means = np.array(nats)
    error = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
    return {
        "pictures": len(means),
        "nats_per_token": float(means.mean()),
        "bits_per_pixel": float(means.mean() / math.log(2)),
        "standard_error_nats": error,
        "standard_error_bits": None if error is None else error / math.log(2),
    }


def records(images: Sequence[str], nats: Sequence[float]) -> list[dict[str, Any]]:
    """A record for each picture. nats: per token."""
    return [
        {"image": image, "nats_per_token": mean, "bits_per_pixel": mean / math.log(2)}
        for image, mean in zip(images, nats, strict=True)
    ]


def map_of(session: Session, scored: Score, name: str | None = None) -> Image.Image:
    """The picture as the model sees it, and beside it how much each pixel surprised the model, with a scale.

    name: a title.
    """
    (seen,) = images_of(session, scored.tokens[None])
    return surprise_map(seen, scored.nats, clusters=session.manifest.config.n_clusters, name=name)
