"""The store that gx/great_expectations.yml names, so that whoever opens that project knows our expectations.

`gx.get_context(mode="file", project_root_dir="expectations")` imports the module of each store, and nothing
else of ours; a suite whose expectations are unknown would be left out without a word.
"""

from great_expectations.data_context.store import ExpectationsStore as ExpectationsStore

import expectations.custom  # noqa: F401  registers them
