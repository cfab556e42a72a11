"""Tells which digit a picture shows: classifiers trained on real digits only, never on anything a model drew."""

from dataclasses import dataclass

import numpy as np
from sklearn.svm import SVC

from igpt_runtime.pictures.palette import nearest_clusters
from models.digits import digits
from models.digits.inks import Floats, Inks, Ints, coverage_of, paint, random_inks

_COPIES = 10  # warped renderings of every training digit
_SEED = 100
HALF = digits.SIDE**2 // 2  # tokens of the upper eight rows


@dataclass(frozen=True, eq=False)
class Judge:
    """A support vector machine over coverage with ink; it sees no colours."""

    classifier: SVC
    clusters: Floats
    given: int  # how many tokens of a picture it looks at

    def labels(self, tokens: Ints, inks: Inks) -> Ints:
        """The digit 0..9 in each token sequence [n, 256], written in known inks."""
        result: Ints = self.classifier.predict(_seen(tokens, inks, self.clusters)[:, : self.given])
        return result


def train_judge(part: digits.Part, clusters: Floats, given: int = 2 * HALF) -> Judge:
    """Train on quantised renderings of the part's digits, seeing the first `given` tokens of each picture."""
    scans, labels = np.tile(part.scans, (_COPIES, 1, 1)), np.tile(part.labels, _COPIES)
    warped = digits.render(scans, digits.Augmentation(), _SEED)
    coverage = np.concatenate([digits.render(part.scans), warped])
    inks = random_inks(len(coverage), np.random.default_rng(_SEED))
    tokens = nearest_clusters(paint(coverage, inks), clusters).reshape(len(coverage), -1)
    seen = _seen(tokens, inks, clusters)[:, :given]
    classifier = SVC(C=10.0, cache_size=1000).fit(seen, np.concatenate([part.labels, labels]))
    return Judge(classifier, clusters, given)


def _seen(tokens: Ints, inks: Inks, clusters: Floats) -> Floats:
    """Coverage with ink [n, 256] of quantised pictures."""
    colours: Floats = ((clusters + 1) * np.float32(127.5))[tokens].reshape(len(tokens), digits.SIDE, digits.SIDE, 3)
    return coverage_of(colours, inks).reshape(len(tokens), -1)
