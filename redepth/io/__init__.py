"""Read photos, ground truth and masks; write every result so that it is whole or absent.

Importing this module needs numpy and Pillow only. What a user's file can do wrong ends in an
`InputError` of one line: which file, what is wrong with it and what to do.
"""

from __future__ import annotations

import glob
import io
import json
import math
import os
import re
import stat
import struct
import threading
import unicodedata
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from redepth.errors import InputError, MissingDependencyError

StrPath = str | os.PathLike[str]

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif"})
MAX_PIXELS = 100_000_000
MIN_SIDE = 16
MAX_ASPECT = 16

_PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
# Raw files are TIFF inside: Pillow would open their small preview and take it for the photo.
_RAW_SUFFIXES = frozenset({".arw", ".cr2", ".dng", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".srw"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_OTHER_SIGNATURES = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}
# Pillow's plugins raise all of these on damaged bytes.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_pillow_limit_lock = threading.Lock()


# --- photos -------------------------------------------------------------------------------------


def load_photo(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Read a photo as sRGB.

    JPEG, PNG, WebP and TIFF, and HEIC where pillow-heif is installed. The EXIF orientation is
    applied, an embedded ICC profile is converted to sRGB (a broken one is ignored), transparency is
    composited over white, grey becomes three equal channels, and an animation gives its first
    frame. 16-bit grey keeps its precision; 16-bit colour is reduced to 8 bits.

    Args:
        path: the file; its content decides the format, not its suffix.
        max_pixels: width times height beyond which the file is refused before it is decoded.

    Returns:
        (H, W, 3) sRGB in [0, 1].

    Raises:
        InputError: the file is missing, unreadable, damaged, of an unsupported format, above
            ``max_pixels``, narrower than 16 pixels or more elongated than 16:1.
        MissingDependencyError: the photo is HEIC and pillow-heif is not installed.
    """
    path = Path(path)
    with _open_regular(path) as file:
        image = _open_image(path, file, max_pixels)
        _check_shape(path, *image.size)
        _decode(path, image)
    # A damaged EXIF block is no reason to refuse intact pixels.
    with suppress(*_DECODE_ERRORS):
        ImageOps.exif_transpose(image, in_place=True)
    return _photo_array(path, image)


def _open_regular(path: Path) -> BinaryIO:
    """Open a file that has content; a folder, or a pipe that would block, is an InputError."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: is a folder, not a file; name a file inside it")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: is not a regular file; save its content to a file first")
        file = path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the spelling and the folder") from None
    except PermissionError:
        raise InputError(f"{path}: permission denied; make the file readable") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be opened ({_reason(error)}); check the path") from None
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise InputError(f"{path}: the file is empty; copy or download it again")
    return file


def _open_image(path: Path, file: BinaryIO, max_pixels: int) -> Image.Image:
    """Identify an image and check its size from the header; nothing is decoded yet."""
    if path.suffix.lower() in _RAW_SUFFIXES:
        raise InputError(f"{path}: camera raw is not supported; export it as JPEG or TIFF")
    head = file.read(12)
    formats: tuple[str, ...] = _PHOTO_FORMATS
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        _register_heif(path)
        formats = ("HEIF",)
    try:
        with _pillow_limit_lifted():
            image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        _raise_unidentified(path, head)
    except _DECODE_ERRORS as error:
        raise InputError(_damaged(path, error)) from None
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{path}: {width} x {height} is {width * height / 1e6:.1f} megapixels, the limit is "
            f"{max_pixels / 1e6:g}; shrink it or raise the limit with --max-pixels {width * height} "
            "(max_pixels= in Python)"
        )
    return image


@contextmanager
def _pillow_limit_lifted() -> Iterator[None]:
    """Switch Pillow's own pixel limit off while a header is read.

    It is one number for the whole process and its warning names no file; `_open_image` checks the
    size itself, before anything is decoded. The lock keeps two of our threads from restoring each
    other's value; other code in the process may go without Pillow's limit for that moment.
    """
    with _pillow_limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError:
        raise MissingDependencyError(
            f'{path}: reading HEIC needs pillow-heif; run: pip install "redepth[heic]"'
        ) from None
    pillow_heif.register_heif_opener()


def _raise_unidentified(path: Path, head: bytes) -> NoReturn:
    for signature, name in _OTHER_SIGNATURES.items():
        if head.startswith(signature):
            raise InputError(f"{path}: {name} is not supported; convert it to JPEG or PNG")
    raise InputError(f"{path}: not a readable image, or a damaged one; give a JPEG, PNG, WebP, TIFF or HEIC")


def _check_shape(path: Path, width: int, height: int) -> None:
    short, long = sorted((width, height))
    if short < MIN_SIDE:
        raise InputError(
            f"{path}: {width} x {height} is too small, each side needs {MIN_SIDE} pixels or more; "
            "give a larger photo"
        )
    if long > MAX_ASPECT * short:
        raise InputError(f"{path}: {width} x {height} is more elongated than {MAX_ASPECT}:1; crop it")


def _decode(path: Path, image: Image.Image) -> None:
    try:
        image.load()
    except _DECODE_ERRORS as error:
        raise InputError(_damaged(path, error)) from None


def _damaged(path: Path, error: BaseException) -> str:
    return f"{path}: damaged or truncated ({_reason(error)}); copy or download it again"


def _reason(error: BaseException) -> str:
    """Return an error's text on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _photo_array(path: Path, image: Image.Image) -> NDArray[np.float32]:
    if image.mode.startswith(("I", "F")):
        grey = _high_precision_grey(path, image)
        return np.repeat(grey[..., None], 3, axis=2)
    try:
        rgb = _to_srgb(image)
    except ValueError:
        raise InputError(f"{path}: colour mode {image.mode} is not supported; save it as RGB") from None
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    photo = np.array(rgb, dtype=np.float32)
    photo /= 255.0  # in place: a second copy of 100 megapixels would take another 1.2 GB
    return photo


def _high_precision_grey(path: Path, image: Image.Image) -> NDArray[np.float32]:
    """Scale 16-bit grey by 65535; take floats as they are when they already lie in [0, 1]."""
    limit = 1.0 if image.mode == "F" else 65535.0
    grey = np.asarray(image, dtype=np.float32)
    # Written so that NaN fails the test too.
    if not (grey.min() >= 0.0 and grey.max() <= limit):
        raise InputError(
            f"{path}: grey values must lie in 0..{limit:g}, found {grey.min():g}..{grey.max():g}; "
            "export the photo as 8-bit or 16-bit"
        )
    return grey / np.float32(limit)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert to RGB through the embedded ICC profile where it is usable; alpha is left out."""
    if image.mode in ("1", "L", "LA", "La"):
        base = image.convert("L")
    else:
        base = image if image.mode in ("RGB", "CMYK") else image.convert("RGB")
    profile = image.info.get("icc_profile")
    if profile:
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = ImageCms.profileToProfile(
                base, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
    return base.convert("RGB")


# --- which photos, and where their results go -----------------------------------------------------


def find_photos(inputs: Sequence[StrPath]) -> list[Path]:
    """Expand files, folders and glob patterns to photos.

    Args:
        inputs: a file is taken whatever its suffix; a folder gives the photos directly in it,
            sorted by name, hidden files left out; a pattern (``*``, ``?``, ``[...]``, ``**``) gives
            the photos it matches, sorted.

    Returns:
        The photos in the order of the inputs, each once. A plain path that does not exist is kept:
        `load_photo` reports it, and the other photos still run.

    Raises:
        InputError: there are no inputs, or a folder or a pattern holds no photo.
    """
    if not inputs:
        raise InputError("no photo given; name a file, a folder or a pattern")
    photos: dict[str, Path] = {}
    for given in inputs:
        for photo in _expand(given):
            photos.setdefault(os.path.realpath(photo), photo)
    return list(photos.values())


def _expand(given: StrPath) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_photo(p))
        what = "the folder holds no photo"
    elif glob.has_magic(str(path)) and not path.exists():
        found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if _is_photo(p))
        what = "the pattern matches no photo"
    else:
        return [path]
    if not found:
        suffixes = " ".join(sorted(PHOTO_SUFFIXES))
        raise InputError(f"{path}: {what}; photos end in one of {suffixes}")
    return found


def _is_photo(path: Path) -> bool:
    visible = not path.name.startswith(".")
    return visible and path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()


def companions(photos: Sequence[StrPath], given: StrPath, what: str) -> dict[Path, Path]:
    """Return for each photo the file that belongs to it: the one given, or that of its stem in a folder.

    Args:
        photos: the photos.
        given: a file, for a single photo; or a folder.
        what: the file's part in messages, such as ``sky mask``.

    Returns:
        Photo -> file; a photo whose stem the folder lacks, or has twice, is left out.

    Raises:
        InputError: one file is given for several photos.
    """
    given = Path(given)
    if not given.is_dir():
        if len(photos) != 1:
            raise InputError(
                f"{given}: a {what} belongs to one photo, {len(photos)} were given; give a folder with a "
                "file of each photo's name"
            )
        return {Path(photos[0]): given}
    files: dict[str, list[Path]] = {}
    for file in given.iterdir():
        if not file.name.startswith(".") and file.is_file():
            files.setdefault(file.stem, []).append(file)
    own = {Path(photo): files.get(Path(photo).stem, []) for photo in photos}
    return {photo: found[0] for photo, found in own.items() if len(found) == 1}


def output_folders(photos: Sequence[StrPath], out: StrPath) -> list[Path]:
    """Return one folder per photo, ``out/<stem>``.

    A stem that an earlier photo took, of this call or (as its ``run.json`` says) of an earlier one,
    gets ``-2``, ``-3`` and so on; the same photo gets its own folder again. Photos appended to the
    list leave the folders of the others unchanged. Names that differ only in case or in Unicode
    normal form count as the same, as they do on macOS and Windows.
    """
    taken: set[str] = set()
    folders = []
    for photo in photos:
        stem = Path(photo).stem
        name, number = stem, 1
        while (key := unicodedata.normalize("NFC", name).casefold()) in taken or _holds_another(
            Path(out) / name, photo
        ):
            number += 1
            name = f"{stem}-{number}"
        taken.add(key)
        folders.append(Path(out) / name)
    return folders


def _holds_another(folder: Path, photo: StrPath) -> bool:
    """Return whether a folder holds the results of another photo."""
    try:
        source = json.loads((folder / "run.json").read_text(encoding="utf-8"))["photo"]["source"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return bool(source != str(Path(photo).resolve()))


# --- ground truth and masks -----------------------------------------------------------------------


def load_depth_map(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Read a depth or disparity map, in the units of the file.

    Args:
        path: ``.npy``; ``.npz`` with one array, or with one named ``depth`` or ``disparity``;
            ``.pfm`` (its scale gives the byte order only); ``.exr`` with one channel, or with one named
            depth, disparity, Z, Y or V; or a grey PNG or TIFF, whose stored numbers are returned (divide
            a KITTI PNG by 256 yourself).
        max_pixels: as for `load_photo`.

    Returns:
        (H, W); NaN and infinities, which mark unknown pixels in many data sets, are kept.

    Raises:
        InputError: the file is missing, damaged, of another kind or shape, or has no finite value.
        MissingDependencyError: the file is OpenEXR and the package OpenEXR is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        values = _load_numpy(path, ("depth", "disparity"))
    elif suffix == ".pfm":
        values = _load_pfm(path)
    elif suffix == ".exr":
        values = _load_exr(path)
    elif suffix in (".png", ".tif", ".tiff"):
        image = _load_single_channel(path, max_pixels)
        values = np.asarray(image)
    else:
        raise InputError(f"{path}: not a depth map; give .npy, .npz, .pfm, .exr, .png or .tif")
    depth = _as_map(path, values).astype(np.float32)
    if not np.isfinite(depth).any():
        raise InputError(f"{path}: holds no finite value; give another depth map")
    return depth


def check_size(what: str, shape: tuple[int, ...], height: int, width: int) -> None:
    """Raise InputError unless an array that belongs to a photo has the photo's size."""
    if shape != (height, width):
        size = f"{shape[1]} x {shape[0]} pixels" if len(shape) == 2 else f"of shape {shape}"
        raise InputError(f"the {what} is {size} and the photo {width} x {height}: they must be one size")


def load_mask(
    path: StrPath, *, max_pixels: int = MAX_PIXELS, may_be_empty: bool = False
) -> NDArray[np.bool_]:
    """Read a mask.

    Args:
        path: ``.npy``, or an image as `load_photo` reads them. A pixel is selected where it is
            above zero (not black); in a JPEG, whose black is never exact, where it is above 127.
        max_pixels: as for `load_photo`.
        may_be_empty: whether a mask that selects nothing is an answer rather than a mistake.

    Returns:
        (H, W) bool.

    Raises:
        InputError: the file is missing, damaged or of another shape, or selects no pixel though it has to.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        values = np.nan_to_num(_as_map(path, _load_numpy(path, ())))
        threshold = 0
    else:
        with _open_regular(path) as file:
            image = _open_image(path, file, max_pixels)
            _decode(path, image)
        # A palette's indices are its labels and 16 bits must not be cut to 8: both stay as stored.
        as_stored = image.mode in ("P", "F") or image.mode.startswith("I")
        values = np.asarray(image if as_stored else image.convert("L"))
        threshold = 127 if image.format in ("JPEG", "MPO") else 0
    mask: NDArray[np.bool_] = values > threshold
    if not (mask.any() or may_be_empty):
        raise InputError(f"{path}: the mask selects no pixel; check that it is not inverted")
    return mask


def _load_numpy(path: Path, keys: Sequence[str]) -> NDArray[Any]:
    with _open_regular(path) as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                return np.asarray(loaded)
            names = [key for key in keys if key in loaded.files][:1] or loaded.files
            if len(names) == 1:
                return np.asarray(loaded[names[0]])
        except Exception as error:  # zipfile, zlib and numpy each raise their own on damaged bytes
            reason = _reason(error)
            raise InputError(f"{path}: not numbers saved by numpy ({reason}); save again") from None
    wanted = " or ".join(map(repr, keys))
    raise InputError(f"{path}: holds the arrays {sorted(names)}; name the map {wanted}")


def _load_pfm(path: Path) -> NDArray[np.float32]:
    with _open_regular(path) as file:
        content = file.read()
    header = re.match(rb"P([fF])\s+(\d+)\s+(\d+)\s+([-+.\deE]+)\s", content)
    if header is None:
        raise InputError(f"{path}: not a PFM file; it must start with Pf, width, height and scale")
    if header[1] == b"F":
        raise InputError(f"{path}: a colour PFM; give a map of one channel (Pf)")
    width, height = int(header[2]), int(header[3])
    expected, found = 4 * width * height, len(content) - header.end()
    if found < expected:
        raise InputError(f"{path}: truncated, {found} of {expected} bytes; copy it again")
    order = "<" if header[4].startswith(b"-") else ">"
    values = np.frombuffer(content, f"{order}f4", width * height, header.end())
    # PFM stores the bottom row first.
    return values.reshape(height, width)[::-1].astype(np.float32)


def _load_exr(path: Path) -> NDArray[Any]:
    with _open_regular(path):
        pass  # the reader says nothing of what is wrong with a path
    try:
        import OpenEXR
    except ImportError:
        raise MissingDependencyError(
            f'{path}: reading OpenEXR needs the package OpenEXR; run: pip install "redepth[exr]"'
        ) from None
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    except Exception as error:  # it raises RuntimeError, ValueError and TypeError on damaged bytes
        raise InputError(_damaged(path, error)) from None
    wanted = ("depth", "disparity", "z", "y", "v")
    ranked = {wanted.index(name.lower()): name for name in channels if name.lower() in wanted}
    name = next(iter(channels)) if len(channels) == 1 else ranked[min(ranked)] if ranked else None
    if name is None:
        raise InputError(f"{path}: holds the channels {sorted(channels)}; name the map's depth, Z or Y")
    return channels[name]


def _load_single_channel(path: Path, max_pixels: int) -> Image.Image:
    with _open_regular(path) as file:
        image = _open_image(path, file, max_pixels)
        if image.mode not in ("L", "F") and not image.mode.startswith("I"):
            raise InputError(f"{path}: has colour mode {image.mode}; a depth map has one grey channel")
        _decode(path, image)
    return image


def _as_map(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Drop axes of length 1 around (H, W); anything else is an InputError."""
    shape = values.shape
    if values.ndim > 2:
        values = values.reshape([n for n in shape if n != 1] if values.size != 1 else [1, 1])
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        raise InputError(f"{path}: has shape {shape}, type {values.dtype}; give numbers (H, W)")
    return values


# --- writing --------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a path in the same folder, with the same suffix, that the caller writes to. On success it
    is flushed to the disk and replaces ``path`` in one step; on an error it is removed and an
    existing ``path`` is left as it was. Missing parent folders are created.

    Raises:
        OSError: the folder cannot be created or written to, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:40]}-{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_npy(path: StrPath, array: ArrayLike) -> None:
    """Write an array as ``.npy``, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(array), allow_pickle=False)


def save_npz(path: StrPath, arrays: Mapping[str, ArrayLike]) -> None:
    """Write named arrays as compressed ``.npz``, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez_compressed(file, **plain)


def save_text(path: StrPath, text: str) -> None:
    """Write UTF-8 text, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def save_json(path: StrPath, value: Any) -> None:
    """Write JSON, indented by 2, atomically.

    numpy scalars and arrays become numbers and lists, paths become strings. NaN and infinities,
    which JSON does not have, become null.

    Raises:
        TypeError: a value has no JSON form.
    """
    text = json.dumps(_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def to_uint8(image: ArrayLike | Image.Image) -> NDArray[np.uint8]:
    """Return an image as uint8: uint8 as it is, anything else clipped to [0, 1], NaN as 0."""
    array: NDArray[Any] = np.asarray(image)
    if array.dtype != np.uint8:
        unit = np.clip(np.nan_to_num(array.astype(np.float32)), 0.0, 1.0)
        array = np.rint(unit * 255.0).astype(np.uint8)
    return array


def save_jpeg(path: StrPath, image: ArrayLike | Image.Image, quality: int = 85) -> None:
    """Write what `save_png` takes as JPEG, atomically."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(to_uint8(image))
    with atomic_path(path) as temporary:
        picture.save(temporary, format="JPEG", quality=quality)


def save_png(path: StrPath, image: ArrayLike | Image.Image) -> None:
    """Write a Pillow image, or what `to_uint8` takes, (H, W) or (H, W, 3), as PNG, atomically."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(to_uint8(image))
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def save_disparity_png(
    path: StrPath, disparity: ArrayLike, *, kind: str = "disparity"
) -> dict[str, float | str]:
    r"""Write a map as 16-bit grey PNG, atomically.

    .. math:: \text{pixel} = \mathrm{round}((d - \text{offset}) / \text{scale}),
              \quad d \approx \text{pixel} \cdot \text{scale} + \text{offset}

    The smallest value becomes 0 and the largest 65535; a constant map has scale 1 and pixels 0.

    Args:
        path: the file to write.
        disparity: (H, W), finite.
        kind: what the values are, kept in the file.

    Returns:
        ``scale``, ``offset`` and ``kind``, which the file also carries as the PNG text chunks
        ``redepth:scale``, ``redepth:offset`` and ``redepth:kind``.

    Raises:
        InputError: a value is not finite.
        ValueError: ``disparity`` is not (H, W).
    """
    values = np.asarray(disparity, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"disparity must be (H, W), got {values.shape}")
    invalid = int(values.size - np.isfinite(values).sum())
    if invalid:
        raise InputError(
            f"{path}: {invalid} of {values.size} pixels are not finite and have no 16-bit value; "
            "save the map as .npy"
        )
    offset = float(values.min())
    scale = (float(values.max()) - offset) / 65535.0 or 1.0
    encoding: dict[str, float | str] = {"scale": scale, "offset": offset, "kind": kind}
    chunks = PngImagePlugin.PngInfo()
    for key, value in encoding.items():
        chunks.add_text(f"redepth:{key}", str(value))
    pixels = np.rint((values - offset) / scale).astype(np.uint16)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=chunks)
    return encoding


def load_disparity_png(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Read back what `save_disparity_png` wrote.

    Returns:
        (H, W), each value within scale / 2 of what was saved, plus float32 rounding.

    Raises:
        InputError: the file is missing or damaged, or lacks the scale and the offset.
    """
    path = Path(path)
    image = _load_single_channel(path, max_pixels)
    try:
        scale, offset = (float(image.info[f"redepth:{key}"]) for key in ("scale", "offset"))
    except (KeyError, ValueError):
        raise InputError(
            f"{path}: carries no redepth:scale and redepth:offset, an editor may have dropped them;"
            " give the original file, or read the stored numbers with load_depth_map"
        ) from None
    return (np.asarray(image, dtype=np.float64) * scale + offset).astype(np.float32)


def save_points(
    path: StrPath,
    depth: ArrayLike,
    image: ArrayLike,
    *,
    max_relative_jump: float = 0.05,
    max_points: int = 500_000,
) -> int:
    """Write the point cloud of a relative depth map as binary PLY with colours, atomically.

    A point is (u, v, -z) of the orthographic camera: u in [-W/H, W/H] to the right, v in [-1, 1]
    up, z the relative depth. Depth networks blur the edges of objects to pixels that float between
    foreground and background; a pixel is left out where its depth and that of one of its four
    neighbours differ by more than ``max_relative_jump`` times the nearer of the two. That ratio
    depends neither on the unknown scale of relative depth nor on how far the scene reaches.

    Args:
        path: the file to write.
        depth: (H, W) relative depth; pixels that are not finite and positive are left out.
        image: (H, W, 3) sRGB, uint8 or floats in [0, 1].
        max_relative_jump: the largest accepted step between neighbours; ``math.inf`` keeps all.
        max_points: every k-th row and column are kept, for the smallest k within this number.

    Returns:
        How many points were written.

    Raises:
        InputError: no pixel is left.
        ValueError: the shapes do not match.
    """
    import trimesh

    z = np.asarray(depth, dtype=np.float32)
    colours = to_uint8(image)
    if z.ndim != 2 or colours.shape != (*z.shape, 3):
        raise ValueError(f"depth must be (H, W), image (H, W, 3), got {z.shape}, {colours.shape}")
    height, width = z.shape
    step = 1
    while math.ceil(height / step) * math.ceil(width / step) > max_points:
        step += 1
    # Edges are judged between true neighbours: at a stride, a plain slope would look like a jump.
    keep = _smooth(z, max_relative_jump)[::step, ::step]
    if not keep.any():
        raise InputError(
            f"{path}: no depth is finite, positive and within max_relative_jump={max_relative_jump}"
            " of its neighbours; check the depth or raise that limit"
        )
    u = np.linspace(-width / height, width / height, width, dtype=np.float32)[::step]
    v = np.linspace(1.0, -1.0, height, dtype=np.float32)[::step]
    points = np.stack([*np.meshgrid(u, v), -z[::step, ::step]], axis=-1)
    cloud: Any = trimesh.PointCloud(points[keep], colors=colours[::step, ::step][keep])
    with atomic_path(path) as temporary:
        temporary.write_bytes(cloud.export(file_type="ply"))
    return int(keep.sum())


def _smooth(z: NDArray[np.float32], max_relative_jump: float) -> NDArray[np.bool_]:
    """Return where z is finite, positive and within a relative jump of its valid 4-neighbours."""
    valid = np.isfinite(z) & (z > 0)
    jumps = np.zeros_like(valid)
    # The transposed pair are views: what is written to them lands in ``jumps``.
    for d, ok, out in ((z, valid, jumps), (z.T, valid.T, jumps.T)):
        near, far = np.minimum(d[1:], d[:-1]), np.maximum(d[1:], d[:-1])
        with np.errstate(invalid="ignore"):
            jump = ok[1:] & ok[:-1] & (far - near > max_relative_jump * near)
        out[1:] |= jump
        out[:-1] |= jump
    return valid & ~jumps
