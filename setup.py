"""What pyproject.toml cannot say: the README for the package's page, beside which no other file stands."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def readme() -> str:
    """Return the README, whose links to other files lead to those of the same version in the repository."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    version = re.search(
        r'__version__ = "(.*)"', (ROOT / "src/posewarper/version.py").read_text(encoding="utf-8")
    )
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    home = settings["project"]["urls"]["Homepage"]
    assert version is not None

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link["picture"] else "blob"
        return f"{link['picture']}[{link['text']}]({home}/{kind}/v{version[1]}/{link['path']})"

    return re.sub(r"(?P<picture>!?)\[(?P<text>[^]]*)]\((?P<path>(?!https?:|#)[^)]*)\)", absolute, text)


setup(long_description=readme(), long_description_content_type="text/markdown")
