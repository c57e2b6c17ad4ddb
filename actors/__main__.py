"""`python -m actors` is `holdfast`."""

from actors.cli import main

if __name__ == "__main__":
    main()
