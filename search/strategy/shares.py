"""The parts of the predictors' covariance, and the shares of the variance that a predictor may give them."""

PARTS = ("an operation anywhere", "an operation in its row", "a pair of operations anywhere", "a pair in its two rows",
         "all rows together", "size", "size and all rows together", "paths")
"""What the parts of the covariance explain. A random architecture has a variance of about 1 in each."""

PAIRWISE = ((.4, .3, .1, .2, 0, 0, 0, 0), (.2, .5, .1, .2, 0, 0, 0, 0), (.1, .3, .1, .5, 0, 0, 0, 0),
            (.3, .2, .3, .2, 0, 0, 0, 0), (.05, .75, .05, .15, 0, 0, 0, 0))
"""Shares of the variance of each part: operations and pairs of them alone."""

SIZED = ((.1, .1, 0, .1, 0, .3, .4, 0), (.05, .1, 0, .1, 0, .05, .7, 0), (.1, .2, .05, .1, .1, .3, .15, 0))
"""Shares with the size and with all rows together as well."""

PATHS = tuple((*(share / 2 for share in shares[:-1]), .5) for shares in SIZED)
"""Half of ``SIZED``, and half for the paths."""

Shares = tuple[tuple[float, ...], ...]
