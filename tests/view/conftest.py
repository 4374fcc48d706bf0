"""The fixtures of reports, shared: a clock, and what a run tells of itself."""

from tests.report.conftest import clock, ended, gauge, started, summary

__all__ = ["clock", "ended", "gauge", "started", "summary"]
