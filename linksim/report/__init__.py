"""A self-contained HTML page of one or several runs."""

from linksim.report.page import build_page, write_report
from linksim.report.runs import Run, read_runs

__all__ = ["Run", "build_page", "read_runs", "write_report"]
