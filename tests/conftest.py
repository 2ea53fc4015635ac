"""How much hypothesis tries: ``HYPOTHESIS_PROFILE=deep`` looks twenty times longer."""

import os

from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=100, print_blob=True)
settings.register_profile("deep", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
