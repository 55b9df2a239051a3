"""Pictures in rows: a file's path, a file's bytes, a data URI, or a picture that the datasets package has opened."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from io import BytesIO
from pathlib import Path
from typing import Any

from seedfold.engines.base import Image
from seedfold.errors import UserError


class Images:
    """Reads and checks pictures; each different one is decoded once, so that a broken file is found before a study.

    Args:
        folder: where relative paths begin.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, Image] = {}
        """Digest -> picture."""
        self._files: dict[Path, Image] = {}
        if importlib.util.find_spec("PIL") is None:
            raise UserError("reading images needs the package pillow; run pip install pillow")

    def read(self, value: Any, where: str) -> Image:
        """The picture that a row's column holds.

        Args:
            value: a path; a "data:…;base64,…" URI; bytes of a file; {"bytes": …, "path": …} as Hugging Face datasets store
                images, of which the bytes count where there are any; or a `PIL.Image.Image`.
            where: the row, for messages.

        Raises:
            UserError: there is no picture, or it cannot be read.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str) and value.startswith("data:"):
            return self._checked(_of_uri(value, where), where)
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            raise UserError(f'{where} has the image "{value}", which is not fetched; give the path of a file')
        if isinstance(value, str) and value.strip():
            file = self.folder / Path(value).expanduser()
            if file not in self._files:
                try:
                    data = file.read_bytes()
                except (OSError, ValueError) as error:
                    reason = getattr(error, "strerror", None) or error
                    raise UserError(
                        f'{where} has the image "{file}", which cannot be read ({reason}); mend it'
                    ) from None
                self._files[file] = self._checked(_of_bytes(data), f'{where}, image "{file}",')
            return self._files[file]
        if isinstance(value, bytes | bytearray) and value:
            return self._checked(_of_bytes(bytes(value)), where)
        if hasattr(value, "tobytes") and hasattr(value, "convert"):
            return self._checked(_of_pixels(value), where)
        kind = "nothing" if not value else f"a {type(value).__name__}"
        raise UserError(
            f'{where} has {kind} for an image; give a path, the bytes of a file, {{"bytes": …}} or a data: URI'
        )

    def _checked(self, image: Image, where: str) -> Image:
        if image.digest not in self.known:
            try:
                image.open()
            except Exception as error:  # the readers of a dozen formats raise whatever they meet
                reason = " ".join(str(error).split())[:200]
                raise UserError(
                    f"{where} has an image that cannot be decoded ({type(error).__name__}: {reason}); mend or drop the row"
                ) from None
            self.known[image.digest] = image
        return self.known[image.digest]


def _of_bytes(data: bytes) -> Image:
    return Image(data, hashlib.blake2b(data, digest_size=16).hexdigest())


def _of_uri(uri: str, where: str) -> Image:
    kind, comma, text = uri.partition(",")
    try:
        if not comma or not kind.endswith(";base64"):
            raise ValueError("it is not of the form data:image/png;base64,…")
        return _of_bytes(base64.b64decode("".join(text.split()), validate=True))
    except ValueError as error:
        raise UserError(f"{where} has a data: URI that cannot be read ({error}); mend or drop the row") from None


def _of_pixels(picture: Any) -> Image:
    """Of an opened picture: the digest is of its pixels, for what a PNG writer makes of them varies with its version."""
    from PIL import ImageOps

    picture, file = ImageOps.exif_transpose(picture).convert("RGB"), BytesIO()
    picture.save(file, "PNG")
    name = hashlib.blake2b(f"{picture.size}".encode() + picture.tobytes(), digest_size=16).hexdigest()
    return Image(file.getvalue(), name)
