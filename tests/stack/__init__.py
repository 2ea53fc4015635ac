"""The real parts for tests: where they are found, and tests of the stack itself."""
