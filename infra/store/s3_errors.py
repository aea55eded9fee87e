"""Errors of S3, as sentences that say what a user can do.

- `Fault`: one failed request: whether to repeat it, and the sentence if that does not help
- `fault_of`: reads an exception of s3fs, botocore or aiohttp
"""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from data_schemas.errors import EnvironmentProblem, StoreUnavailable

TRANSIENT_ERRORS = (
    boto.HTTPClientError, boto.ConnectionError, ResponseParserError, boto.IncompleteReadError, aiohttp.ClientError,
    http.client.HTTPException, TimeoutError, ConnectionError,
)  # fmt: skip
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524})
TRANSIENT_CODES = frozenset({
    "SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestLimitExceeded",
    "TooManyRequests", "TooManyRequestsException", "BandwidthLimitExceeded", "InternalError", "ServiceUnavailable",
    "RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "BadDigest",
    "XAmzContentSHA256Mismatch",
})  # fmt: skip
EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
UNKNOWN_KEY_CODES = frozenset({"InvalidAccessKeyId", "InvalidToken", "InvalidClientTokenId", "SignatureDoesNotMatch"})
REGION_CODES = frozenset({
    "AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException",
    "301", "307",
})  # fmt: skip
NO_CREDENTIALS = (
    boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.SSOError,
    boto.TokenRetrievalError, boto.ProfileNotFound, boto.InvalidConfigError, boto.NoAuthTokenError,
)  # fmt: skip
RIGHTS = {
    "put_object": "s3:PutObject", "create_multipart_upload": "s3:PutObject", "upload_part": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject", "abort_multipart_upload": "s3:AbortMultipartUpload",
    "get_object": "s3:GetObject", "head_object": "s3:GetObject and s3:ListBucket", "list_objects_v2": "s3:ListBucket",
    "delete_object": "s3:DeleteObject", "delete_objects": "s3:DeleteObject", "head_bucket": "s3:ListBucket",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
}  # fmt: skip
"""Request -> right that it needs."""
FULL_CODES = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "StorageFull", "507"})
FOR_PROGRAMS = frozenset({404, 409, 412, 416})
"""Statuses of which callers expect the error that fits."""
UPLOADS = ("put_object", "upload_part", "create_multipart_upload", "complete_multipart_upload")
RESUMES = "the same command then resumes"


@dataclass(frozen=True)
class Fault:
    """A failed request."""

    error: Exception
    status: int
    """HTTP status; 0 if there was no answer."""
    code: str
    """Code of S3, or the status of an answer without a body; empty if there was no answer."""
    message: str

    @property
    def text(self) -> str:
        """`503 SlowDown`, or the name and message of the error."""
        if self.status:
            return f"{self.status} {self.code}".strip() if self.code != str(self.status) else self.code
        return f"{type(self.error).__name__}: {self.message}"[:200]

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        if not self.status:
            permanent = (*NO_CREDENTIALS, boto.SSLError)
            return isinstance(self.error, TRANSIENT_ERRORS) and not isinstance(self.error, permanent)
        if self.code in FULL_CODES:
            return False
        return self.code in TRANSIENT_CODES or self.status in TRANSIENT_STATUS

    @property
    def is_expired(self) -> bool:
        """Whether new credentials may help; an answer to HEAD has no code."""
        return self.code in EXPIRED_CODES or self.code == "400"

    def refusal(self, method: str, request: Mapping[str, Any], attempts: int) -> EnvironmentProblem | None:
        """The sentence about a request that failed for good; None if its error says enough to a program.

        Args:
            method: name of the request, such as `put_object`.
            request: its arguments.
            attempts: number of attempts.
        """
        bucket, key = request.get("Bucket", ""), request.get("Key") or request.get("Prefix") or ""
        where = f"s3://{bucket}/{key}".rstrip("/")
        if self.is_transient:
            return StoreUnavailable(
                f"{where}: {method} failed {attempts} times, at last with {self.text}; check that the server "
                f"{_address(self.error)}can be reached and is not overloaded; {RESUMES}"
            )
        if isinstance(self.error, boto.SSLError):
            return EnvironmentProblem(
                f"{where}: the server's certificate is not accepted ({self.message}); check AWS_ENDPOINT_URL, or name "
                "its authority in AWS_CA_BUNDLE"
            )
        if isinstance(self.error, boto.ParamValidationError | ValueError):
            message = " ".join(self.message.split())[:200]
            return EnvironmentProblem(f"{where}: {message}; check the store's URL and AWS_ENDPOINT_URL")
        if isinstance(self.error, NO_CREDENTIALS):
            return EnvironmentProblem(
                f"{where}: no credentials ({self.message}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE"
            )
        if self.is_expired:
            return EnvironmentProblem(f"{where}: the credentials have expired ({self.text}); renew them: {RESUMES}")
        if self.code in UNKNOWN_KEY_CODES:
            return EnvironmentProblem(
                f"{where}: the server does not accept the credentials ({self.code}); check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_ENDPOINT_URL"
            )
        if self.code == "RequestTimeTooSkewed":
            return EnvironmentProblem(f"{where}: the clock of this machine is wrong ({self.code}); set it")
        if self.code in REGION_CODES:
            return EnvironmentProblem(
                f"{where}: the bucket is in another region or at another address ({self.text}: {self.message}); set "
                "AWS_DEFAULT_REGION and AWS_ENDPOINT_URL"
            )
        if self.code == "NoSuchBucket":
            return EnvironmentProblem(
                f"the bucket {bucket} does not exist at this address; create it, or check the store's URL and "
                "AWS_ENDPOINT_URL"
            )
        if self.code in FULL_CODES:
            return EnvironmentProblem(
                f"{where}: the object store is full, or a quota of it is used up ({self.text}: {self.message}); remove "
                f"what no run needs (headrace gc), or raise the quota; {RESUMES}"
            )
        if self.code == "InvalidObjectState":
            return EnvironmentProblem(
                f"{where}: it is in an archive, from which it cannot be read ({self.message}); restore it first"
            )
        if self.status in (401, 403):
            return EnvironmentProblem(
                f"{where}: {self.text}: {method} is not permitted; grant these credentials the right "
                f"{RIGHTS.get(method, method)}"
            )
        if self.status and self.status not in FOR_PROGRAMS and not (self.status == 501 and "IfNoneMatch" in request):
            checksums = "; for a server that does not know checksums: AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
            return EnvironmentProblem(
                f"{where}: the server refuses {method} ({self.text}: {self.message}); check that the store's URL and "
                f"AWS_ENDPOINT_URL are those of an S3 server{checksums if method in UPLOADS else ''}"
            )
        return None


def fault_of(error: Exception) -> Fault:
    """Kind of fault behind an exception of s3fs, botocore or aiohttp."""
    answer = error if isinstance(error, boto.ClientError) else error.__cause__
    if not isinstance(answer, boto.ClientError):
        return Fault(error, 0, "", str(error))
    problem = answer.response.get("Error", {})
    status = answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(problem.get("Code", ""))
    return Fault(error, status or int(code if code.isdecimal() else 400), code, str(problem.get("Message", "")))


def _address(error: Exception) -> str:
    address = getattr(error, "kwargs", {}).get("endpoint_url")
    return f"{'/'.join(str(address).split('/')[:3])} " if address else ""
