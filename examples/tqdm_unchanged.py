"""Existing code with tqdm bars: only the line with `configure` is new, and `opentelemetry-instrument` spares even that."""

import zlib

from tqdm import tqdm

import otelprogress as progress
from otelprogress.demo import dataset


def main() -> None:
    progress.configure()
    checksum = 0
    with dataset.open_table("weather") as lines:
        for row in tqdm(list(lines), desc="weather", unit="row"):
            checksum = zlib.crc32(",".join(row).encode(), checksum)
    print(f"checksum {checksum:08x}")


if __name__ == "__main__":
    main()
