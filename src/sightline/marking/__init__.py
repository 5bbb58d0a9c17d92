"""The marking page: people see where a model looks, mark the object or what must not matter, and start a refit.

`app.serve` serves the page, `store` keeps the marks, `queue` says which image comes next.
"""

from importlib import import_module

from sightline._core.optional import requires_extra

with requires_extra("fix", "the marking page"):  # before a module of `serving` asks for a smaller extra
    for _name in ("cv2", "starlette", "uvicorn"):
        import_module(_name)
