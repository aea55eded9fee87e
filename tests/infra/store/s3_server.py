"""A local S3: moto's server in a process of its own. `python -m tests.infra.store.s3_server` prints its URL."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BUCKET = "headrace-tests"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Run the server with one bucket; yields the environment that points clients to it."""
    credentials = {
        "AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    command = [sys.executable, "-m", __name__]
    small_parts = {"S3_UPLOAD_PART_MIN_SIZE": "1024", "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": f"{16 * 2**20}"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | credentials | small_parts
    ) as server:
        assert server.stdout is not None
        try:
            yield {**credentials, "AWS_ENDPOINT_URL": server.stdout.readline().strip()}
        finally:
            server.kill()
            forget_clients()


def forget_clients() -> None:
    """Open S3 anew from now on: fsspec keeps filesystems, with the server that they were opened for."""
    if module := sys.modules.get("infra.store.s3"):
        module.StoreS3.clear_instance_cache()


def serve() -> None:
    """Serve until standard input ends, as it does when the tests are killed.

    One request at a time: moto checks a condition and stores the object in two steps.
    """
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    lock, application = threading.Lock(), DomainDispatcherApplication(create_backend_app)

    def one_at_a_time(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        with lock:
            return list(application(environ, start_response))

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
    print(url, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve()
