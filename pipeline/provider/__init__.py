"""One attempt: a task goes out as a paid request, its answer comes back judged.

catalogue   what models can do and cost
"""

from pipeline.provider.catalogue import Catalogue

__all__ = ["Catalogue"]
