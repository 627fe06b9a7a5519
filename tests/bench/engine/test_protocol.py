"""The draw and the AUC: what every number of the benchmark rests on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from bench.engine import protocol

LABELS = np.repeat(np.arange(4), 30)[np.random.default_rng(0).permutation(120)]


def draw(**changes: object) -> np.ndarray:
    arguments = {"class_index": 2, "train_per_class": 7, "dataset": "digits", "run": 0, "base_seed": 0}
    return protocol.draw(LABELS, **{**arguments, **changes})


def test_draw_takes_distinct_images_of_the_class():
    chosen = draw()
    assert len(set(chosen.tolist())) == 7
    assert (LABELS[chosen] == 2).all()
    assert (np.diff(chosen) > 0).all()


def test_draw_is_a_function_of_its_arguments_alone():
    before = draw()
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    np.testing.assert_array_equal(draw(), before)


@pytest.mark.parametrize(
    "change", [{"run": 1}, {"base_seed": 1}, {"dataset": "cifar10"}, {"train_per_class": 8}, {"class_index": 3}]
)
def test_each_argument_gives_another_draw(change):
    assert draw(**change).tolist() != draw().tolist()


def test_draw_is_pinned():
    # A change here changes every published number: raise protocol.VERSION with it.
    assert protocol.derive_seed("draw", 0, "digits", 2, 7, 0) == 3097228184290440113
    assert draw().tolist() == [32, 39, 48, 73, 77, 78, 104]


def subset(labels=LABELS, count=10, **changes) -> np.ndarray:
    return protocol.test_subset(labels, count, **{"dataset": "digits", "base_seed": 0, **changes})


def test_subset_takes_of_each_class_its_share():
    for count in (4, 10, 61, 120):
        chosen = subset(count=count)
        assert chosen.dtype == np.int64
        assert (np.diff(chosen) > 0).all()
        assert len(chosen) == count
        shares = np.bincount(LABELS[chosen])
        assert shares.max() - shares.min() <= 1
    uneven = np.repeat([0, 1, 2], [70, 25, 5])
    assert np.bincount(uneven[subset(uneven, 20)]).tolist() == [14, 5, 1]
    assert np.bincount(uneven[subset(uneven, 10)]).tolist() == [7, 2, 1]
    assert np.bincount(uneven[subset(uneven, 3)]).tolist() == [1, 1, 1]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
def test_subset_is_as_close_to_the_shares_as_whole_images_allow(sizes, data):
    labels = np.repeat(np.arange(len(sizes)) * 3, sizes)
    count = data.draw(st.integers(len(sizes), len(labels)))
    shares = np.bincount(labels[subset(labels, count)], minlength=3 * len(sizes))[::3]
    assert shares.sum() == count
    assert (shares >= 1).all()
    assert (shares <= sizes).all()
    quotas = np.array(sizes) * count / len(labels)
    if (quotas >= 1).all():
        assert (np.abs(shares - quotas) < 1).all()


def test_subset_is_a_function_of_its_arguments_alone():
    before = subset()
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    np.testing.assert_array_equal(subset(), before)
    for change in ({"base_seed": 1}, {"dataset": "cifar10"}):
        assert subset(**change).tolist() != before.tolist()


def test_subset_is_pinned():
    # A change here changes every number on part of a test split: raise protocol.VERSION with it.
    assert subset().tolist() == [7, 8, 48, 60, 70, 75, 88, 100, 114, 118]


@pytest.mark.parametrize("count", [0, 3, 121])
def test_impossible_subset(count):
    with pytest.raises(ValueError, match=rf"--test-images: got {count}, .*120 test images of 4 classes; .* 4 to 120"):
        subset(count=count)


def test_draws_over_runs_cover_the_class_evenly():
    counts = np.bincount(np.concatenate([draw(run=run) for run in range(300)]), minlength=len(LABELS))
    assert counts[LABELS != 2].sum() == 0
    expected = 300 * 7 / 30
    assert (abs(counts[LABELS == 2] - expected) < 6 * np.sqrt(expected)).all()


def test_all_takes_the_whole_class():
    np.testing.assert_array_equal(draw(train_per_class="all", run=3), np.flatnonzero(LABELS == 2))


@pytest.mark.parametrize("m", [0, -1, 31])
def test_impossible_number_of_images(m):
    with pytest.raises(ValueError, match=rf"train_per_class: got {m}.*30 training images.*1 to 30"):
        draw(train_per_class=m)


def test_class_without_images():
    with pytest.raises(ValueError, match="no training images"):
        draw(class_index=9, train_per_class="all")


@settings(derandomize=True, deadline=None)
@given(st.data())
def test_auc_is_that_of_scikit_learn(data):
    n = data.draw(st.integers(2, 60))
    in_class = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    in_class[:2] = [True, False]
    scores = np.array(data.draw(st.lists(st.integers(-5, 5), min_size=n, max_size=n)), dtype=float)
    assert protocol.auc(in_class, scores) == pytest.approx(roc_auc_score(in_class, scores), abs=1e-12)


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_auc_does_not_depend_on_order_or_monotone_scale(seed):
    generator = np.random.default_rng(seed)
    in_class = generator.random(50) < 0.3
    in_class[:2] = [True, False]
    scores = generator.normal(size=50)
    order = generator.permutation(50)
    assert protocol.auc(in_class[order], scores[order]) == protocol.auc(in_class, scores)
    assert protocol.auc(in_class, np.exp(scores)) == protocol.auc(in_class, scores)
    assert protocol.auc(in_class, -scores) == pytest.approx(1 - protocol.auc(in_class, scores), abs=1e-12)


def test_constant_score_is_one_half():
    assert protocol.auc(np.array([True, False, False]), np.zeros(3)) == 0.5


def test_separation_is_exactly_one_and_infinitesimal_differences_count():
    in_class = np.arange(100) < 50
    scores = np.where(in_class, np.nextafter(1.0, 2.0), 1.0)
    assert protocol.auc(in_class, scores) == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_are_refused(bad):
    with pytest.raises(ValueError, match="scores: 1 of 3 are NaN or infinite"):
        protocol.auc(np.array([True, False, True]), np.array([0.0, bad, 1.0]))


@pytest.mark.parametrize(
    "scores", [np.array([1j, 2, 3]), np.array(["1", "2", "3"]), np.array([1.0, None, 2.0], dtype=object)]
)
def test_scores_that_are_no_real_numbers_are_refused(scores):
    with pytest.raises(TypeError, match=r"scores: got dtype .*; accepted are real numbers"):
        protocol.auc(np.array([True, False, True]), scores)


def test_wrong_shape_and_single_kind_are_refused():
    with pytest.raises(ValueError, match="scores: got shape"):
        protocol.auc(np.array([True, False]), np.zeros(3))
    with pytest.raises(ValueError, match="both are needed"):
        protocol.auc(np.array([True, True]), np.zeros(2))
