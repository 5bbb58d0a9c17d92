"""Names for things that users choose by name, with what each of them can do."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Generic, TypeVar

from sightline._core.typed_options import check_constructor, check_options
from sightline.errors import SightlineError, unknown_name

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One name of a registry.

    Attributes:
        name: what users type.
        factory: makes the thing; its keyword parameters are the options that users may set.
        capabilities: what callers can ask before they make one, such as `differentiable` or `needs_masks`.
    """

    name: str
    factory: Callable[..., T]
    capabilities: dict[str, Any] = field(default_factory=dict)

    def __call__(self, **options: Any) -> T:
        """Make one, refusing an option that the factory does not have, or a value of another type than its annotation."""
        self.check(options)
        parameters = inspect.signature(self.factory).parameters
        missing = [
            n for n, p in parameters.items()
            if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and n not in options
        ]  # fmt: skip
        if missing:
            raise SightlineError(f"{self.name!r} needs {', '.join(repr(n) for n in missing)}, which was not given")
        made = self.factory(**options)
        check_options(self.factory, options, self.name, choices=True)
        return made

    def check(self, options: Mapping[str, Any]) -> None:
        """Reject an option that the factory does not have, or a value of another type; further options may follow."""
        parameters = inspect.signature(self.factory).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for option in options:
                if option not in parameters:
                    raise unknown_name(f"option of {self.name!r}:", option, parameters)
        check_options(self.factory, options, self.name)

    @property
    def summary(self) -> str:
        """The first line of the factory's docstring."""
        return (inspect.getdoc(self.factory) or "").partition("\n")[0]


class Registry(Generic[T]):
    """The named things of one kind: built in, registered by a decorator, or offered by an installed package.

    A package offers some by an entry point in the group `sightline.<plural>`: a module, which registers them as it is
    imported; or a factory under the entry point's name, with an optional attribute `capabilities`, a dict.

    Args:
        noun: what one thing is called, for messages; `group` follows from it.
        modules: modules, and packages of modules, that register the built-in ones; imported at the first look-up, not before.
        **defaults: capabilities of what is registered without them.
    """

    def __init__(self, noun: str, modules: tuple[str, ...] = (), **defaults: Any) -> None:
        self.noun = noun
        self._modules = modules
        self._defaults = defaults
        self._entries: dict[str, Entry[T]] = {}
        self._loaded = False

    def register(self, name: str, **capabilities: Any) -> Callable[[F], F]:
        """Return a decorator that registers a factory under a free name; a class checks its arguments from then on."""

        def decorate(factory: F) -> F:
            if isinstance(factory, type):
                check_constructor(factory, name)
            self._add(Entry(name, factory, {**self._defaults, **capabilities}))
            return factory

        return decorate

    def create(self, name: str, **options: Any) -> T:
        """Make the thing of that name with these options."""
        return self[name](**options)

    @property
    def group(self) -> str:
        """The group of entry points by which an installed package offers entries, such as `sightline.query_strategies`."""
        noun = self.noun.replace(" ", "_")
        return f"sightline.{noun[:-1]}ies" if noun.endswith("y") else f"sightline.{noun}s"

    def names(self) -> list[str]:
        """Every name, sorted."""
        self._load()
        return sorted(self._entries)

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """Every name with its capabilities."""
        return {entry.name: entry.capabilities for entry in self}

    def __getitem__(self, name: str) -> Entry[T]:
        self._load()
        if name not in self._entries:
            raise unknown_name(self.noun, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[Entry[T]]:
        self._load()
        return iter([self._entries[name] for name in sorted(self._entries)])

    def _add(self, entry: Entry[T]) -> None:
        taken = self._entries.get(entry.name)
        if taken is not None and taken.factory is not entry.factory:
            raise SightlineError(
                f"the {self.noun} name {entry.name!r} is taken by {taken.factory!r}; choose another name"
            )
        self._entries[entry.name] = entry

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for name in self._modules:
            for inner in iter_modules(getattr(import_module(name), "__path__", ())):
                if not inner.ispkg:
                    import_module(f"{name}.{inner.name}")
        for point in entry_points(group=self.group):
            offered = point.load()
            if not isinstance(offered, ModuleType):
                able = getattr(offered, "capabilities", {})  # a metric's class has a method of that name
                self._add(Entry(point.name, offered, dict(able() if callable(able) else able)))
