"""The pictures that the tests of the provider use, shared."""

from tests.provider.conftest import pictures

__all__ = ["pictures"]
