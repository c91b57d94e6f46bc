"""The app with a network that takes its time and says how many pictures each pass had, for tests of sharing."""

from __future__ import annotations

import sys
import time

from depth import estimator

SECONDS = 0.3  # of a pass: long enough for others to arrive


def run(arguments: list[str]) -> None:
    passes = estimator.MiDaSDepthEstimator._pass

    def slowly(self, batch):
        sys.stdout.write(f"pass of {len(batch)}\n")
        time.sleep(SECONDS)
        return passes(self, batch)

    estimator.MiDaSDepthEstimator._pass = slowly
    import app

    app.main(arguments)


if __name__ == "__main__":
    run(sys.argv[1:])
