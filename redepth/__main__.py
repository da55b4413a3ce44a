"""``python -m redepth`` is the ``redepth`` command."""

from redepth.cli import main

if __name__ == "__main__":
    main()
