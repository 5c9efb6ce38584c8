"""Where does it run: settings, the Ray session, storage, base models, endpoints, the command line."""

PACKAGES = ("infra", "lineage", "expectations", "pipelines", "training", "search", "examples")
