"""What storage says when it fails: whether it is storage that speaks, whether for good, and in which words a user hears of it.

A disk's errors are OSErrors with numbers. A bucket's are those, or of the packages that know buckets, of kinds of their own.
"""

from __future__ import annotations

import errno
import re

_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
# Packages whose errors are of storage, by name: none of them is imported for this.
_PACKAGES = frozenset(
    {
        "aiobotocore",
        "aiohttp",
        "asyncio",
        "azure",
        "botocore",
        "fsspec",
        "gcsfs",
        "google",
        "requests",
        "s3fs",
        "urllib3",
    }
)
# What S3 says of credentials that will not do again; s3fs makes errors without a telling kind of some.
_CREDENTIALS = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


def is_of_storage(error: BaseException) -> bool:
    """Whether storage, or the way to it, has failed; else whoever read what it gave could not make sense of it."""
    error = _failure_behind(error)
    package = _package(type(error).__module__)
    if package in _PACKAGES:
        return True
    # pyarrow says OSError, without a number, of a file that it cannot make sense of.
    return (
        isinstance(error, OSError) and package == "builtins" and (type(error) is not OSError or error.errno is not None)
    )


def is_final(error: BaseException) -> bool:
    """Whether storage refuses for good: no room, no access, credentials that are not there, have expired or are wrong."""
    if isinstance(error, OSError):  # a bucket's may have a kind without a number
        return isinstance(error, PermissionError) or error.errno in _FINAL or _code(error.__cause__) in _CREDENTIALS
    # Of boto's own, which only s3fs imports.
    return type(error).__module__ == "botocore.exceptions" and bool(re.search("Credential|Token", type(error).__name__))


def in_words(error: BaseException) -> str:
    """A sentence about an error of storage, with what to do where it is a bucket's."""
    error = _failure_behind(error)
    if isinstance(error, FileNotFoundError) or not _is_of_bucket(error):
        return f"{type(error).__name__}: {error}"
    if is_final(error):
        return (
            f"the bucket refuses: {plain(error)}. Renew the credentials, or get access, and run the same command again"
        )
    return (
        f"the bucket cannot be reached now: {type(error).__name__}: {plain(error)}. That says nothing about the data; run the "
        "same command again"
    )


def plain(error: BaseException) -> str:
    """What an error says, in a line, without its number."""
    text = (str(error).strip() or "no more is said").splitlines()[-1]
    return re.sub(r"^.Errno [0-9]+. |[.]$", "", text)


def _failure_behind(error: BaseException) -> BaseException:
    """The failure that a package of storage's was busy with when it stumbled itself: s3fs asks a time-out for its number."""
    if isinstance(error, OSError) or _package(type(error).__module__) in _PACKAGES or error.__context__ is None:
        return error
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    is_theirs = trace is not None and _package(trace.tb_frame.f_globals.get("__name__", "")) in _PACKAGES
    return error.__context__ if is_theirs else error


def _package(module: str) -> str:
    return module.partition(".")[0]


def _is_of_bucket(error: BaseException) -> bool:
    packages = {_package(type(one).__module__) for one in (error, error.__cause__)}
    return bool(packages & _PACKAGES) or isinstance(error, ConnectionError | TimeoutError)


def _code(error: BaseException | None) -> str:
    """The code in S3's answer, which s3fs keeps as an error's cause."""
    response = getattr(error, "response", None)
    found = response.get("Error") if isinstance(response, dict) else None
    return str(found.get("Code", "")) if isinstance(found, dict) else ""
