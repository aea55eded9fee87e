"""Connection to the dashboard of a Ray cluster, with errors of one sentence.

- `cluster_address`: where it is; `connected`: Ray's client of it, with a timeout for each request
- `named_errors`: what a request raises, as one sentence; `ClusterAway`: nothing answers, which may pass
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from data_schemas.errors import EnvironmentProblem, HeadraceError
from data_schemas.public_urls import public_text, public_url
from infra.workers.ray_address import TOKEN, check_reachable

TIMEOUT_SECONDS = (10.0, 60.0)
"""To connect, and between two bytes of an answer."""


class ClusterAway(EnvironmentProblem):
    """The dashboard does not answer."""


def cluster_address(address: str | None) -> str:
    """The address given, else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS.

    Raises:
        EnvironmentProblem: if there is none.
    """
    found = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if not found:
        raise EnvironmentProblem(
            "no Ray cluster to submit to: set execution.address to the URL of its dashboard, such as "
            "http://head:8265, or RAY_ADDRESS"
        )
    return found.rstrip("/")


def connected(address: str) -> Any:
    """Ray's client of a dashboard whose cluster has the Ray that is installed here.

    Raises:
        EnvironmentProblem: if nothing answers, what answers is no dashboard, the token is refused, or Ray on the
            cluster has another version.
    """
    with named_errors(address):
        import ray
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray").setLevel(logging.ERROR)
        base = JobSubmissionClient.__mro__[1]

        class Client(JobSubmissionClient):  # type: ignore[misc]
            """Its own constructor lets RAY_ADDRESS override the address, and its requests wait forever."""

            def __init__(self, url: str) -> None:
                self._client_ray_version = ray.__version__
                base.__init__(self, address=url)

            def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
                return super()._do_request(method, endpoint, **{"timeout": TIMEOUT_SECONDS} | more)

        client = Client(_dashboard(address))
        response = client._do_request("GET", "/api/version")
        if response.status_code != 200 or "ray_version" not in response.text:
            raise EnvironmentProblem(_no_dashboard(address, f"status {response.status_code}"))
        theirs = response.json()["ray_version"]
        if theirs != ray.__version__:
            raise EnvironmentProblem(
                f"the Ray cluster at {public_url(address)} has Ray {theirs}, and here is Ray {ray.__version__}: "
                f"install ray=={theirs} here, or {ray.__version__} on the cluster"
            )
        return client


def _dashboard(address: str) -> str:
    """URL of the dashboard; the head is asked for it if the address is that of the head."""
    if "://" in address and not address.startswith("ray://"):
        return address
    from ray.dashboard import utils

    if address.startswith("ray://"):
        url = utils.ray_client_address_to_api_server_url(address)
    else:
        check_reachable(address)
        url = utils.ray_address_to_api_server_url(address)
    return str(url)


@contextlib.contextmanager
def named_errors(address: str) -> Iterator[None]:
    """Translate the errors of requests.

    Raises:
        EnvironmentProblem: instead of them.
    """
    from ray.exceptions import AuthenticationError
    from requests.exceptions import ConnectionError, JSONDecodeError, RequestException

    cluster = f"the Ray cluster at {public_url(address)}"
    try:
        yield
    except AuthenticationError as error:
        lacks = "needs a token" if "required" in str(error).lower() else "refuses the token"
        raise EnvironmentProblem(f"{cluster} {lacks}: {TOKEN}") from error
    except HeadraceError:
        raise
    except RuntimeError as error:  # of Ray's client, for every status that it does not expect
        raise EnvironmentProblem(f"{cluster} answers: {_first_line(error)}") from error
    except (JSONDecodeError, KeyError) as error:
        raise EnvironmentProblem(_no_dashboard(address, f"{type(error).__name__}")) from error
    except (ConnectionError, OSError) as error:
        if (
            isinstance(error, RequestException)
            and not isinstance(error, ConnectionError)
            and error.response is not None
        ):
            raise EnvironmentProblem(f"{cluster} answers with status {error.response.status_code}") from error
        raise ClusterAway(
            f"cannot reach {cluster} ({_reason(error)}): check execution.address (the URL of the dashboard, such as "
            "http://head:8265) or RAY_ADDRESS, and that the cluster runs with its dashboard"
        ) from error


def _first_line(error: BaseException) -> str:
    return public_text((str(error).strip() or type(error).__name__).splitlines()[0])[:300]


def _reason(error: BaseException) -> str:
    """The innermost reason of a failed connection."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:200]


def _no_dashboard(address: str, found: str) -> str:
    return (
        f"{public_url(address)} answers, but not as the dashboard of a Ray cluster ({found}): set execution.address to "
        "its URL, such as http://head:8265"
    )
