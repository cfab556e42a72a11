"""What a classifier makes of labelled pictures."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from igpt_export.probe.fit import Probe
from igpt_runtime.engine.session import Session
from igpt_runtime.pictures.reading import Picture
from igpt_runtime.tasks.classify import class_logits
from igpt_runtime.tasks.features import Broken, check_any_read, feature_batches

Ints = npt.NDArray[np.int64]


def predict(
    session: Session, pictures: Sequence[Picture], probe: Probe | None, broken: Broken | None,
    progress: Callable[[int], None],
) -> tuple[Ints, Ints]:  # fmt: skip
    """Indices of the pictures that could be read, and of the likeliest class of each.

    probe: None for the bundle's own classifier; broken: see `igpt_runtime.tasks.features.feature_batches`; progress:
    called with the number of pictures done since. Raises as `igpt_runtime.tasks.classify.classify` does.
    """
    rows: list[int] = []
    found = []
    if probe is None:
        for indices, logits in class_logits(session, pictures, broken=broken):
            rows += indices
            found.append(logits.argmax(1))
            progress(len(logits))
    else:
        for indices, values in feature_batches(
            session, pictures, layers=probe.layers, protocol=probe.protocol, broken=broken
        ):
            rows += indices
            found.append(probe.linear.logits(values.reshape(len(values), -1)).argmax(1))
            progress(len(values))
    check_any_read(len(rows), len(pictures))
    return np.array(rows), np.concatenate(found)


def confusion(true: Sequence[str], named: Sequence[str], labels: Sequence[str]) -> Ints:
    """How often each class, by row, was taken for each, by column, int64 [labels, labels]."""
    index = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, ([index[name] for name in true], [index[name] for name in named]), 1)
    return counts
