"""Results as one page: self-contained, for a browser, a phone, paper, by day and by night.

>>> from pushsim.result import Result, Results
>>> page = html(Results([Result("<script>", {"changes": 1})]))
>>> "<h2>Main figures</h2>" in page, "<th><script>" in page
(True, False)
"""

from pushsim.reports.page import html, report

__all__ = ["html", "report"]
