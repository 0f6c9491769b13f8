"""`tallygate injector`: puts sidecars into pods, and says which pods went without.

Guarantees: `report` and `render` change nothing in a cluster; `report` exits with 1 where it finds
a pod without its sidecar.
Refuses to know: what a sidecar is made of.
"""

from pathlib import Path
from typing import Annotated

import typer

from tallygate.commands.options import Config, Json, OpsAddress, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, errors, fail, run, show
from tallygate.commands.signals import stop_signal
from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.settings import Settings

injector = typer.Typer(
    invoke_without_command=True, help="Put sidecars into pods, as an admission webhook."
)

SidecarPieces = Annotated[
    Path | None,
    typer.Option("--sidecar", help="The sidecar's pieces, as YAML.", dir_okay=False),
]
KubernetesUrl = Annotated[
    str | None,
    typer.Option("--kubernetes-url", help="Where the Kubernetes API is, as of kubectl proxy."),
]


@injector.callback()
def serve_webhook(
    context: typer.Context,
    *,
    address: Annotated[
        str | None, typer.Option("--address", help="Where the webhook listens, over HTTPS.")
    ] = None,
    sidecar: SidecarPieces = None,
    ops_address: OpsAddress = None,
    config: Config = None,
) -> None:
    """Run the webhook until it is told to stop."""
    if context.invoked_subcommand is not None:
        return
    settings = settings_of(
        config, injector_address=address, injector_config=sidecar, ops_address=ops_address
    )
    from tallygate.wiring.log import configure_logging  # noqa: PLC0415

    configure_logging(level=settings.log_level, style=settings.log_format)
    run(_until_told(settings))


@injector.command()
def report(
    *,
    sidecar: SidecarPieces = None,
    kubernetes_url: KubernetesUrl = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the pods that ask for a sidecar and run without one; exit with 1 if there are any."""
    from tallygate.wiring.injecting import look_once  # noqa: PLC0415

    settings = settings_of(config, injector_config=sidecar, injector_kubernetes_url=kubernetes_url)
    look = run(look_once(settings))
    rows = [(each.namespace, each.pod, each.owner, each.reason) for each in look.missed]
    total = sum(look.by_namespace.values())
    show([Sheet("missed", ("namespace", "pod", "owner", "why"), rows)], as_json=as_json)
    if not as_json:
        errors.print(f"{look.asking:,} pods ask for a sidecar, {total:,} are without one")
    if total:
        raise typer.Exit(EXIT_FAILED)


@injector.command()
def render(
    *,
    file: Annotated[
        Path, typer.Option("--file", "-f", help="Manifests of pods or workloads.", exists=True)
    ],
    sidecar: SidecarPieces = None,
    config: Config = None,
) -> None:
    """Print manifests with their sidecars, as the webhook would make them."""
    from tallygate.wiring.injection_render import rendered  # noqa: PLC0415
    from tallygate.wiring.injection_rules import rules_of, sidecar_now  # noqa: PLC0415

    settings = settings_of(config, injector_config=sidecar)
    try:
        pieces = sidecar_now(settings.injector_config)
        found = rendered(file.read_text(encoding="utf-8"), pieces, rules_of(settings))
    except TallygateError as error:
        fail(error)
    except UnicodeDecodeError:
        fail(InvalidField("is not UTF-8 text", field=str(file)))
    for note in found.notes:
        errors.print(f"tallygate: {note}", style="yellow", markup=False)
    typer.echo(found.text, nl=False)


async def _until_told(settings: Settings) -> None:
    from tallygate.wiring.injecting import injecting  # noqa: PLC0415

    stop = stop_signal()
    async with injecting(settings) as running:
        errors.print(
            f"tallygate injector: {settings.injector_address} (port {running.port});"
            f" ops on port {running.ops_port}"
        )
        await stop.wait()
