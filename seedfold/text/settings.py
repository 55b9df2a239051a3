"""Where held-out text comes from and how it is scored; documented as in `seedfold.config`."""

from __future__ import annotations

from dataclasses import dataclass

from seedfold.errors import UserError
from seedfold.settings import at_least, not_empty, setting


@dataclass(frozen=True)
class Text:
    name: str = setting(
        "sample",
        "sample (public-domain prose that the package carries), a .txt, .jsonl or .parquet file, or a Hugging Face "
        "dataset, streamed: owner/name or owner/name:config, such as HuggingFaceFW/fineweb-edu:sample-10BT",
        not_empty,
    )
    column: str = setting("text", "the column of a .jsonl or .parquet file or a dataset that holds the text", not_empty)
    split: str = setting("train", "split of a Hugging Face dataset", not_empty)
    revision: str = setting("", "revision of a Hugging Face dataset; empty: the default branch")
    documents: int = setting(0, "documents to read, from the first on; 0: as many as there are", at_least(0))
    bytes: int = setting(
        0,
        "UTF-8 bytes to read, at most; the last document is cut at the last whole character; 0: all there are",
        at_least(0),
    )
    window: int = setting(1024, "tokens that a model sees at once, context and scored ones together", at_least(2))
    overlap: int = setting(
        256, "tokens of context that are repeated in front of every window but a document's first", at_least(0)
    )
    digest: str = setting("", "BLAKE2b digest of the documents' exact bytes; other text is refused; empty: any text")

    def __post_init__(self) -> None:
        if self.overlap > self.window - 2:  # a beginning-of-text token and one to score must fit beside it
            raise UserError(
                f'"speedrun.text.overlap" is {self.overlap}, but a window of {self.window} tokens needs room for those '
                f"that are scored; use at most {self.window - 2}"
            )
