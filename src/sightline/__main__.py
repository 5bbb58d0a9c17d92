"""`python -m sightline`, which torchrun starts as `torchrun -m sightline`."""

from sightline.cli import main

if __name__ == "__main__":
    main()
