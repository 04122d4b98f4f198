"""A small disk of its own for a journal, which others can fill; not every machine gives the rights to mount it."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MEBIBYTE = 1024 * 1024
SMALLEST_BYTES = 4 * MEBIBYTE


class SmallDisk:
    """A mounted disk; `folder` is the journal's."""

    def __init__(self, mount: Path) -> None:
        """Use the disk that is mounted at `mount`."""
        self.folder = mount / "journal"
        self._ballast = mount / "ballast"

    @property
    def free_bytes(self) -> int:
        """Bytes free."""
        status = os.statvfs(self._ballast.parent)
        return status.f_bavail * status.f_frsize

    def fill(self, *, but_bytes: int = 0) -> None:
        """Let others take all that is free, except for some bytes."""
        with self._ballast.open("ab") as file:
            while (taken_bytes := self.free_bytes - but_bytes) > 0:
                with suppress(OSError):  # the journal was faster: there is less by now
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), taken_bytes)

    def free(self) -> None:
        """Remove what others have."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def mounted(parent: Path, size: int = SMALLEST_BYTES) -> Iterator[SmallDisk]:
    """Mount a disk in a folder for the length of a block."""
    mount = parent / "disk"
    mount.mkdir()
    options = f"size={size},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", mount], check=True, capture_output=True)
    try:
        yield SmallDisk(mount)
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


def may_mount() -> bool:
    """Return whether this environment gives the rights to mount a disk."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted(Path(folder)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def mounted_ext4(parent: Path) -> Iterator[SmallDisk]:
    """Mount a disk that `turn_read_only` can break, for the length of a block."""
    mount, image = parent / "ext4", parent / "ext4.image"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(32 * MEBIBYTE)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, mount], check=True, capture_output=True)
    try:
        yield SmallDisk(mount)
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


def turn_read_only(disk: SmallDisk) -> None:
    """Make the kernel find an error on an ext4 disk: from then on it refuses all writes, also to open files."""
    command = ["findmnt", "--noheadings", "--output", "SOURCE", "--target", str(disk.folder.parent)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("trial")


def may_mount_ext4() -> bool:
    """Return whether this environment gives the rights, and has the programs, to mount an ext4 disk."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted_ext4(Path(folder)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False
