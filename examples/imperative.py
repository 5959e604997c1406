"""`ProgressTracker`: for code that is not shaped like a loop or a function. It raises on misuse."""

import otelprogress as progress
from otelprogress.demo import dataset


def main() -> None:
    progress.configure()
    tracker = progress.ProgressTracker()
    tracker.start_operation("job-7", ["fetch", "parse"])
    with dataset.open_table("airlines") as lines:
        rows = list(lines)[1:]
    tracker.update_progress("job-7", "fetch", "all fetched", completed=len(rows), total=len(rows))
    names = {}
    for number, (code, name) in enumerate(rows, start=1):
        names[code] = name
        # step name or 0-based index
        tracker.update_progress(
            "job-7", "parse", f"{number} of {len(rows)}", completed=number, total=len(rows)
        )
    tracker.complete_operation("job-7", {"rows": len(names)})  # or fail_operation("job-7", error)
    try:
        tracker.complete_operation("job-7")
    except progress.ProgressError as error:
        print(f"refused: {error}")
    print(f"{len(names)} airlines")


if __name__ == "__main__":
    main()
