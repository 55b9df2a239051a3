"""The figure of what each method gained, as a file of its own: python benchmarks/fold/figure.py RECORD.json FILE.svg"""

import json
import sys
from pathlib import Path

from seedfold.report import figures

COLOURS = "svg { --ink: #222; --quiet: #666; --paper: #fff; --grid: #ddd; --blue: #0072b2; --red: #d55e00; }"


def main() -> None:
    record = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    svg = figures.gains(record)
    end = svg.index(">") + 1
    style = f'<style>{COLOURS}{figures.STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    Path(sys.argv[2]).write_text(svg[:end] + style + svg[end:] + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
