"""`python -m cfnsr`, which `accelerate launch -m cfnsr` runs in several processes."""

from cfnsr.cli import main

if __name__ == "__main__":
    main()
