"""Skeletons: which names are mirror images of each other, and what a skeleton refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest

from posewarper.errors import LabelsError
from posewarper.skeletons import PRESETS, Skeleton, named_skeleton


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_knee", "right_knee"),
        ("LEFT_KNEE", "RIGHT_KNEE"),
        ("Left Hand", "Right Hand"),
        ("leftKnee", "rightKnee"),
        ("KneeLeft", "KneeRight"),
        ("hand.left.3", "hand.right.3"),
        ("LKnee", "RKnee"),
        ("wingL", "wingR"),
        ("forelegL4", "forelegR4"),
        ("paw_l", "paw_r"),
        ("l_paw", "r_paw"),
        ("L-ear", "R-ear"),
        ("ear tip L", "ear tip R"),
        ("front_L_paw", "front_R_paw"),
        ("l", "r"),
    ],
)
def test_mirror_pairs_are_read_from_names(left, right):
    assert Skeleton(("nose", left, "tail", right)).flip_pairs == ((1, 3),)
    assert Skeleton((right, left)).flip_pairs == ((0, 1),)


@pytest.mark.parametrize(
    "names",
    [
        ("nose", "tail"),
        ("left_eye", "right_ear"),  # different parts
        ("left_eye", "Right_eye"),  # another way of writing is another name
        ("ball", "bare"),  # letters within a word are no side
        ("lip", "rip"),
        ("leg4", "reg4"),
        ("Lip", "Rip"),
        ("left_eye",),  # the other side is not labelled
    ],
)
def test_names_without_a_partner_make_no_pair(names):
    assert Skeleton(names).flip_pairs == ()


def test_a_side_is_read_once_in_a_name():
    skeleton = Skeleton(("left_l", "right_l", "left_r", "right_r"))
    assert set(skeleton.flip_pairs) == {(0, 1), (2, 3)}


def test_given_pairs_count_and_none_may_be_given():
    assert Skeleton(("left_a", "right_a", "b"), flip_pairs=((0, 2),)).flip_pairs == ((0, 2),)
    assert Skeleton(("left_a", "right_a"), flip_pairs=()).flip_pairs == ()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_symmetric(name):
    skeleton = named_skeleton(name)
    paired = sorted(k for pair in skeleton.flip_pairs for k in pair)
    sided = [k for k, n in enumerate(skeleton.names) if re.search("left|right", n.lower()) or n[:2].isupper()]
    assert [k for k in paired if not skeleton.names[k].startswith("face-")] == sided
    edges = {frozenset(edge) for edge in skeleton.edges}
    assert len(edges) == len(skeleton.edges)
    order = skeleton.flip_order
    assert {frozenset(order[k] for k in edge) for edge in edges} == edges
    upper, lower = skeleton.halves
    assert sorted(upper + lower) == list(range(len(skeleton)))
    assert {order[k] for k in lower} == set(lower)


def test_the_flip_order_is_its_own_inverse():
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = int(rng.integers(1, 12))
        pairs = tuple(rng.permutation(n)[: n // 2 * 2].reshape(-1, 2).tolist())
        order = np.array(Skeleton(tuple(map(str, range(n))), flip_pairs=pairs).flip_order)
        assert order[order].tolist() == list(range(n))
        assert (order != np.arange(n)).sum() == 2 * len(pairs)


def test_halves_of_the_body():
    names = ("nose", "left_shoulder", "left_hip", "LKnee", "right_ankle", "LBigToe", "RHeel", "Foot")
    assert Skeleton(names).halves == ((0, 1), (2, 3, 4, 5, 6, 7))
    assert Skeleton(("wing", "tail")).halves == ((0, 1), ())


def test_values_are_made_plain():
    skeleton = Skeleton(["a", "b"], edges=np.array([[0, 1]]), flip_pairs=[[0, 1]])  # type: ignore[arg-type]
    assert skeleton == Skeleton(("a", "b"), ((0, 1),), ((0, 1),))
    assert len(skeleton) == 2
    assert all(type(k) is int for k in (*skeleton.edges[0], *skeleton.flip_pairs[0]))
    assert hash(skeleton) == hash(Skeleton(("a", "b"), ((0, 1),), ((0, 1),)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ()}, "no keypoints"),
        ({"names": ("a", "b", "a")}, "twice"),
        ({"names": ("a", "b"), "edges": ((0, 2),)}, "from 0 to 1"),
        ({"names": ("a", "b"), "edges": ((-1, 0),)}, "from 0 to 1"),
        ({"names": ("a", "b"), "flip_pairs": ((1, 2),)}, "from 0 to 1"),
        ({"names": ("a", "b", "c"), "flip_pairs": ((0, 1), (1, 2))}, "two mirror pairs"),
        ({"names": ("a", "b"), "flip_pairs": ((0, 0),)}, "two mirror pairs"),
    ],
)
def test_impossible_skeletons_are_refused(arguments, message):
    with pytest.raises(LabelsError, match=message) as caught:
        Skeleton(**arguments)
    assert caught.value.fix


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(LabelsError, match="coco, posetrack, body_25b"):
        named_skeleton("dog")


@pytest.mark.parametrize("name", ["jrdb", "blazepose"])
def test_every_keypoint_has_an_edge(name):
    skeleton = PRESETS[name]
    assert {k for edge in skeleton.edges for k in edge} == set(range(len(skeleton)))
