"""Whether the head of a cluster can be used, before Ray tries: Ray repeats what is refused for half a minute.

- `check_reachable`: the head listens, and accepts the token
- `TOKEN`: what helps if it does not
"""

import os
import socket

from data_schemas.errors import EnvironmentProblem

CONNECT_SECONDS = 10.0
TOKEN = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or ~/.ray/auth_token) to the token of the cluster"
IDENTITY = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""Ray's own first question to a head; its message is empty."""


def check_reachable(address: str) -> None:
    """Connect to a `host:port` once, with the token; other kinds of addresses are left to Ray.

    Raises:
        OSError: if nothing listens there.
        EnvironmentProblem: if the head needs a token, or another one.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return
    socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
        _check_token(address)


def _check_token(address: str) -> None:
    import grpc
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled

    headers = {name.lower(): value for name, value in get_auth_headers_if_auth_enabled({}).items()}
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(IDENTITY)(b"", timeout=CONNECT_SECONDS, metadata=list(headers.items()))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                lacks = "refuses the token" if headers else "needs a token"
                raise EnvironmentProblem(f"the Ray cluster at {address} {lacks}: {TOKEN}") from error
            # Whatever else it answers, Ray may understand.
