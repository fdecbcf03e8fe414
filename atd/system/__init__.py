"""The machine below the library: files that appear whole, devices, and packages that may be missing."""

from atd.system.cgroups import free_in_cgroups
from atd.system.devices import default_device, named_device, release_cached_memory
from atd.system.dtypes import as_dtype
from atd.system.extras import import_extra, install_hint, missing_extra
from atd.system.files import atomic_write, check_exists, disk_error, expand_user, ignores_case, naming
from atd.system.locks import exclusive_file
from atd.system.narrowing import is_list, is_mapping
from atd.system.warnings import warn_caller

__all__ = [
    "as_dtype",
    "atomic_write",
    "check_exists",
    "default_device",
    "disk_error",
    "exclusive_file",
    "expand_user",
    "free_in_cgroups",
    "ignores_case",
    "import_extra",
    "install_hint",
    "is_list",
    "is_mapping",
    "missing_extra",
    "named_device",
    "naming",
    "release_cached_memory",
    "warn_caller",
]
