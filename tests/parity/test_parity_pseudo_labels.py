"""An annotation file joined by propagated poses, against the one that the original wrote."""

from __future__ import annotations

import copy
import json

import pytest
from largest_errors import record
from original_rules import has_keypoints
from paper_pseudo_labels import paper_pseudo_labels


@pytest.fixture(scope="module")
def recorded(parity_dir):
    return json.loads((parity_dir / "pseudo_labels.json").read_text())


def test_the_whole_file(recorded):
    document = recorded["input"]
    before = copy.deepcopy(document)
    usable = [a["id"] for a in document["annotations"] if has_keypoints(a)]
    assert usable == recorded["usable_annotation_ids"]
    predictions = {delta: recorded["predictions"][str(delta)] for delta in recorded["deltas"]}
    ours = paper_pseudo_labels(document, predictions)
    assert ours == recorded["expected"]
    assert json.loads(json.dumps(ours)) == ours
    assert document == before
    record("pseudo_labels.json", 0.0, "exact")
