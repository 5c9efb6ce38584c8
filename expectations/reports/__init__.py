"""What a gate decided, for people: as text, as pages, as Great Expectations' own docs and project.

    text      the verdict on 100 columns, and the next command to type
    page      one page per judged commit
    trend     how what a rule observes went over the versions
    failing   the rows that broke rules, and where they come from
    index     all verdicts, newest first
    docs      Great Expectations' Data Docs of the newest;  offline: readable behind a firewall
    site      puts these together, and builds only what is missing
    serve     the site over HTTP, on this machine
    project   a project folder for Great Expectations' own tools
    attached  page and text on the MLflow run

A gate only stores its result; whatever is here is made when somebody asks.
"""

from expectations.reports.attached import attach, keep
from expectations.reports.site import build, build_page
from expectations.reports.text import as_text, in_brief

__all__ = ["as_text", "attach", "build", "build_page", "in_brief", "keep"]
