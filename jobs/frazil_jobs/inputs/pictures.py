"""Pictures that rows of a prompt file name: fetched, verified and put into the spool under their sha256.

A prompt file is data that may come from anywhere. It names pictures of its own folder or of a bucket, never another
path of this machine.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import stat
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.inputs.access import Access, named
from frazil_jobs.inputs.locations import Bucket, Claim, Local, clean_path, parse, resolve_claim
from frazil_jobs.inputs.rows import PromptRow
from frazil_jobs.inputs.task import FILES_FOLDER, input_folder

MAX_BYTES = 64 << 20
MAX_PIXELS = 64_000_000
"""Decoded, that is 256 MB with four channels."""
FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}


@dataclass
class Pictures:
    """Fetches pictures into one spool, each URI once."""

    access: Access
    spool: Path
    root: Local | Bucket | None
    """The folder of the prompt file."""
    prompts_name: str
    _known: dict[str, str] = field(default_factory=dict)

    def localized(self, row: PromptRow, place: str) -> PromptRow:
        """`row` with each picture's URI replaced by its file in the spool. Raises BadInput: place and argument."""
        if not row.images:
            return row
        names = {}
        for argument, uri in row.images.items():
            try:
                names[argument] = self._known.get(uri) or self._fetched(uri)
            except (BadInput, BadConfiguration) as error:
                where = f"{self.prompts_name} {place}: images.{argument}"
                raise BadInput(f"{where}: {error.message}", remedy=error.remedy) from None
            self._known[uri] = names[argument]
        return row.model_copy(update={"images": names})

    def _fetched(self, uri: str) -> str:
        where = picture_location(uri, root=self.root, claims_root=self.access.claims_root)
        folder = input_folder(self.spool) / FILES_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            copy = Path(scratch) / "picture"
            if isinstance(where, Bucket):
                self._from_bucket(where, copy)
            else:
                _from_disk(where.path, copy)
            extension = verified_format(copy, uri)
            with copy.open("rb") as file:
                name = f"{hashlib.file_digest(file, 'sha256').hexdigest()}.{extension}"
            copy.replace(folder / name)
        return f"{FILES_FOLDER}/{name}"

    def _from_bucket(self, where: Bucket, copy: Path) -> None:
        store = self.access.open_bucket(where.bucket, field="images")
        with named("images", where):
            info = store.stat(where.key)
            if info is None:
                raise BadInput(f"there is no object {where}")
            _check_size(str(where), info.size)
            store.get_file(where.key, copy)


def picture_location(uri: str, *, root: Local | Bucket | None, claims_root: Path | None) -> Local | Bucket:
    """Where a picture that a row names is. Raises BadInput for one that the row may not name."""
    scheme, separator, _ = uri.partition("://")
    if separator and scheme not in ("s3", "file", "pvc"):
        raise BadInput(
            f"{scheme}:// is not read for pictures", remedy="put them beside the prompt file, or into a bucket"
        )
    if scheme == "s3" and separator:
        where = parse(uri, base_dir=Path("/"), field="images")
        assert isinstance(where, Bucket), "s3:// is a bucket"
        return where
    if root is None:
        raise BadInput(f"{uri} is a path, and these prompts have no folder", remedy="name it s3://bucket/key")
    if isinstance(root, Bucket):
        clean = None if separator else clean_path(uri)
        if clean is None:
            raise BadInput(
                f"{uri!r} is not below {root}", remedy="name it relative to the prompt file, or s3://bucket/key"
            )
        return Bucket(root.bucket, f"{root.key}/{clean}" if root.key else clean)
    return _below(uri, root, claims_root)


def _below(uri: str, root: Local, claims_root: Path | None) -> Local:
    """The file `uri`, with all links followed, if it's in the folder of the prompt file."""
    where = parse(uri, base_dir=root.path, field="images")
    if isinstance(where, Claim):
        where = resolve_claim(where, root=claims_root, field="images")
    assert isinstance(where, Local), "other schemes were refused before"
    try:
        resolved, folder = where.path.resolve(), root.path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        raise BadInput(f"{uri!r} leads nowhere") from None
    if not resolved.is_relative_to(folder):
        raise BadInput(f"{uri!r} is not below the prompt file's folder {folder}", remedy="move or copy it there")
    return Local(resolved)


def _from_disk(path: Path, copy: Path) -> None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{path} is no plain file")
        _check_size(str(path), status.st_size)
        shutil.copyfile(path, copy)
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}", remedy="a plain path is relative to the prompt file") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise BadInput(f"{path} can't be read: {error.strerror}", remedy="check its name and permissions") from None


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise BadInput(f"{name} has {size:,} bytes; at most {MAX_BYTES:,}")


def verified_format(path: Path, name: str) -> str:
    """The file extension of the picture in `path`, once it was decoded whole. Raises BadInput."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=tuple(FORMATS)) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise BadInput(f"{name} has {width} x {height} pixels; at most {MAX_PIXELS:,}")
                picture.load()
                return FORMATS[str(picture.format)]
    except BadInput:
        raise
    except Exception as error:  # decoders of hostile files raise nearly anything
        kinds = ", ".join(FORMATS.values())
        raise BadInput(f"{name} is no picture that can be read: {error}", remedy=f"give one of: {kinds}") from None
