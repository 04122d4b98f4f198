"""Requests to the `/sandbox/` endpoints: the call of a method by its name, and numbers in a query."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from pydantic import ValidationError, validate_call

from hedgelock_ingest.errors import SandboxError


async def call_by_name(request: web.Request, field: str, methods: Mapping[str, Callable[..., Any]]) -> web.Response:
    """
    Call the method that the posted JSON object names in `field`, with its other fields as arguments.

    Raises:
        web.HTTPBadRequest: It is no JSON object, or names no method or wrong arguments; the text lists what is allowed.
    """
    example = f'{{"{field}": "{next(iter(methods))}"}}'
    try:
        arguments = await request.json()
    except ValueError:
        raise web.HTTPBadRequest(text=f"the body is not JSON; expected an object such as {example}") from None
    if not isinstance(arguments, dict):
        raise web.HTTPBadRequest(text=f"the body is no JSON object; expected one such as {example}")
    name = arguments.pop(field, None)
    method = methods.get(name) if isinstance(name, str) else None
    if method is None:
        raise web.HTTPBadRequest(text=f"no {field} is called {name!r}; there are {', '.join(methods)}")
    try:
        return web.json_response({"result": validate_call(method)(**arguments)})
    except ValidationError as error:
        raise web.HTTPBadRequest(text=f"{_problems(error)}; expected {signature(name, method)}") from error
    except (TypeError, SandboxError) as error:
        raise web.HTTPBadRequest(text=str(error)) from error


def signature(name: str, method: Callable[..., Any]) -> str:
    """Return the name of a method with its arguments, their types and defaults."""
    arguments = inspect.signature(method).replace(return_annotation=inspect.Signature.empty)
    return f"{name}{arguments}"


def whole_number(request: web.Request, name: str) -> int | None:
    """
    Return a number of the query; None without it.

    Raises:
        web.HTTPBadRequest: It is no whole number.
    """
    text = request.query.get(name)
    try:
        return int(text) if text else None
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name}={text!r} is no whole number; expected milliseconds") from None


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
