"""Arms the mutant that `python -m tests.faults.mutants` asks for, for a whole run of pytest."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    mutant = os.environ.get("SLUICEWAY_TEST_MUTANT")
    if mutant:
        from sluiceway.kernels import arm_mutant

        if not arm_mutant(mutant):
            raise pytest.UsageError("this build has no mutants: make mutants")
