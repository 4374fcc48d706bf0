"""Runs the command line as `python -m pipeline`. Python asks for a module of this name."""

from pipeline.cli.main import main

main()
