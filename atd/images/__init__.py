"""Image files to arrays and tensors, and back: nothing is lost without being said."""

from atd.errors import ImageError
from atd.images.files import (
    READABLE_SUFFIXES,
    SUFFIXES,
    ImageFile,
    check_pil,
    check_writable,
    from_pil,
    open_image,
    probe,
    read_image,
    to_pil,
    write_image,
)
from atd.images.image import (
    ImageData,
    ImageHeader,
    Metadata,
    SaveOptions,
    samples_to_tensor,
    tensor_to_samples,
)
from atd.images.resampling import lanczos

__all__ = [
    "READABLE_SUFFIXES",
    "SUFFIXES",
    "ImageData",
    "ImageError",
    "ImageFile",
    "ImageHeader",
    "Metadata",
    "SaveOptions",
    "check_pil",
    "check_writable",
    "from_pil",
    "lanczos",
    "open_image",
    "probe",
    "read_image",
    "samples_to_tensor",
    "tensor_to_samples",
    "to_pil",
    "write_image",
]
