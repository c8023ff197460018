"""What holds for every test.

Servers under test share their cores with the test run, which may take all of them: queries on idle
time alone (the default) would wait for ever. test_priority.py has the default.
"""

import os

os.environ.setdefault("SLUICEWAY_QUERIES_RUN", "shared")
