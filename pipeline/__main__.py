"""`python -m pipeline` is `imgpipe`."""

from pipeline.cli.main import main

main()
