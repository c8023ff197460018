"""Rollup: raw points become windows, in files that are verified before anything rests on them."""
