"""Runs several commands in one process: what torchrun starts need not start for each anew."""

from __future__ import annotations

import json
import sys

from posewarper.cli.app import app

if __name__ == "__main__":
    for words in json.loads(sys.argv[1]):
        try:
            app(words, prog_name="posewarper")
        except SystemExit as left:
            if left.code:
                raise
