"""Features and class probabilities: one prefill per picture, no generation."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from igpt_runtime import names
from igpt_runtime.complete import Picture, as_image, tokens_of
from igpt_runtime.errors import BundleError, OptionError
from igpt_runtime.generate import Tokens
from igpt_runtime.session import Session

Array = npt.NDArray[np.float32]

_BATCH = 8  # pictures a prefill takes at once: more only cost memory


def features(session: Session, pictures: Sequence[Picture], *, crop: bool = False) -> Array:
    """Mean-pooled hidden states of every layer, float32 [pictures, n_layer + 1, n_embd].

    Layer i is transformers' `hidden_states[i]` for the tokens of its image processor: 0 is the embedding, n_layer the
    last hidden state after the final layer norm.

    Raises:
        ImageError: a picture cannot be read.
        OptionError: there are no pictures.
    """
    return _pooled(session, pictures, names.FEATURES, crop=crop, sos=False)


def classify(session: Session, pictures: Sequence[Picture], *, crop: bool = False) -> Array:
    """Class probabilities, float32 [pictures, labels]; the labels are `session.manifest.classifier.labels`.

    Raises:
        BundleError: the bundle has no classifier.
        ImageError: a picture cannot be read.
        OptionError: there are no pictures.
    """
    classifier = session.manifest.classifier
    if classifier is None:
        raise BundleError(
            f"{session.bundle.path} has no classifier; export an ImageGPTForImageClassification checkpoint, "
            "or one with a probe head"
        )
    logits = _pooled(session, pictures, names.CLASS_LOGITS, crop=crop, sos=classifier.sos)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def _pooled(session: Session, pictures: Sequence[Picture], output: str, *, crop: bool, sos: bool) -> Array:
    """One output of the prefill graph for all pictures. sos: shift the tokens behind sos, as in pre-training."""
    if not pictures:
        raise OptionError("no pictures were given; give at least one")
    batches = []
    with session.borrowed(names.PREFILL) as graph:
        for batch in token_batches(session, pictures, crop):
            inputs = behind_sos(session, batch) if sos else batch
            batches.append(graph.run([output], {names.INPUT_IDS: inputs})[0])
    return np.concatenate(batches)


def behind_sos(session: Session, tokens: Tokens) -> Tokens:
    """sos and all tokens but the last, the input of pre-training. tokens: int64 [pictures, height * width]."""
    start = np.full((len(tokens), 1), session.manifest.config.sos, np.int64)
    return np.concatenate([start, tokens[:, :-1]], axis=1)


def token_batches(session: Session, pictures: Sequence[Picture], crop: bool) -> Iterator[Tokens]:
    """The tokens of pictures, as many at once as a prefill takes well, int64 [pictures, height * width]."""
    for first in range(0, len(pictures), _BATCH):
        batch = pictures[first : first + _BATCH]
        yield np.stack([tokens_of(session, as_image(picture), crop=crop) for picture in batch])
