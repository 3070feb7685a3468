"""Answers of the REST API: what a handler returns, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DOCUMENTATION = "https://docs.github.com/rest"


@dataclass(slots=True)
class Reply:
    status: int = 200
    body: Any = None
    """JSON value; bytes are sent as they are, with `media_type`."""
    media_type: str = "application/json; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """A refusal in GitHub's words: status, message, and for 422 the list of field errors."""

    def __init__(
        self, status: int, message: str, errors: list[Any] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"message": self.message}
        if self.errors is not None:
            body["errors"] = self.errors
        body |= {"documentation_url": DOCUMENTATION, "status": str(self.status)}
        return body


def not_found() -> ApiError:
    return ApiError(404, "Not Found")


def forbidden_to_app() -> ApiError:
    return ApiError(403, "Resource not accessible by integration")


def invalid(resource: str, field_name: str, code: str, message: str | None = None, value: Any = None) -> ApiError:
    """422 in the shape of GitHub's validation errors. `code` is missing_field, invalid, already_exists or custom."""
    error: dict[str, Any] = {"resource": resource, "field": field_name, "code": code}
    if value is not None:
        error["value"] = value
    if message is not None:
        error["message"] = message
    return ApiError(422, "Validation Failed", [error])
