"""A page of one or several runs, as one HTML file that needs nothing else."""

from linksim.report.page import build_page, write_report
from linksim.report.runs import ReportRun, read_runs

__all__ = ["ReportRun", "build_page", "read_runs", "write_report"]
