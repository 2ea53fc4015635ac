"""The long chaos tests: ``make chaos``. A run of all tests leaves them out; who names this directory gets them."""
