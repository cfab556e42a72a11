"""The colours of a model's tokens."""

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

Floats = npt.NDArray[np.float32]


def fit_palette(pixels: npt.NDArray[np.uint8], n: int, seed: int) -> Floats:
    """K-means over pixels uint8 [..., 3]; float32 [n, 3] in [-1, 1], of which one is white and one is black."""
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    fitted = KMeans(n, n_init=1, max_iter=100, random_state=seed).fit(colours / 127.5 - 1, sample_weight=counts)
    clusters: Floats = fitted.cluster_centers_.astype(np.float32).clip(-1, 1)
    for extreme in (1, -1):
        clusters[((clusters - extreme) ** 2).sum(1).argmin()] = extreme
    return clusters
