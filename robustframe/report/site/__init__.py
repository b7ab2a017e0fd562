"""The leaderboard as a folder of pages that work from a file: nothing in them is fetched from anywhere."""

from robustframe.report.site.build import LIMIT, Site, build_site
from robustframe.runs.kept import MOST

__all__ = ["LIMIT", "MOST", "Site", "build_site"]
