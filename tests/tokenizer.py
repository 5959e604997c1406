"""Real tokenizers, whose vocabularies come with the package: nothing is loaded from anywhere."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it opens its files in a way that Python deprecates
    import bpe_openai

    VOCABULARIES = tuple(bpe_openai.get_encoding(name) for name in ("cl100k_base", "o200k_base"))


def count_tokens(text: str) -> int:
    """By the vocabulary that needs most."""
    return max(len(vocabulary.encode(text)) for vocabulary in VOCABULARIES)
