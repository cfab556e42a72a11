"""What a classifier says of pictures: one prefill per picture, of the graph up to the deepest layer that is read."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import PROTOCOLS, Classifier
from igpt_runtime.engine.cuda_start import is_on_cuda
from igpt_runtime.engine.generate import nats
from igpt_runtime.engine.numbers import check_numbers
from igpt_runtime.engine.session import Session
from igpt_runtime.errors import BundleError
from igpt_runtime.pictures.reading import Picture, as_pictures
from igpt_runtime.tasks.features import Broken, behind_sos, check_any_read, token_batches
from igpt_runtime.tasks.likeness import Likeness, likeness

Array = npt.NDArray[np.float32]
# Called with the index of a picture, and how it compares with the model's own.
Compared = Callable[[int, Likeness], None]


def classify(session: Session, pictures: Sequence[Picture] | Picture, *, crop: bool = False) -> Array:
    """Class probabilities, float32 [pictures, labels]; the labels are `session.manifest.classifier.labels`.

    `session.manifest.classifier.function_to_apply` tells what they are. With "softmax", one label is right, and the
    probabilities of a picture add up to 1. With "sigmoid", each label has a probability of its own. With "none", the
    results are no probabilities but the values of a regression.

    pictures: one or several; one gives [1, labels].
    crop: keep only the centre of each picture, in the shape of the model's pictures. The protocol `paper` of a
    classifier does so anyway; `hf` squashes pictures.

    Raises:
        BundleError: the bundle has no classifier, or is damaged.
        DeviceError: CUDA was asked for and ONNX Runtime did not start it.
        ImageError: a picture cannot be read.
        OptionError: there are no pictures.
    """
    return np.concatenate([values for _, values in class_results(session, pictures, crop=crop)])


def class_results(
    session: Session,
    pictures: Sequence[Picture] | Picture,
    *,
    crop: bool = False,
    broken: Broken | None = None,
    compared: Compared | None = None,
) -> Iterator[tuple[list[int], Array]]:
    """As `classify`, batch by batch: indices of pictures, and their results [batch, labels].

    broken: see `igpt_runtime.tasks.features.feature_batches`. compared: called with how each picture compares with
    those that the model was trained on, if the bundle knows what these cost; with protocol "hf" that takes as long
    again.
    """
    read, pictures = 0, as_pictures(pictures)
    for indices, logits in class_logits(session, pictures, crop=crop, broken=broken, compared=compared):
        yield indices, apply_function(classifier_of(session), logits)
        read += len(indices)
    check_any_read(read, len(pictures))


def apply_function(classifier: Classifier, logits: Array) -> Array:
    """What transformers' pipeline makes of the outputs of a head, float32 [..., labels]."""
    if classifier.function_to_apply == "none":
        return logits
    # In float64, where neither exponential overflows for any float32.
    wide = logits.astype(np.float64)
    if classifier.function_to_apply == "sigmoid":
        result = np.exp(-np.logaddexp(0, -wide))
    else:
        exponentials = np.exp(wide - wide.max(axis=-1, keepdims=True))
        result = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result.astype(np.float32)


def kind_of(classifier: Classifier) -> str:
    """What one result is called: "probability", or "value" of a regression."""
    return "value" if classifier.function_to_apply == "none" else "probability"


def class_records(classifier: Classifier, images: Sequence[str], rows: Sequence[Array]) -> list[dict[str, Any]]:
    """A record for each picture: its likeliest label, and the probability of each label, the likeliest first.

    Of a regression it is the label of the largest value, and the values. rows: float32 [labels] a picture.
    """
    labels, kind = classifier.labels, kind_of(classifier)
    several = {"probability": "probabilities", "value": "values"}[kind]
    records = []
    for image, row in zip(images, rows, strict=True):
        ranked = [{"label": labels[i], kind: float(row[i])} for i in row.argsort(kind="stable")[::-1]]
        records.append({"image": image, "label": ranked[0]["label"], several: ranked})
    return records


def class_table(classifier: Classifier, images: Sequence[str], rows: Sequence[Array]) -> list[dict[str, object]]:
    """The same as lines of a table, with a column for each label in their order; labels may be alike."""
    labels, kind = classifier.labels, kind_of(classifier)
    return [
        {
            "image": image, "label": labels[int(row.argmax())], kind: float(row.max()),
            **{f"{i} {label}": float(value) for i, (label, value) in enumerate(zip(labels, row, strict=True))},
        }
        for image, row in zip(images, rows, strict=True)
    ]  # fmt: skip


def class_logits(
    session: Session,
    pictures: Sequence[Picture] | Picture,
    *,
    crop: bool = False,
    broken: Broken | None = None,
    compared: Compared | None = None,
) -> Iterator[tuple[list[int], Array]]:
    """What the head gives of pictures, batch by batch: their indices, and float32 [batch, labels].

    broken, compared: see `class_results`.
    """
    rules = PROTOCOLS[classifier_of(session).protocol]
    compare = compared if session.manifest.likelihood is not None else None
    outputs = [graph_io.CLASS_LOGITS, *([graph_io.LOGITS] if compare and rules.sos else [])]
    with contextlib.ExitStack() as stack:
        graph = stack.enter_context(session.part(graph_io.PREFILL, outputs))
        scorer = None  # a likelihood is that of tokens behind sos
        if compare and not rules.sos:
            scorer = stack.enter_context(session.part(graph_io.PREFILL, [graph_io.LOGITS]))
        on_gpu = is_on_cuda(graph)
        for indices, tokens in token_batches(session, pictures, crop=crop or rules.crop, broken=broken, on_gpu=on_gpu):
            inputs = behind_sos(session, tokens) if rules.sos else tokens
            found = graph.run(outputs, {graph_io.INPUT_IDS: inputs})
            check_numbers(session, found[0])
            if scorer is not None:
                found += scorer.run([graph_io.LOGITS], {graph_io.INPUT_IDS: behind_sos(session, tokens)})
            if compare is not None:
                for index, logits, picture in zip(indices, found[1], tokens, strict=True):
                    result = likeness(session.manifest, nats(logits, picture))
                    assert result is not None
                    compare(index, result)
            yield indices, found[0]


def classifier_of(session: Session) -> Classifier:
    """The classifier of a bundle. Raises BundleError if it has none."""
    classifier = session.manifest.classifier
    if classifier is None:
        raise BundleError(
            f"{session.bundle.path} has no classifier; fit one with `igpt-run probe fit` and add it with `igpt-run "
            "probe export`, or export an ImageGPTForImageClassification checkpoint"
        )
    return classifier
