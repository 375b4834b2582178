"""Run the command line with ``python -m embedlab``."""

from embedlab.cli import main

main()
