"""The unbiased estimator of pass@k (Chen et al. 2021, 2107.03374, equation 1)."""


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Probability that at least one of `k` programs is right, drawn from `samples` of which `passed` are.

    1 - C(samples - passed, k) / C(samples, k), as a product, since the binomials pass the range of floats.

    Args:
        samples: programs that were written for a problem.
        passed: of them, those that pass its tests.
        k: programs drawn without replacement, 1 to `samples`.
    """
    assert 0 <= passed <= samples and 1 <= k <= samples, (samples, passed, k)
    if samples - passed < k:
        return 1.0  # every draw holds a right one
    all_wrong = 1.0
    for right in range(passed):
        all_wrong *= 1 - k / (samples - right)
    return 1 - all_wrong
