"""Which commands are there?

The list names them without importing them: `phasegate --help` and a mistyped command stay quick, and
only the command that runs pays for what it needs.
"""

import importlib
import sys

import rich_click as click

from app.errors import Conflict, Forbidden, GateNotMet, PhasegateError, SettingsError

EXIT_ERROR, EXIT_USAGE, EXIT_GATE, EXIT_AUTH, EXIT_CONFLICT = 1, 2, 3, 4, 5

# name: (module of app.cli, the command's function, what it does)
COMMANDS = {
    "serve": ("serve", "serve", "Run the server."),
    "demo": ("demo", "demo", "Show the whole story on a server of its own, in under two minutes."),
    "validate": ("validate", "validate", "Judge a model version by the validation suites."),
    "model": ("model", "model", "Show a version's files, prepare its copies, tune it to this machine."),
    "preflight": ("preflight", "preflight", "Check that this machine can serve."),
    "settings": ("settings", "settings", "List every setting with its value."),
    "db": ("db", "db", "Create or upgrade the database, or say where it stands."),
    "policies": ("policies", "policies", "Check policy files, show what they change, apply it."),
    "rollouts": ("rollouts", "rollouts", "List rollouts, or show one."),
    "versions": ("versions", "versions", "List model versions, try one, activate it, or go back."),
    "gates": ("gates", "gates", "Show what a promotion still needs, or try limits out."),
    "guardrails": ("guardrails", "guardrails", "Show a rollout's guardrails, or try limits out."),
    "replay": (
        "replay",
        "replay",
        "Answer recorded situations again, and say what would have been different.",
    ),
    "promote": ("levers", "promote", "Take a rollout one phase up, if its gate passes."),
    "approve": ("levers", "approve", "Say that another may promote a rollout."),
    "freeze": ("freezes", "freeze", "Say when promotions rest."),
    "rollback": ("levers", "rollback", "Take a rollout down, now."),
    "exposure": ("levers", "exposure", "Change the share of actors that a phase applies to."),
    "ramp": ("ramp", "ramp", "Let exposure widen by itself, step by step, or see how far it is."),
    "hold": ("levers", "hold", "Freeze promotions and ramps of a rollout."),
    "resume": ("levers", "resume", "End a hold."),
    "investigation": ("levers", "investigation", "Close the investigation that a rollback opened."),
    "kill": ("levers", "kill", "Engage or release the kill switch."),
    "decide": ("decide", "decide", "Ask for a decision on a situation."),
    "reviews": ("reviews", "reviews", "List reviews, claim one, judge it or undo."),
    "learn": ("learn", "learn", "Make a new model version out of an old one and people's verdicts."),
    "keys": ("keys", "keys", "List, create and revoke API keys."),
    "users": ("users", "users", "List, create and disable those who sign in to the console."),
    "webhooks": ("webhooks", "webhooks", "Tell other systems what happens, and see whether they heard it."),
    "report": ("report", "report", "How the day, week or month stands, against the checklist."),
    "audit": ("db", "audit", "Verify that the history was neither changed nor cut."),
}


class Commands(click.RichGroup):
    """A group whose commands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- the library's signature
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        assert name is not None
        module, function, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(f"app.cli.{module}"), function)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except PhasegateError as error:
            click.echo(f"phasegate: {error}", err=True)
            sys.exit(exit_code(error))
        except BrokenPipeError:
            raise  # the reader has seen enough: click ends quietly
        except OSError as error:
            # A file, a directory or a disk is not as it should be, and the message names it.
            click.echo(f"phasegate: {error}", err=True)
            sys.exit(EXIT_ERROR)


def exit_code(error: PhasegateError) -> int:
    """0 ok, 1 error, 2 usage, 3 gate not met, 4 auth, 5 conflict."""
    match error:
        case SettingsError():
            return EXIT_USAGE
        case GateNotMet():
            return EXIT_GATE
        case Forbidden():
            return EXIT_AUTH
        case Conflict():
            return EXIT_CONFLICT
        case _:
            return EXIT_ERROR


# Names and descriptions only: what listing and suggesting need.
_LISTED = {name: click.RichCommand(name=name, help=what) for name, (_, _, what) in COMMANDS.items()}


@click.group(cls=Commands, commands=_LISTED, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="phasegate")
def main() -> None:
    """The rollout control plane for a policy LLM.

    Data goes to stdout and text to stderr; --json makes the data JSON. Exit codes: 0 ok, 1 error,
    2 usage, 3 gate not met, 4 authentication or role, 5 conflict.
    """
