"""Features and class probabilities: one prefill per picture, of the graph up to the deepest layer that is read."""

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import PROTOCOLS, Protocol
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.cuda_start import is_on_cuda
from igpt_runtime.engine.generate import Tokens
from igpt_runtime.engine.numbers import check_numbers
from igpt_runtime.engine.session import Session
from igpt_runtime.errors import ImageError, OptionError
from igpt_runtime.pictures.reading import Picture, as_image, as_pictures
from igpt_runtime.tasks.complete import tokens_of

Array = npt.NDArray[np.float32]
Broken = Callable[[str], None]  # called with what is wrong with a picture that is left out

_BATCH = 8  # pictures a prefill takes at once: more only cost memory
_GPU_BATCH = 32  # likewise on a GPU
_READERS = min(8, os.cpu_count() or 1)  # threads that read pictures for a GPU


def features(
    session: Session,
    pictures: Sequence[Picture] | Picture,
    *,
    layers: Sequence[int] | None = None,
    protocol: str = "hf",
    crop: bool = False,
) -> Array:
    """Features of layers: their states, averaged over the tokens, float32 [pictures, layers, n_embd].

    pictures: one or several; one gives [1, layers, n_embd].
    layers: numbers 0 .. n_layer, in the order of the result; None is all of them, in order. Blocks behind the last of
    them are not computed. Layer 0 is the embedding, layer n_layer the output of the final layer norm.
    protocol: "hf" gives the averages of transformers' `hidden_states` for the tokens of its image processor. "paper"
    ("Generative Pretraining from Pixels", section 2.3) crops the picture, puts sos before the tokens, leaves out the
    last one, and gives the averages of what each block's attention reads, which is layer-normed.
    crop: with "hf", keep only the centre of each picture, in the shape of the model's pictures; "paper" does so anyway.

    Raises:
        ImageError: a picture cannot be read.
        OptionError: there are no pictures, no such layer, or no such protocol.
        BundleError: the bundle is damaged.
        DeviceError: CUDA was asked for and ONNX Runtime did not start it.
    """
    batches = feature_batches(session, pictures, layers=layers, protocol=protocol, crop=crop)
    return np.concatenate([values for _, values in batches])


def feature_batches(
    session: Session,
    pictures: Sequence[Picture] | Picture,
    *,
    layers: Sequence[int] | None = None,
    protocol: str = "hf",
    crop: bool = False,
    broken: Broken | None = None,
) -> Iterator[tuple[list[int], Array]]:
    """As `features`, batch by batch: indices of pictures, and their features [batch, layers, n_embd].

    With "hf", layer i is transformers' `hidden_states[i]` for the tokens of its image processor: 0 is the embedding,
    n_layer the last hidden state, after the final layer norm. With "paper" ("Generative Pretraining from Pixels",
    section 2.3), pictures are cut square, sos comes first and the last token is left out, and layer i is the
    layer-normed input of block i's attention; n_layer is as above.

    broken: called with what is wrong with a picture that cannot be read, instead of raising.
    """
    kept = checked_layers(session.manifest, layers)
    rules = rules_of(protocol)
    output = graph_io.NORMED_FEATURES if rules.normed else graph_io.FEATURES
    with session.part(graph_io.PREFILL, [output], {output: kept}) as graph:
        on_gpu = is_on_cuda(graph)
        for indices, tokens in token_batches(session, pictures, crop=crop or rules.crop, broken=broken, on_gpu=on_gpu):
            inputs = behind_sos(session, tokens) if rules.sos else tokens
            (values,) = graph.run([output], {graph_io.INPUT_IDS: inputs})
            check_numbers(session, values)
            yield indices, values


def rules_of(protocol: str) -> Protocol:
    """What a protocol says. Raises OptionError for an unknown one."""
    if protocol not in PROTOCOLS:
        raise OptionError(f"unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]


def checked_layers(manifest: Manifest, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The layers that are asked for, all if None. Raises OptionError for what is no layer, or none."""
    n_layer = manifest.config.n_layer
    kept = tuple(range(n_layer + 1)) if layers is None else tuple(layers)
    if not kept or not all(0 <= layer <= n_layer for layer in kept):
        raise OptionError(
            f"layers must be of 0 .. {n_layer} for this bundle, got {', '.join(map(str, kept)) or 'none'}"
        )
    return kept


def behind_sos(session: Session, tokens: Tokens) -> Tokens:
    """sos and all tokens but the last, the input of pre-training. tokens: int64 [pictures, height * width]."""
    start = np.full((len(tokens), 1), session.manifest.config.sos, np.int64)
    return np.concatenate([start, tokens[:, :-1]], axis=1)


def token_batches(
    session: Session,
    pictures: Sequence[Picture] | Picture,
    *,
    crop: bool,
    broken: Broken | None = None,
    on_gpu: bool = False,
) -> Iterator[tuple[list[int], Tokens]]:
    """Indices and tokens of pictures, as many at once as a prefill takes well, int64 [batch, height * width].

    broken: called with what is wrong with a picture that cannot be read, instead of raising ImageError; on_gpu: read
    the next files meanwhile. Raises OptionError if there are no pictures.
    """
    pictures = as_pictures(pictures)
    if not pictures:
        raise OptionError("no pictures were given; give at least one")
    reads = (functools.partial(_read, session, picture, crop) for picture in pictures)
    if on_gpu:  # which would wait for them; a CPU has no time to spare
        yield from _batches(_ahead(reads), _GPU_BATCH, broken)
    else:
        yield from _batches(reads, _BATCH, broken)


def _batches(
    reads: Iterable[Callable[[], Tokens]], size: int, broken: Broken | None
) -> Iterator[tuple[list[int], Tokens]]:
    """As `token_batches`. reads: what to call for the tokens of each picture."""
    indices: list[int] = []
    rows: list[Tokens] = []
    for index, read in enumerate(reads):
        try:
            rows.append(read())
            indices.append(index)
        except ImageError as error:
            if broken is None:
                raise
            broken(str(error))
        if len(rows) == size:
            yield indices, np.stack(rows)
            indices, rows = [], []
    if rows:
        yield indices, np.stack(rows)


def _ahead(reads: "Iterable[functools.partial[Tokens]]") -> Iterator[Callable[[], Tokens]]:
    """The same, where files are read by other threads some time before. Streams and open pictures are not theirs."""
    from concurrent.futures import ThreadPoolExecutor  # takes a while, which a CPU does not need

    pool = ThreadPoolExecutor(_READERS)
    coming = (
        pool.submit(read).result if isinstance(read.args[1], (str, os.PathLike, bytes)) else read for read in reads
    )
    try:
        waiting = deque(itertools.islice(coming, 2 * _GPU_BATCH))
        while waiting:
            yield waiting.popleft()
            waiting.extend(itertools.islice(coming, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(session: Session, picture: Picture, crop: bool) -> Tokens:
    return tokens_of(session, as_image(picture), crop=crop)


def check_any_read(read: int, given: int) -> None:
    """Raise ImageError if no picture of those given could be read."""
    if not read:
        raise ImageError(f"none of {given} pictures can be read; give at least one that can")
