"""Servers on this machine that stand for the buckets of S3 and of Google."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

# Each serves until it is killed. Emulators keep objects in memory.
_SERVERS = {
  "s3": """
import logging, sys, time
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False).start()
time.sleep(3600)
""",
  # This emulator lacks the condition of a new object.
  "gs": """
import http, sys, time
from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects
upload = objects._multipart_upload
def conditional_upload(request, response, storage):
  name = request.data["meta"].get("name") or request.query["name"][0]
  exists = name in storage.objects.get(request.params["bucket_name"], {})
  if exists and request.query.get("ifGenerationMatch") == ["0"]:
    response.status = http.HTTPStatus.PRECONDITION_FAILED
    return None
  return upload(request, response, storage)
objects._multipart_upload = conditional_upload
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True).start()
time.sleep(3600)
""",
}


def environment(scheme: str, port: int) -> dict[str, str]:
  """Returns the variables with which any program uses a server."""
  url = f"http://127.0.0.1:{port}"
  return {
    "s3": {
      "AWS_ACCESS_KEY_ID": "nobody",
      "AWS_SECRET_ACCESS_KEY": "nothing",
      "AWS_DEFAULT_REGION": "us-east-1",
      "AWS_ENDPOINT_URL": url,
    },
    "gs": {
      "STORAGE_EMULATOR_HOST": url,
      # Otherwise gcsfs asks Google for the kind of the bucket.
      "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    },
  }[scheme]


@contextlib.contextmanager
def served(scheme: str) -> Iterator[dict[str, str]]:
  """Serves an empty bucket called `bucket`; yields `environment`."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  server = subprocess.Popen(
    [sys.executable, "-c", _SERVERS[scheme], str(port)],
    env=os.environ | {"NO_PROXY": "127.0.0.1"},
    stderr=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
  )
  try:
    _make_bucket(scheme, port)
    yield environment(scheme, port)
  finally:
    server.kill()
    server.wait()


def _make_bucket(scheme: str, port: int) -> None:
  """Makes the bucket, as soon as the server answers."""
  url = f"http://127.0.0.1:{port}"
  requests = {
    "s3": urllib.request.Request(f"{url}/bucket", method="PUT"),
    "gs": urllib.request.Request(
      f"{url}/storage/v1/b?project=p",
      b'{"name": "bucket"}',
      {"Content-Type": "application/json"},
    ),
  }
  for _ in range(300):
    try:
      with urllib.request.urlopen(requests[scheme], timeout=5):
        return
    except ConnectionRefusedError:
      pass
    except urllib.error.URLError as error:
      if not isinstance(error.reason, ConnectionRefusedError):
        raise
    time.sleep(0.1)
  raise TimeoutError(f"The server of {scheme}:// did not start.")
