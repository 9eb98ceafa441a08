"""One register for optimizers, models and data sets: list them, look them up, add your own.

Nothing here imports torch. A spec names its factory as ``"module:attribute"``, which is imported when the
first instance is made::

    list_optimizers("insgd-*")                      # sorted names
    get_optimizer("insgd-l1").citation
    create_optimizer("insgd-l1", model, lr=0.1)     # a torch.optim.Optimizer

Three doors lead in: :func:`register_optimizer` in a running process, an entry point of an installed package
(groups ``insgd_lab.optimizers``, ``insgd_lab.models``, ``insgd_lab.data``), and :func:`load_plugins` for
modules named in a study file or on the command line.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import inspect
import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, TypeVar

from insgd_lab.capabilities import Capabilities

__all__ = [
    "Capabilities",
    "DataSpec",
    "DuplicateName",
    "ModelSpec",
    "OptimizerSpec",
    "UnknownName",
    "check_known",
    "create_optimizer",
    "get_data",
    "get_model",
    "get_optimizer",
    "list_data",
    "list_models",
    "list_optimizers",
    "load_plugins",
    "register_data",
    "register_model",
    "register_optimizer",
]

Factory = Callable[..., Any] | str


class UnknownName(LookupError):
    """No optimizer, model, data set or option of that name."""


class DuplicateName(ValueError):
    """The name is taken."""


@dataclass(frozen=True)
class OptimizerSpec:
    """A named update rule.

    Attributes:
        name: as written in study files.
        factory: a callable or "module:attribute", called as ``factory(params_or_model, **options)``.
        family: the group it is listed under.
        citation: where it was published, with the equation's number.
        equation: the update in plain text.
        defaults: every option it takes, with its default.
        search: for options worth tuning, the values or range to try.
        capabilities: see :class:`Capabilities`.
        revision: raised whenever the rule's numbers change, so that old results are not reused.
        domains: by option, the values it may take (``insgd_lab.hyperparameters.Domain``); options without one
            are judged by the factory alone.
    """

    name: str
    factory: Factory
    family: str = "user"
    citation: str = ""
    equation: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    capabilities: Capabilities = field(default_factory=Capabilities)
    revision: int = 1
    domains: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.capabilities, Capabilities):
            raise TypeError(
                f"optimizer {self.name!r}: capabilities = {self.capabilities!r}: expected insgd_lab.Capabilities(...), "
                'such as Capabilities(momentum=True, closed_form="adam")'
            )
        if not isinstance(self.revision, int):
            raise TypeError(f"optimizer {self.name!r}: revision = {self.revision!r}: expected a whole number")


@dataclass(frozen=True)
class ModelSpec:
    """A named network: ``factory(input_shape, classes, **options)`` returns a ``torch.nn.Module``.

    ``domains`` are as in :class:`OptimizerSpec`.
    """

    name: str
    factory: Factory
    description: str = ""
    citation: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 1
    domains: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSpec:
    """A named data set: ``factory(data_dir, **options)`` returns its train, validation and test splits.

    Attributes:
        name: as written in study files.
        factory: a callable or "module:attribute".
        description: what it is, in one line.
        citation: where it was published.
        defaults: every option it takes, with its default.
        files: the paths it needs below the data directory; none for embedded data.
        classes: their number, by which a diverged run is scored as a guess; None where there are none, or where
            only the user's files tell.
        revision: raised whenever the same options give other numbers.
        domains: as in :class:`OptimizerSpec`.
        images: whether the examples are images, which ``train.augment`` can crop and mirror.
        labels: whether the targets are labels of classes, which ``train.label_smoothing`` can smooth.
        model: the name of the only model that it is for; None: any.
    """

    name: str
    factory: Factory
    description: str = ""
    citation: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    classes: int | None = None
    revision: int = 1
    domains: Mapping[str, Any] = field(default_factory=dict)
    images: bool = True
    labels: bool = True
    model: str | None = None


class _Named(Protocol):
    @property
    def name(self) -> str: ...


SpecT = TypeVar("SpecT", bound=_Named)


class _Register(Generic[SpecT]):
    """Specs of one kind by name. Built-ins and entry points are read at the first look-up."""

    def __init__(self, kind: str, spec_type: type[SpecT], group: str) -> None:
        self.kind, self.spec_type, self.group = kind, spec_type, group
        self._specs: dict[str, SpecT] = {}
        self._loaded = False

    def add(self, spec: SpecT) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", spec.name):
            raise ValueError(f"{self.kind} name {spec.name!r}: expected lower-case words joined by '-'; rename it")
        if spec.name in self._specs:
            raise DuplicateName(f"{self.kind} {spec.name!r} is registered already; choose another name")
        self._specs[spec.name] = spec

    def names(self, pattern: str = "*") -> list[str]:
        self._load()
        return sorted(fnmatch.filter(self._specs, pattern))

    def get(self, name: str) -> SpecT:
        self._load()
        check_known(name, self._specs, f"{self.kind}")
        return self._specs[name]

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        catalogue = importlib.import_module("insgd_lab.catalogue")
        for spec in catalogue.SPECS:
            if isinstance(spec, self.spec_type):
                self.add(spec)
        for entry in entry_points(group=self.group):
            self._load_entry(entry)

    def _load_entry(self, entry: Any) -> None:
        # A plugin runs foreign code: whatever it raises must not take the lab's own names away.
        try:
            spec = entry.load()
            if not isinstance(spec, self.spec_type):
                raise TypeError(f"expected {self.spec_type.__name__}, got {type(spec).__name__}")
            if spec.name not in self._specs or self._specs[spec.name] is not spec:
                self.add(spec)
        except (Exception, SystemExit) as error:
            message = f"plugin {entry.name!r} ({entry.value}) is skipped: {type(error).__name__}: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=4)


_optimizers = _Register("optimizer", OptimizerSpec, "insgd_lab.optimizers")
_models = _Register("model", ModelSpec, "insgd_lab.models")
_data = _Register("data set", DataSpec, "insgd_lab.data")


def check_known(name: str, known: Iterable[str], what: str) -> None:
    """Raise :class:`UnknownName`, with the nearest names, unless ``name`` is one of ``known``."""
    known = sorted(known)
    if name in known:
        return
    near = [name.lower()] if name.lower() in known else difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known) or 'none'}"
    raise UnknownName(f"unknown {what} {name!r}; {hint}")


def list_optimizers(pattern: str = "*") -> list[str]:
    """Sorted names of the optimizers that match a shell-style pattern (``*`` and ``?``)."""
    return _optimizers.names(pattern)


def get_optimizer(name: str) -> OptimizerSpec:
    """The spec of that exact name; raises :class:`UnknownName` with the nearest names otherwise."""
    return _optimizers.get(name)


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the models that match a shell-style pattern."""
    return _models.names(pattern)


def get_model(name: str) -> ModelSpec:
    """The model spec of that exact name; raises :class:`UnknownName` otherwise."""
    return _models.get(name)


def list_data(pattern: str = "*") -> list[str]:
    """Sorted names of the data sets that match a shell-style pattern."""
    return _data.names(pattern)


def get_data(name: str) -> DataSpec:
    """The data spec of that exact name; raises :class:`UnknownName` otherwise."""
    return _data.get(name)


def resolve_factory(factory: Factory) -> Callable[..., Any]:
    """The callable that a spec's factory names."""
    if not isinstance(factory, str):
        return factory
    module, _, attribute = factory.partition(":")
    resolved: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return resolved


def raised_in(error: BaseException, factory: Callable[..., Any]) -> str:
    """Where a plugin's factory raised, " (raised in rings.py, line 12)", for its author; nothing of the lab's own."""
    root = str(getattr(factory, "__module__", None) or "").partition(".")[0]
    if root in ("", "insgd_lab"):
        return ""
    frames = [
        (str(frame.f_globals.get("__name__")).partition(".")[0] == root, frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    # What it calls of others may be deeper: its own place is the one to look at.
    places = [(file, line) for own, file, line in frames if own]
    return f" (raised in {places[-1][0]}, line {places[-1][1]})" if places else ""


def create_optimizer(name: str, params_or_model: Any, **options: Any) -> Any:
    """Build a registered optimizer.

    Args:
        name: exact registry name.
        params_or_model: a model, parameters, named parameters, or parameter groups.
        **options: the rule's options (see its spec's ``defaults``). Rules that read inputs also take
            ``model`` (where the first argument is not one) and ``process_group``; capturable ones ``capturable``.

    Raises:
        UnknownName: no such optimizer, or no such option; near misses are suggested.
        ValueError: an option outside its range; ``adanorm`` for a rule that it cannot be put in front of.
    """
    spec = get_optimizer(name)
    able = spec.capabilities
    wiring = {"model", "process_group"} if able.reads_inputs else set()
    wiring |= {"capturable"} if able.capturable else set()
    if "adanorm" in options and "adanorm" not in spec.defaults:
        chains = "is no chain of rules; name one that is (for adamw: adam with decoupled=True)"
        reason = "corrects already; set gamma" if "gamma" in spec.defaults else chains
        raise ValueError(
            f"adanorm = {options['adanorm']!r}: no correction can be put in front of {name}, which {reason}"
        )
    for option in options:
        check_known(option, {*spec.defaults, *wiring}, f"option for {name}:")
    return resolve_factory(spec.factory)(params_or_model, **{**spec.defaults, **options})


def no_correction(spec: OptimizerSpec) -> str:
    """Why AdaNorm's correction cannot be put in front of a rule that does not take ``adanorm``."""
    chains = "is no chain of rules; name one that is (for adamw: adam with decoupled=True)"
    reason = "corrects already; set gamma" if "gamma" in spec.defaults else chains
    return f"adanorm: no correction can be put in front of {spec.name}, which {reason}"


def register_optimizer(
    name: str,
    *,
    citation: str = "",
    family: str = "user",
    equation: str = "",
    search: Mapping[str, Any] | None = None,
    capabilities: Capabilities | None = None,
    revision: int = 1,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: register an optimizer class or factory; its keyword defaults become the spec's options.

    The lab calls ``factory(params_or_model, **options)`` with every option; mostly it gives a model. A subclass of
    ``ChainOptimizer`` is known to be a chain. Raise ``revision`` whenever the rule's numbers change: results are found
    again by name, options and revision.

    Raises:
        DuplicateName: the name is taken.
        ValueError: the name is not lower-case words joined by "-"; an option without a default.
        TypeError: used without a name; capabilities of another type.
    """
    if not isinstance(name, str):
        raise TypeError('register_optimizer needs a name: write @register_optimizer("my-rule")')

    def decorate(factory: Callable[..., Any]) -> Callable[..., Any]:
        spec = OptimizerSpec(
            name, factory, family, citation, equation, _options(name, factory), search or {},
            _completed(capabilities or Capabilities(), factory), revision,
        )  # fmt: skip
        _optimizers._load()
        _optimizers.add(spec)
        return factory

    return decorate


def _options(name: str, factory: Callable[..., Any]) -> dict[str, Any]:
    """The factory's options with their defaults: all that it takes behind the parameters."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [p for p in list(inspect.signature(factory).parameters.values())[1:] if p.kind not in kinds]
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty:
            raise ValueError(f"optimizer {name!r}: option {parameter.name!r} has no default; give it one")
    return {parameter.name: parameter.default for parameter in parameters}


def _completed(capabilities: Capabilities, factory: Callable[..., Any]) -> Capabilities:
    """With ``chain`` set where the factory is a chain's class (seen by name: chains need torch)."""
    bases = getattr(factory, "__mro__", ())
    is_chain = any((base.__module__, base.__qualname__) == ("insgd_lab.chain", "ChainOptimizer") for base in bases)
    return replace(capabilities, chain=True) if is_chain and isinstance(capabilities, Capabilities) else capabilities


def register_model(spec: ModelSpec) -> None:
    """Add a model; raises :class:`DuplicateName` where the name is taken."""
    _models._load()
    _models.add(spec)


def register_data(spec: DataSpec) -> None:
    """Add a data set; raises :class:`DuplicateName` where the name is taken."""
    _data._load()
    _data.add(spec)


def load_plugins(modules: Sequence[str]) -> None:
    """Import modules that register things; each names itself as Python imports it.

    Raises:
        ImportError: which module could not be imported, and why.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a script without a main guard may end in sys.exit
            reason = f"{type(error).__name__}: {error}"
            raise ImportError(
                f"plugin module {module!r} could not be imported ({reason}); "
                "install it, or put its folder on PYTHONPATH"
            ) from error
