"""Every recorded file has a test."""

from __future__ import annotations

from pathlib import Path


def test_every_recorded_file_is_named_in_a_test(parity_dir: Path) -> None:
    tests = "\n".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_parity_*.py"))
    recorded = {p.name for p in parity_dir.iterdir()} - {"README.md"}
    assert recorded
    # Some tests put names together: "affine_crop" and ".npz", "state_dict_names_" and a stage.
    missing = {n for n in recorded if n not in tests and Path(n).stem not in tests}
    assert missing <= {"state_dict_names_poseagg_w48.csv"}, missing
