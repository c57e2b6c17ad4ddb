"""`python -m wrapper` is `holdfast-wrapper`."""

from wrapper.cli import main

if __name__ == "__main__":
    main()
