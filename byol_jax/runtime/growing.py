"""Files that grow while a program runs, on a disk or in a bucket."""

import pathlib
import time

from byol_jax.runtime import buckets, files

# An object cannot be extended, only written again as a whole. Our choice: a kill loses at
# most a minute of a log whose lines are up to half a minute apart, and nothing of others.
_UPLOAD_SECONDS = 30.0


class Growing:
  """A folder whose files grow while a program runs, such as its logs.

  Args:
    folder: of a workdir; it is made.

  Attributes:
    on_disk: where to write the files: the folder itself, or for a bucket a temporary
      one, whose files `upload` copies.

  Raises:
    OSError: the folder cannot be made; also from `upload` and `close`.
  """

  def __init__(self, folder: pathlib.Path):
    files.make_folder(folder)
    self.on_disk = folder
    self._bucket = folder if isinstance(folder, buckets.BucketPath) else None
    if self._bucket:
      self._temporary = files.temporary_folder()
      self.on_disk = pathlib.Path(self._temporary.name)
    self._uploaded_at = time.monotonic()

  def upload(self, *, at_once: bool = True) -> None:
    """Copies the files to the bucket.

    Args:
      at_once: False to do it only if it was not done for 30 seconds.
    """
    waited = time.monotonic() - self._uploaded_at
    if self._bucket and (at_once or waited >= _UPLOAD_SECONDS):
      for file in self.on_disk.iterdir():
        (self._bucket / file.name).upload(file)
      self._uploaded_at = time.monotonic()

  def close(self) -> None:
    """Copies the files, which must be closed, for the last time."""
    if self._bucket:
      self.upload()
      self._temporary.cleanup()
