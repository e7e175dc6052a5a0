"""What holds for every test."""

from __future__ import annotations

import os

from hypothesis import settings

# CI asks whether the change is sound, with the same examples each time; people's runs look for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
