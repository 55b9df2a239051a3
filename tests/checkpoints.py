"""A tiny random checkpoint with SmolLM2's tokenizer: a whole study on it takes seconds."""

from pathlib import Path

import torch
import transformers

from seedfold.models import EMBEDDED, locate
from seedfold.progress import Progress


class Stop(Progress):
    """Ends the study, as Ctrl-C does, once it has so many answers."""

    def __init__(self, after: float = float("inf")) -> None:
        super().__init__(quiet=True)
        self.after = after

    def add(self, count: int, known: bool = False) -> None:
        super().add(count, known)
        if self.done >= self.after:
            raise KeyboardInterrupt


def write_tiny(folder: Path, seed: int = 0) -> Path:
    """Two layers of 64 with large random weights, so that answers vary; the text means nothing."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(locate(EMBEDDED))
    torch.manual_seed(seed)
    shape = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


REWARD = '''
def reward(completion, example):
    """Share of the letters that are vowels, above one half: something a random model can be better or worse at."""
    letters = [c for c in completion.lower() if c.isalpha()]
    return float(sum(c in "aeiou" for c in letters) > example["share"] * len(letters))


def answer(completion, example):
    return completion.strip()[:1] or None
'''


def write_task(folder: Path, rows: int = 60) -> dict[str, object]:
    """Data and reward of a custom task; the task section of a config."""
    (folder / "reward.py").write_text(REWARD)
    lines = [f'{{"prompt": "Say word {number}.", "share": {0.3 + number % 5 / 50}}}\n' for number in range(rows)]
    (folder / "data.jsonl").write_text("".join(lines))
    return {
        "name": "custom",
        "path": str(folder / "data.jsonl"),
        "reward": f"{folder / 'reward.py'}:reward",
        "max_tokens": 8,
    }


def small_study(folder: Path, model: Path, **search: object) -> dict[str, object]:
    """A config of a few seconds."""
    return {
        "name": "small",
        "model": {"name": str(model)},
        "task": write_task(folder),
        "splits": {"search": 24, "select": 12, "test": 16},
        "search": {"candidates": 9, "sigmas": [0.02, 0.05], "votes": [1, 3, 4], **search},
        "engine": {"batch": 16},
        "stats": {"resamples": 500},
    }
