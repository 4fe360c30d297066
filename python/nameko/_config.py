"""The global configuration, as in version 3."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from logging import getLogger
from types import TracebackType
from typing import Any, TypeVar

from nameko.exceptions import ConfigurationError

_log = getLogger("nameko.config")

F = TypeVar("F", bound=Callable[..., Any])


class Config(dict[str, Any]):
    """A dictionary that can be patched temporarily.

    Containers, runners and clients use it if they are created without a configuration.
    """

    def setup(self, values: Mapping[str, Any]) -> None:
        """Replaces all values."""
        self.clear()
        self.update(values)

    def patch(self, values: Mapping[str, Any], clear: bool = False) -> ConfigPatch:
        """Returns a context manager and decorator that sets ``values`` temporarily.

        With ``clear``, all other values are removed meanwhile.
        """
        return ConfigPatch(self, values, clear)


class TrackedConfig(Config):
    """A :class:`Config` that records which of its keys are read.

    :func:`track` and :func:`report_unknown_keys` change the class of an existing configuration, so
    that reads cost nothing more once the services have started.
    """

    _read: set[Any]

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._read.add(key)
        return super().get(key, default)


def track(config: Config) -> None:
    """Starts to record the keys that are read."""
    config._read = set()  # type: ignore[attr-defined]
    config.__class__ = TrackedConfig


def report_unknown_keys(config: Any) -> None:
    """Logs the keys that resemble one of the framework and were not read, and stops recording."""
    if isinstance(config, TrackedConfig):
        read = config._read
        config.__class__ = Config  # type: ignore[assignment]
        for warning in unknown_keys(config, read):
            _log.warning("%s", warning)


def unknown_keys(config: Mapping[str, Any], read: Collection[Any] = ()) -> list[str]:
    """Returns a warning for each key that resembles one of the framework and is not in ``read``."""
    # Not needed by every program that imports the package.
    from nameko._nameko import misspelled_key

    return [
        "the unknown key `{}` has no effect; did you mean `{}`?".format(key, meant)
        for key in config
        if key not in read and isinstance(key, str) and (meant := misspelled_key(key))
    ]


def merge(config: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Merges ``other`` into ``config``. Its values win; mappings are merged, lists are replaced."""
    for key, value in other.items():
        mine = config.get(key)
        if isinstance(mine, dict) and isinstance(value, Mapping):
            merge(mine, value)
        else:
            config[key] = _copy(value)


class ConfigPatch:
    """The context manager and decorator of :meth:`Config.patch`."""

    def __init__(self, config: Config, values: Mapping[str, Any], clear: bool) -> None:
        self.config = config
        self.values = values
        self.clear = clear
        # The values to restore, one entry per active `with`.
        self._saved: list[dict[str, Any]] = []

    def start(self) -> Config:
        self._saved.append(_copy(dict(self.config)))
        if self.clear:
            self.config.clear()
        self.config.update(self.values)
        return self.config

    def stop(self) -> None:
        self.config.setup(self._saved.pop())

    def __enter__(self) -> Config:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __call__(self, fn: F) -> F:
        @functools.wraps(fn)
        def patched(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)

        return patched  # type: ignore[return-value]


def _copy(value: Any) -> Any:
    """Copies nested dictionaries and lists, so that changes to them are undone as well."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


config = Config()


def number_of_seconds(config: Mapping[str, Any], key: str, default: float) -> float:
    """Returns a duration in seconds, ``default`` if unset. ConfigurationError if it is invalid."""
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise ConfigurationError("{} must be a number of seconds, not {!r}".format(key, value))
    return value


def whole_number(config: Mapping[str, Any], key: str, default: int) -> int:
    """Returns a non-negative integer, ``default`` if unset. ConfigurationError if it is invalid."""
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError("{} must be a whole number, not {!r}".format(key, value))
    if value < 0:
        raise ConfigurationError("{} must not be negative, not {}".format(key, value))
    return value


def queue_arguments(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Returns the configured arguments of queues of a kind, ``rpc`` or ``events``.

    The key ``queue_arguments`` maps kinds to arguments. ConfigurationError if it is invalid.
    """
    kinds = config.get("queue_arguments") or {}
    if not isinstance(kinds, Mapping):
        raise ConfigurationError(
            "queue_arguments must be a mapping of `rpc` and `events` to arguments"
        )
    for other in kinds:
        if other not in ("rpc", "events"):
            raise ConfigurationError(
                "queue_arguments has arguments for `{}`; there are `rpc` and `events`".format(other)
            )
    arguments = kinds.get(kind) or {}
    if not isinstance(arguments, Mapping):
        raise ConfigurationError(
            "queue_arguments must hold a mapping under `{}`, such as "
            "{{x-queue-type: quorum}}".format(kind)
        )
    return dict(arguments)


def is_config(value: Any) -> bool:
    """Whether a first argument is a configuration (2.x) rather than a service class (3.x)."""
    return isinstance(value, Mapping)
