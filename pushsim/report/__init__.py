"""Pictures of results. The only home of matplotlib; every picture has the style of `style`."""

from pushsim.report.parity import parity_plot

__all__ = ["parity_plot"]
