"""Tells which digit a picture shows: classifiers trained on real digits only, never on anything the model drew."""

from dataclasses import dataclass

import digits
import numpy as np
from sklearn.svm import SVC

_COPIES = 10  # augmented renderings of every training digit
_SEED = 100
HALF = digits.SIDE**2 // 2  # tokens of the upper eight rows


@dataclass(frozen=True, eq=False)
class Judge:
    """A support vector machine over ink coverage; it does not see hues."""

    classifier: SVC
    coverage: digits.Floats  # [n_clusters], ink coverage of each cluster
    given: int  # how many tokens of a picture it looks at

    def labels(self, tokens: digits.Ints) -> digits.Ints:
        """The digit 0..9 in each token sequence [n, 256]."""
        result: digits.Ints = self.classifier.predict(self.coverage[tokens[:, : self.given]])
        return result


def train_judge(part: digits.Part, clusters: digits.Floats, given: int = 2 * HALF) -> Judge:
    """Train on quantised renderings of the part's digits, seeing the first `given` tokens of each picture."""
    scans, labels = np.tile(part.scans, (_COPIES, 1, 1)), np.tile(part.labels, _COPIES)
    warped = digits.render(scans, digits.Augmentation(), _SEED)
    pictures = np.concatenate([digits.render(part.scans), warped])
    tokens = digits.token_sequences(pictures, digits.random_inks(len(pictures), _SEED), clusters)
    coverage = digits.cluster_coverage(clusters)
    classifier = SVC(C=10.0, cache_size=1000).fit(coverage[tokens[:, :given]], np.concatenate([part.labels, labels]))
    return Judge(classifier, coverage, given)
