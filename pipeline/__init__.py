"""imgpipe: images in bulk through a paid API, each bought once."""

__version__ = "0.1.0"
