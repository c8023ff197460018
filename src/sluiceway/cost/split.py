"""Whole numbers in parts: money in billionths, bytes of a file.

Invariant: the parts sum to the whole, so that a report's rows sum to its total in every dimension.
"""


def split(whole: int, weights: list[float]) -> list[int]:
    """`whole` in parts by weight that sum to it; leftovers go to the largest fractions, of equals
    to the first. All to the first where no weight is above 0."""
    total = sum(weights)
    if not weights:
        return []
    if total <= 0:
        return [whole, *[0] * (len(weights) - 1)]
    exact = [whole * (weight / total) for weight in weights]
    parts = [int(share // 1) for share in exact]
    order = sorted(range(len(parts)), key=lambda at: (parts[at] - exact[at], at))
    left = whole - sum(parts)
    for at in order[: max(0, left)]:
        parts[at] += 1
    parts[order[0]] += min(0, left) + max(0, left - len(parts))
    return parts
