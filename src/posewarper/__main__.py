"""``python -m posewarper`` is ``posewarper``: what ``torchrun -m`` needs."""

from posewarper.cli.app import main

if __name__ == "__main__":
    main()
