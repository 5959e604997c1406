"""A process pool: wrap results, not inputs; the children report to this process's feed."""

import argparse
import multiprocessing
import zlib

import otelprogress as progress
from otelprogress.demo import dataset


@progress.operation("checksum", title="checksum {table}")
def checksum(table: str) -> int:
    value = 0
    with dataset.open_table(table) as lines:
        for row in progress.track(lines, unit="row"):
            value = zlib.crc32(",".join(row).encode(), value)
    return value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--start-method", choices=multiprocessing.get_all_start_methods(), default="spawn")
    context = multiprocessing.get_context(parser.parse_args().start_method)
    progress.configure()
    files = ["weather", "planes", "airlines", "flights"]
    work = progress.propagate(checksum)  # picklable: carries parent and link
    with progress.operation("checksum all"), context.Pool(4) as pool:
        for value in progress.track(pool.imap_unordered(work, files), total=len(files), unit="file"):
            print(f"{value:08x}")
        pool.close()  # and join: children leave in order and can say their last words
        pool.join()


if __name__ == "__main__":
    main()
