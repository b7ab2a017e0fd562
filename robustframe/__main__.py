"""``python -m robustframe`` is the command line."""

from robustframe.cli import main

if __name__ == "__main__":
    main()
