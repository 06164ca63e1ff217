"""The public names: all load, none hides a module, and importing the package is light."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import posewarper
from posewarper.errors import PosewarperError
from posewarper.skeletons import Skeleton

FRAME = np.zeros((4, 6, 3), np.uint8)
ONE = Skeleton(("nose",))


@pytest.mark.parametrize("name", posewarper.__all__)
def test_every_public_name_loads_and_is_documented(name):
    value = getattr(posewarper, name)
    assert name in dir(posewarper)
    if name != "__version__":
        assert inspect.getdoc(value)
        assert value.__name__ == name
        assert getattr(posewarper, name) is value


def test_the_public_names_are_these():
    assert set(posewarper.__all__) == {
        *("LabelFile", "Labels", "Poses", "Skeleton", "__version__"),
        *(
            "evaluate",
            "fit",
            "load_model",
            "open_video",
            "predict",
            "propagate",
            "read_labels",
            "suggest",
            "write_labels",
        ),
    }


WRONG = {
    "open_video": [((None,), {}), (([],), {}), ((np.zeros((2, 4, 4, 3)),), {}), (([FRAME, FRAME[:2]],), {})],
    "read_labels": [((None,), {}), ((3,), {"video": None})],
    "write_labels": [(("x.json", None), {}), (("x.json", {}), {}), ((None, None), {})],
    "propagate": [((None, None), {}), (([FRAME], None), {}), (([FRAME], 3), {}), ((["a"], None), {})],
    "fit": [(([FRAME], None), {}), (([FRAME], None), {"config": {}}), (([FRAME], None), {"network": "x"})],
    "predict": [(([FRAME], None), {}), (([FRAME], 3), {"boxes": []})],
    "load_model": [((None,), {}), ((3,), {})],
    "evaluate": [((None, None), {}), (("x.json", []), {"metric": "pck"})],
    "suggest": [((None,), {}), (([FRAME], 3), {}), (([FRAME],), {"result": 3}), (([FRAME],), {"count": 0})],
    "Skeleton": [(("nose",), {}), ((["a", "b"], [("a", "c")]), {}), ((["a"], 3), {})],
    "Labels": [((("a",), {}), {}), ((ONE, [1]), {}), ((ONE, {0: np.zeros((3, 1, 2))}), {})],
    "Poses": [((ONE, {}, None, 3), {}), ((None, {}, (3, 3), 3), {}), ((ONE, None, (3, 3), 3), {})],
}


@pytest.mark.parametrize(
    ("name", "given"), [(name, given) for name, calls in WRONG.items() for given in calls]
)
def test_values_of_a_wrong_type_end_in_an_error_that_says_what_was_expected(name, given):
    with pytest.raises(PosewarperError, match="fix:"):
        getattr(posewarper, name)(*given[0], **given[1])


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'posewarper' has no attribute 'propagat'"):
        _ = posewarper.propagat  # type: ignore[attr-defined]


def test_a_star_import_brings_the_public_names():
    names: dict[str, object] = {}
    exec("from posewarper import *", names)
    assert set(posewarper.__all__) <= set(names)


def test_importing_the_package_is_light():
    heavy = "{'torch', 'cv2', 'av', 'numpy', 'timm', 'scipy', 'pydantic'}"
    script = f"import sys, posewarper; dir(posewarper); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_labels_and_skeletons_do_without_the_network():
    script = "import sys; from posewarper import Labels, Skeleton, Poses; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def module_names() -> list[str]:
    return [m.name for m in pkgutil.walk_packages(posewarper.__path__, "posewarper.")]


def test_no_module_bears_the_name_of_a_public_function():
    planned = {"predict", "evaluate"}
    # A command's file bears the command's name; nobody imports from there.
    names = [name for name in module_names() if not name.startswith("posewarper.cli.")]
    last_parts = {name.rsplit(".", 1)[-1] for name in names}
    assert not last_parts & (set(posewarper.__all__) | planned)


def test_every_module_can_be_imported_and_says_what_it_is_for():
    for name in module_names():
        assert importlib.import_module(name).__doc__, name
