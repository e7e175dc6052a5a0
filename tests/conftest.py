"""What holds for every test."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a loaded machine takes its time for an example that is right.
settings.register_profile("people", deadline=None)
# CI asks whether the change is sound, with the same examples each time; people's runs look for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "people")
