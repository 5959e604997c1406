"""A training that asks when its loss rises, writes a snapshot when it is told to, and stops between two epochs.

It is steered by whoever watches: `otelprogress respond train-1 halve`, `otelprogress signal train-1 snapshot`,
`otelprogress cancel train-1`. Without `--by-hand` a thread does that here, through the client.
"""

import argparse
import itertools
import threading
from queue import SimpleQueue

import otelprogress as progress
from otelprogress.demo import dataset

Point = tuple[float, float]


def measured() -> list[Point]:
    """Wind speed and gust, where both were measured, centred and scaled."""
    with dataset.open_table("weather") as lines:
        header = next(lines)
        columns = header.index("wind_speed"), header.index("wind_gust")
        rows = [[row[column] for column in columns] for row in itertools.islice(lines, 5_000)]
    points = [(float(speed), float(gust)) for speed, gust in rows if dataset.NULL not in (speed, gust)]
    middles = [sum(values) / len(points) for values in zip(*points, strict=True)]
    spread = (sum((x - middles[0]) ** 2 for x, _ in points) / len(points)) ** 0.5
    return [((x - middles[0]) / spread, (y - middles[1]) / spread) for x, y in points]


@progress.operation("train", controls=["cancel", "pause", "input", "snapshot"])
def train(points: list[Point], began: SimpleQueue[str]) -> None:
    operation = progress.current_operation()
    slope, rate, before = 0.0, 2.5, float("inf")  # a rate above 2 diverges here
    operation.on_signal("snapshot", lambda: print(f"snapshot: gust = {slope:.2f} x speed", flush=True))
    began.put(operation.run_id)
    for _epoch in progress.track(itertools.count(1), unit="epoch"):
        errors = [slope * x - y for x, y in points]
        loss = sum(error**2 for error in errors) / len(points)
        if loss > 1.01 * before:
            # Nobody there for ten minutes: it goes on by itself.
            answer = operation.request_input(
                "the loss rises: what about the learning rate?",
                {"enum": ["halve", "keep", "stop"]},
                timeout_s=600,
                default="halve",
            )
            print(f"told to {answer}", flush=True)
            if answer == "stop":
                break
            rate = rate / 2 if answer == "halve" else rate
        before = loss
        slope -= rate * sum(error * x for error, (x, _) in zip(errors, points, strict=True)) / len(points)


def steer(run_id: str) -> None:
    """What somebody at another terminal would do."""
    with progress.Client() as client:
        asked = client.wait(run_id, until="attention", timeout_s=60).operation
        print(f"asked {asked.input_prompt!r}", flush=True)
        answer = {"input_id": asked.input_id, "content": "halve"}
        for action, arguments in (("input", answer), ("snapshot", {}), ("cancel", {})):
            told = client.command_and_wait(run_id, action, arguments=arguments, reason="good enough")
            if not told.applied:
                print(f"{action} refused: {told.refusal}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--by-hand", action="store_true", help="leave it to you")
    by_hand = parser.parse_args().by_hand
    progress.configure()
    began: SimpleQueue[str] = SimpleQueue()
    if not by_hand:
        threading.Thread(target=lambda: steer(began.get())).start()
    try:
        train(measured(), began)
    except progress.OperationCancelled as cancelled:
        print(f"cancelled: {cancelled.reason}")


if __name__ == "__main__":
    main()
