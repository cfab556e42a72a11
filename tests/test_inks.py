"""Digits in any ink."""

import numpy as np

from models.digits import digits
from models.digits.evaluate import kinds
from models.digits.inks import coverage_of, mixtures, one_ink, paint, random_inks
from models.digits.train import Digits

COVERAGE = digits.render(digits.load_split()[0].scans[:500])


def test_inks_are_seen_on_their_grounds() -> None:
    inks = random_inks(5000, np.random.default_rng(0))
    assert np.abs(inks.ink - inks.ground).sum(1).min() > 100
    black, white = (inks.ink == 0).all(1), (inks.ink == 255).all(1)
    assert 0.17 < (black & (inks.ground == 255).all(1)).mean() < 0.25
    assert 0.10 < (white & (inks.ground == 0).all(1)).mean() < 0.17
    assert len(np.unique(inks.ink, axis=0)) > 3000


def test_painted_coverage_is_read_again() -> None:
    for inks in kinds(len(COVERAGE)).values():
        pictures = paint(COVERAGE, inks)
        assert np.abs(coverage_of(pictures, inks) - COVERAGE / 255).max() < 0.02
    plain = paint(COVERAGE, one_ink(len(COVERAGE), 0, 255))
    assert (plain == 255 - COVERAGE[..., None]).all()


def test_mixtures_are_all_colours_of_a_digit() -> None:
    inks = random_inks(20, np.random.default_rng(1))
    known = mixtures(inks)
    for picture, colours in zip(paint(COVERAGE[:20], inks), known, strict=True):
        assert {tuple(pixel) for pixel in picture.reshape(-1, 3)} <= {tuple(colour) for colour in colours}


def test_batches_depend_on_the_seed_only() -> None:
    source = Digits()
    first, again, other = (source.batch(40, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any() and first.shape == (40, 16, 16, 3)
    assert len(source.held_out()) == 360
