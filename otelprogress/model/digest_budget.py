"""Making a digest fit: how much it takes, what goes first, what stays, and what is said about the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

DEFAULT_MAX_TOKENS: Final = 800
KEEP_FAILURES: Final = 3
_LETTERS_PER_TOKEN: Final = 5
_DIGITS_PER_TOKEN: Final = 3
_PIECE: Final = re.compile(r"([A-Za-z]+)|([0-9]+)|( (?=[0-9]))|([^\x00-\x7f])|[^\w\s]|[_\n]")


def tokens(text: str) -> int:
    """How many tokens a text takes, estimated on the safe side, without a vocabulary.

    Five letters, three digits or one sign a token; a space only before a digit; outside of ASCII one to three a character. Of
    digests in English this is up to a fifth more than what cl100k and o200k count (`tests/model/test_digest_tokens.py`), of other
    scripts up to twice as much; of letters without sense (a key in base64) it can be too little.
    """
    count = 0
    for letters, digits, _, other in _PIECE.findall(text):
        if letters:
            count += -(-len(letters) // _LETTERS_PER_TOKEN)
        elif digits:
            count += -(-len(digits) // _DIGITS_PER_TOKEN)
        elif other:
            count += 1 if other < "\u0800" else 2 if other < "\U00010000" else 3
        else:
            count += 1
    return count


class Weight(IntEnum):
    """What is lighter goes first."""

    NORMAL = 0
    WARNING = 1
    FAILURE = 2


class Change(NamedTuple):
    """One thing that changed."""

    words: str
    """Ours: `+ clean 2m40s`, `!`."""
    at_unix_ns: int = 0
    weight: Weight = Weight.NORMAL
    text: str | None = None
    """The operation's, in JSON quotes; it ends its line."""

    def __str__(self) -> str:
        return self.words if self.text is None else f"{self.words} {self.text}"


class LeftOut(NamedTuple):
    """How much is not in a digest."""

    changes: int = 0
    operations: int = 0
    failed: int = 0
    """Of the operations."""

    def said(self) -> str:
        """In words; empty: nothing is missing."""
        words = [f"{self.changes} changes"] if self.changes else []
        if self.operations:
            words.append(
                f"{self.operations} operations" + (f" ({self.failed} failed)" if self.failed else "")
            )
        return ", ".join(words)


NOTHING: Final = LeftOut()


@dataclass(slots=True)
class Block:
    """What a digest says of one operation."""

    head: str
    title: str | None
    trace: str | None
    changes: list[Change]
    questions: list[str]
    """The question, and below it what an answer can be where that is text."""
    question: str | None
    """The same in one line that says less; `None`: it asks nothing."""
    weight: Weight
    updated_at_unix_ns: int
    left_out: bool = field(default=False)

    def lines(self) -> list[str]:
        """The operation's lines; several changes share one as long as none of them ends in text."""
        if self.left_out:
            return []
        lines = [self.head]
        lines += [line for line in (self.title, self.trace) if line is not None]
        shared: list[str] = []
        for change in self.changes:
            shared.append(str(change))
            if change.text is not None:
                lines.append("; ".join(shared))
                shared = []
        if shared:
            lines.append("; ".join(shared))
        return lines + self.questions

    def tokens(self) -> int:
        """What it takes."""
        return sum(tokens(line) + 1 for line in self.lines())


def fit(blocks: Sequence[Block], max_tokens: int, before: LeftOut = NOTHING) -> LeftOut:
    """Leave out what is over the budget, in place; what is not there now, `before` included.

    In this order, the old before the new: changes that are no failures; of the failures of one operation all but
    the newest three; operations of which there is no warning; what answers can be; the other failures; the other
    operations.
    """
    trimmer = _Trimmer(blocks, max_tokens, before)
    steps: tuple[Callable[[], None], ...] = (
        lambda: trimmer.leave_out_changes(lambda weight, _age: weight < Weight.FAILURE),
        lambda: trimmer.leave_out_changes(lambda _weight, age: age >= KEEP_FAILURES),
        lambda: trimmer.leave_out_operations(Weight.NORMAL),
        trimmer.leave_out_answers,
        lambda: trimmer.leave_out_changes(lambda _weight, _age: True),
        lambda: trimmer.leave_out_operations(Weight.FAILURE),
    )
    for step in steps:
        if trimmer.tokens <= max_tokens:
            break
        step()
    return trimmer.left_out()


class _Trimmer:
    def __init__(self, blocks: Sequence[Block], max_tokens: int, before: LeftOut) -> None:
        self._blocks = blocks
        self._max_tokens = max_tokens
        self.tokens = sum(block.tokens() for block in blocks)
        self._changes, self._operations, self._failures = before

    def leave_out_changes(self, may_go: Callable[[Weight, int], bool]) -> None:
        """The lightest and oldest first; `may_go` gets a change's weight and how many failures are newer in its block."""
        candidates = []
        for number, block in enumerate(self._blocks):
            if block.left_out:
                continue
            age = 0
            for index in range(len(block.changes) - 1, -1, -1):
                change = block.changes[index]
                if may_go(change.weight, age):
                    candidates.append((change.weight, change.at_unix_ns, number, index))
                age += change.weight is Weight.FAILURE
        gone: dict[int, set[int]] = {}
        spare = self.tokens - self._max_tokens
        for _, _, number, index in sorted(candidates):
            if spare <= 0:
                break
            # One for the separator. A change that shared its line may free one less: then the next step goes on.
            spare -= tokens(str(self._blocks[number].changes[index])) + 1
            gone.setdefault(number, set()).add(index)
        for number, indexes in gone.items():
            block = self._blocks[number]
            block.changes = [change for index, change in enumerate(block.changes) if index not in indexes]
            self._changes += len(indexes)
        self.tokens = sum(block.tokens() for block in self._blocks)

    def leave_out_answers(self) -> None:
        """What the answers to questions can be, the longest unheard first; the questions stay."""
        for block in sorted(self._blocks, key=lambda block: block.updated_at_unix_ns):
            if self.tokens <= self._max_tokens:
                break
            if not block.left_out and block.question is not None and block.questions != [block.question]:
                self.tokens -= block.tokens()
                block.questions = [block.question]
                self.tokens += block.tokens()
                self._changes += 1

    def leave_out_operations(self, heaviest: Weight) -> None:
        """Whole operations, the lightest and longest unheard first."""
        order = sorted(
            (block for block in self._blocks if not block.left_out and block.weight <= heaviest),
            key=lambda block: (block.weight, block.updated_at_unix_ns),
        )
        for block in order:
            if self.tokens <= self._max_tokens:
                break
            self.tokens -= block.tokens()
            self._changes += len(block.changes)
            block.left_out = True
            self._operations += 1
            self._failures += block.weight is Weight.FAILURE

    def left_out(self) -> LeftOut:
        """How much is not there."""
        return LeftOut(self._changes, self._operations, self._failures)
