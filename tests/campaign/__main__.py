"""`python -m tests.campaign [--short | --nightly] [NAME ...]`: run them and print the figures."""

from __future__ import annotations

import argparse
import sys
import time

from tests.campaign.base import CI, NIGHTLY, SHORT, Result
from tests.campaign.catalogue import CAMPAIGNS


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description="Break the cache and count.")
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(CAMPAIGNS)} (default: all)")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--short", action="store_const", dest="scale", const=SHORT, help="what the test suite runs")
    group.add_argument("--nightly", action="store_const", dest="scale", const=NIGHTLY, help="ten times as much")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(CAMPAIGNS)
    if unknown:
        parser.error(f"no campaign named {', '.join(sorted(unknown))}")
    results = [_run(name, CI if options.scale is None else options.scale) for name in options.names or CAMPAIGNS]
    tried, survived = sum(r.tried for r in results), sum(r.survived for r in results)
    lost = tried - survived
    print(f"{'total':26} {tried:8} tried {survived:8} survived {lost:6} lost")
    return 1 if lost else 0


def _run(name: str, scale: int) -> Result:
    began = time.monotonic()
    result = CAMPAIGNS[name](scale)
    lost = result.tried - result.survived
    print(f"{result.name:26} {result.tried:8} tried {result.survived:8} survived {lost:6} lost"
          f" {time.monotonic() - began:7.0f} s  {result.note}", flush=True)
    for line in result.lost[:5]:
        print(f"    {line}", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
