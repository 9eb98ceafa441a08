import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab.training.data import digits
from insgd_lab.training.subsets import Subset, SubsetError

label_lists = st.lists(st.integers(0, 4), min_size=10, max_size=200)


def kept(labels, **options) -> set[int]:
    return set(Subset(**options).rows(np.array(labels), "test").tolist())


@given(label_lists, st.floats(0.01, 1), st.floats(0.01, 1))
def test_fractions_nest_and_hold_every_class(labels, one, two):
    smaller, larger = (kept(labels, fraction=f) for f in sorted((one, two)))
    assert smaller <= larger
    assert {labels[row] for row in smaller} == set(labels)
    assert kept(labels) == set(range(len(labels)))


LABELS = np.random.RandomState(0).permutation(np.repeat(np.arange(5), [60, 50, 55, 40, 70]))


@given(
    fractions=st.tuples(st.floats(0.5, 1), st.floats(0.5, 1)),
    shots=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    ratios=st.tuples(st.floats(1, 40), st.floats(1, 40)),
    imbalance=st.sampled_from(["none", "exponential", "step"]),
)
def test_less_of_anything_lies_inside_more_of_it(fractions, shots, ratios, imbalance):
    count = min(shots)
    few, many = sorted(shots)
    gentle, steep = sorted(min(ratio, count) for ratio in ratios)
    part, whole = sorted(fractions)

    def rows(**options) -> set[int]:
        return kept(LABELS, imbalance=imbalance, **options)

    assert rows(fraction=part, shots=few, imbalance_ratio=gentle) == rows(shots=few, imbalance_ratio=gentle)
    assert rows(shots=few, imbalance_ratio=gentle) <= rows(shots=many, imbalance_ratio=gentle)
    assert rows(shots=few, imbalance_ratio=steep) <= rows(shots=few, imbalance_ratio=gentle)
    gentle, steep = sorted(min(ratio, 20) for ratio in ratios)
    assert rows(fraction=part, imbalance_ratio=steep) <= rows(fraction=whole, imbalance_ratio=steep)
    assert rows(fraction=part, imbalance_ratio=steep) <= rows(fraction=part, imbalance_ratio=gentle)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [450] * 5),
        ({"fraction": 0.1}, [45] * 5),
        ({"shots": 7}, [7] * 5),
        ({"imbalance": "exponential"}, [450, 253, 142, 80, 45]),  # 450 / 10^(i/4): 253.05, 142.30, 80.02
        ({"imbalance": "exponential", "imbalance_ratio": 16, "shots": 160}, [160, 80, 40, 20, 10]),
        ({"imbalance": "exponential", "imbalance_ratio": 1}, [450] * 5),
        ({"imbalance": "step", "imbalance_ratio": 9}, [450, 450, 450, 50, 50]),
        ({"imbalance": "step", "fraction": 0.2, "shots": 50}, [50, 50, 50, 5, 5]),
        ({"imbalance": "none", "imbalance_ratio": 1000}, [450] * 5),
    ],
)
def test_the_profiles_are_those_of_the_papers(options, expected):
    assert Subset(**options).counts([450] * 5) == expected


@given(st.integers(2, 100), st.floats(1, 50), st.sampled_from(["exponential", "step"]))
def test_the_ratio_is_that_of_the_largest_class_to_the_smallest(classes, ratio, imbalance):
    counts = Subset(imbalance=imbalance, imbalance_ratio=ratio).counts([1000 + k for k in range(classes)])
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 1000
    assert counts[-1] == pytest.approx(1000 / ratio, abs=0.5)
    if imbalance == "exponential":
        steps = np.diff(np.log([1000 / ratio ** (k / (classes - 1)) for k in range(classes)]))
        assert steps == pytest.approx([-math.log(ratio) / (classes - 1)] * (classes - 1), abs=1e-9)
    else:
        assert len([count for count in counts if count == 1000]) == (
            classes - classes // 2 if ratio > 1.001 else classes
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"fraction": f}, "fraction = .*above 0 and at most 1") for f in (0.0, -0.1, 1.5, math.nan)),
        *(({"shots": s}, "shots = .*whole number >= 1") for s in (0, -1, 2.0, True)),
        ({"imbalance": "cubic"}, "imbalance = 'cubic': expected one of 'none', 'exponential', 'step'"),
        *(({"imbalance_ratio": r}, "imbalance_ratio = .*finite number >= 1") for r in (0.5, math.inf, math.nan)),
        ({"shots": 1000}, "shots = 1000: the smallest class has 116 training images; choose 116 or fewer"),
        (
            {"shots": 100, "fraction": 0.5},
            r"shots = 100: the smallest class has 58 training images \(fraction = 0.5\); choose 58 or fewer",
        ),
        (
            {"shots": 5, "imbalance": "step"},
            "imbalance_ratio = 10.0: leaves no image in the smallest class where the largest has 5; choose at most 5",
        ),
    ],
)
def test_an_impossible_subset_is_refused_with_what_is_possible(options, message):
    with pytest.raises(ValueError, match=message):
        digits(**options)


def test_an_error_of_the_data_names_its_option():
    with pytest.raises(SubsetError) as caught:
        digits(shots=1000)
    assert (caught.value.option, caught.value.value) == ("shots", 1000)


def images(split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


@pytest.mark.parametrize("options", [{"fraction": 0.25}, {"shots": 20}, {"imbalance": "exponential"}])
def test_a_subset_shortens_the_training_split_only(options):
    whole, part = digits(), digits(**options)
    assert images(part.train) < images(whole.train)
    assert torch.equal(part.test.images, whole.test.images)
    assert torch.equal(part.val.images, whole.val.images)
    assert part.by_class == ("fraction" not in options)
    again = digits(**options)
    assert torch.equal(part.train.images, again.train.images)
    assert torch.equal(part.train.labels, again.train.labels)


def test_digits_are_kept_in_the_asked_proportions():
    assert digits(shots=20).train.labels.bincount().tolist() == [20] * 10
    steps = digits(shots=100, imbalance="step", imbalance_ratio=20).train.labels.bincount().tolist()
    assert steps == [100] * 5 + [5] * 5
    falling = digits(imbalance="exponential").train.labels.bincount().tolist()
    assert (falling[0], falling[-1]) == (116, 12)


def test_a_subset_is_the_same_in_every_version():
    train = digits(shots=2, imbalance="step", imbalance_ratio=2).train
    assert train.labels.tolist() == [8, 3, 1, 4, 3, 1, 4, 0, 2, 7, 5, 9, 2, 6, 0]
    assert int(train.images.long().sum()) == 4609
