"""The coefficients against the algorithm they come from, and what they make of a singular value."""

import numpy as np

from nanohf.optim.muon import POLAR_EXPRESS


def best_quintic(low: float, high: float) -> np.ndarray:
    """a, b, c with the smallest largest |1 - (a·x + b·x³ + c·x⁵)| on [low, high], by Remez exchange."""
    inner = np.array([(3 * low + high) / 4, (low + 3 * high) / 4])
    for _ in range(50):
        points = np.array([low, *inner, high])
        system = np.stack([points, points**3, points**5, [1, -1, 1, -1]], axis=1)
        a, b, c, _error = np.linalg.solve(system, np.ones(4))
        inner = np.sqrt((-3 * b + np.array([-1, 1]) * np.sqrt(9 * b * b - 20 * a * c)) / (10 * c))
    return np.array([a, b, c])


def test_the_coefficients_are_the_papers_algorithm():
    """arXiv 2505.16932, Algorithm 1, with its cushion of 0.02."""
    low, high, powers = 0.003, 1.0, np.array([1, 3, 5])
    for step, coefficients in enumerate(POLAR_EXPRESS):
        best = best_quintic(max(low, 0.02 * high), high)
        if low < 0.02 * high:
            best *= 2 / (best @ low**powers + best @ high**powers)
        if step < len(POLAR_EXPRESS) - 1:
            best /= 1.02**powers
        np.testing.assert_allclose(coefficients, best, rtol=1e-9)
        low = best @ low**powers
        high = 2 - low


def test_where_singular_values_end():
    values = np.geomspace(0.003, 1, 10_001)
    for a, b, c in POLAR_EXPRESS:
        values = a * values + b * values**3 + c * values**5
    assert 0.75 < values.min() < values.max() < 1.25
