"""The shortest real use. While it runs, `otelprogress watch` in another terminal shows it too."""

import csv
import sys
import zlib
from pathlib import Path

import otelprogress as progress


def main() -> None:
    progress.configure()  # a bar on this terminal; a feed that `otelprogress watch` finds
    from otelprogress.demo.dataset import folder

    with Path(folder() / "weather.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    checksum = 0
    for row in progress.track(rows, "import weather", unit="row"):
        checksum = zlib.crc32(repr(row).encode(), checksum)
    print(f"{len(rows)} rows, checksum {checksum:08x}", file=sys.stdout)


if __name__ == "__main__":
    main()
