"""Solution density and spectral discordance: by hand, and against simulated truth."""

import numpy as np
import pytest

from seedfold.diagnose.density import above_margin, density, discordance


def test_shares_by_hand() -> None:
    effects = np.array(
        [[1, 0, 0, 0], [1, 1, 0, 1], [0, -1, 0, 0], [0, 0, 0, 0], [0, 1, -1, 0], [1, 1, 1, 1]], dtype=float
    )
    found = density(effects, [1, 1, 1, 2, 2, 2], margins=(0.0, 0.25, 0.5), resamples=50)
    assert [(d.sigma, d.margin, d.share) for d in found] == [
        (1, 0.0, pytest.approx(2 / 3)),
        (1, 0.25, pytest.approx(2 / 3)),
        (1, 0.5, pytest.approx(1 / 3)),
        (2, 0.0, 1.0),
        (2, 0.25, pytest.approx(1 / 3)),
        (2, 0.5, pytest.approx(1 / 3)),
    ]
    assert all(d.lo <= d.share <= d.hi and d.true_lo <= d.true_share <= d.true_hi for d in found)


def test_luck_is_taken_out() -> None:
    """True effects N(−2 points, 2 points), 60 examples: luck puts many times more above +3 points than are there."""
    truth = above_margin(-0.02, 0.02, 0.03)
    observed, corrected, covered = [], [], 0
    for seed in range(600):
        rng = np.random.default_rng(seed)
        true = rng.normal(-0.02, 0.02, size=(150, 1))
        effects = true + rng.normal(0, 0.2, size=(150, 60)) + rng.normal(0, 0.05, size=60)
        (found,) = density(effects, np.ones(150), margins=(0.03,))
        observed.append(found.share)
        corrected.append(found.true_share)
        covered += found.true_lo <= truth <= found.true_hi
    assert np.mean(observed) > 5 * truth
    assert np.mean(corrected) == pytest.approx(truth, abs=0.01)
    assert covered >= 558  # 95 % of 600 is 570; below 558 has a chance of 2 %


def test_racing_leaves_the_examples_that_all_answered() -> None:
    effects = np.zeros((4, 6))
    effects[:2, 3:] = np.nan
    effects[:, 0] = 1.0
    (found,) = density(effects, np.ones(4), margins=(0.3,), resamples=10)
    assert found.share == 1.0
    effects[:2, 1:] = np.nan
    with pytest.raises(ValueError, match=r"sigma 1 has effects of shape \(4, 1\)"):
        density(effects, np.ones(4))


def test_discordance_of_generalists_and_specialists() -> None:
    rng = np.random.default_rng(0)
    talent = rng.normal(size=(400, 1))
    generalists = [talent + rng.normal(size=(400, 1)) * 0.05 + rng.normal(size=(400, 30)) * 0.1 for _ in range(3)]
    specialists = [rng.normal(size=(400, 1)) + rng.normal(size=(400, 30)) * 0.1 for _ in range(3)]
    assert discordance(generalists, resamples=50).observed < 0.05
    found = discordance(specialists, resamples=200)
    assert 0.9 < found.observed < 1.1
    assert found.lo <= 1 <= found.hi + 0.05


def test_luck_passes_for_specialisation_until_corrected() -> None:
    rng = np.random.default_rng(1)
    talent = rng.normal(size=(600, 1))
    noisy = [talent + rng.normal(size=(600, 30)) * 6 for _ in range(3)]
    found = discordance(noisy, resamples=20)
    assert found.observed > 0.4
    assert found.corrected == pytest.approx(0, abs=0.12)


def test_equal_seeds_have_no_discordance() -> None:
    assert np.isnan(discordance([np.ones((5, 4)), np.ones((5, 4))], resamples=2).observed)
    with pytest.raises(ValueError, match="at least 2 tasks"):
        discordance([np.ones((5, 4))])
