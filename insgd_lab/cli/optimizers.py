"""`insgd-lab optimizers`: list them, or show one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from insgd_lab.cli.common import Plugins, load_plugins, plain_errors, print_table

if TYPE_CHECKING:
    from insgd_lab.registry import OptimizerSpec


class _ListByDefault(TyperGroup):
    """A group whose command `list` may be left out: `optimizers "adam*"` is `optimizers list "adam*"`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(help="List optimizers, or show one.", cls=_ListByDefault, add_completion=False)


@app.command("list")
def optimizers_list(
    pattern: Annotated[str, typer.Argument(help='Names to show; wildcards allowed, such as "insgd-*".')] = "*",
    plugin: Plugins = [],  # noqa: B006  (typer reads the default, nobody writes to it)
) -> None:
    """List the optimizers whose names match."""
    from insgd_lab import registry

    with plain_errors():
        load_plugins(plugin)
        names = registry.list_optimizers(pattern)
        if not names:
            registry.check_known(pattern, registry.list_optimizers(), "optimizer")
        specs = [registry.get_optimizer(name) for name in names]
        print_table(("name", "family", "source"), [(s.name, s.family, s.citation) for s in specs])


@app.command("show")
def optimizers_show(
    name: Annotated[str, typer.Argument(help="The exact name.")],
    plugin: Plugins = [],  # noqa: B006
) -> None:
    """Show an optimizer's source, its chain rule by rule, its options and capabilities."""
    from insgd_lab import registry

    with plain_errors():
        load_plugins(plugin)
        spec = registry.get_optimizer(name)
        from insgd_lab import describe

        chain, meanings = describe.rules_of(spec), describe.meanings(spec)
    typer.echo(f"{spec.name} ({spec.family}, revision {spec.revision})\n{spec.citation}\n\n  {spec.equation}\n")
    if chain:
        typer.echo("The chain: u starts as the gradient g, and at the end theta <- theta - u.\n")
    for number, rule in enumerate(chain, 1):
        settings = ", ".join(f"{name} = {value}" for name, value in rule.settings.items())
        note = "  (nothing to do by default)" if rule.idle else ""
        typer.echo(f"  {number}. {rule.name}{note}\n     {rule.equation}\n     {settings}".rstrip() + "\n")
    searched = {key: ", ".join(map(str, _listed(values))) for key, values in spec.search.items()}
    rows = [
        (option, default, meanings.get(option, ""), searched.get(option, ""))
        for option, default in spec.defaults.items()
    ]
    print_table(("option", "default", "meaning", "values worth trying"), rows)
    typer.echo("capabilities: " + ", ".join(_capabilities(spec)))


def _listed(values: object) -> Iterable[object]:
    return values if isinstance(values, (list, tuple)) else [values]


def _capabilities(spec: OptimizerSpec) -> list[str]:
    found = []
    for name, value in vars(spec.capabilities).items():
        if value is True:
            found.append(name.replace("_", " "))
        elif value:
            shown = ", ".join(value) if isinstance(value, tuple) else value
            found.append(f"{name}: {dict(shown) if isinstance(shown, Mapping) else shown}")
    return found or ["none"]
