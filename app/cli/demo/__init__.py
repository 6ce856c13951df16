"""How does a model come to decide, fail, and lose its phase again, as a story one can watch?"""

import asyncio
import contextlib
import signal
import sys

import rich_click as click

from app.cli import EXIT_ERROR
from app.cli.demo.acts import play
from app.cli.demo.people import cast
from app.cli.demo.server import running
from app.cli.demo.story import Story, Trouble
from app.cli.demo.visit import prepare
from app.cli.output import json_option
from app.client import ClientError


@click.command()
@click.option(
    "--keep/--end",
    default=None,
    help="Leave the server and its console up until Ctrl-C, as it does in a terminal, or not.",
)
@json_option
def demo(*, keep: bool | None, as_json: bool) -> None:
    """Take the model through shadow, advisory and enforced, break it, and watch it come back.

    On a server of its own: free port, own data, drills allowed. The gates are the real ones, with
    the small limits of policies/demo/rollouts.yaml. With --json the story is one object a line.
    """
    story = Story(as_json=as_json)
    keep = sys.stdout.isatty() and not as_json if keep is None else keep
    story.chapter(
        "A model earns its say, breaks, and loses it by itself.",
        "Callers, reviewer and owner are scripted. The server, the model, the gates and the guardrails are the",
        "real ones; only the limits and times are small, so that one can watch (policies/demo/rollouts.yaml).",
    )
    try:
        asyncio.run(_show(story, keep=keep))
    except (Trouble, ClientError) as trouble:
        story.tell("trouble", f"The story ends here: {trouble}")
        raise SystemExit(EXIT_ERROR) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        story.tell("stopped", "Stopped before its end.")
        raise SystemExit(EXIT_ERROR) from None


async def _show(story: Story, *, keep: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    # Ended from outside, the demo takes its server and its files with it.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with running(story) as server:
        async with cast(server.url, server.admin_key) as people:
            await play(people, story)
            path = await prepare(people, story) if keep else None
        story.tell(
            "end", f"That took {story.elapsed_s:.0f} s. Now `make serve`: the same with the real limits."
        )
        if path is not None:
            sentence = "The console stays open until Ctrl-C. This link lets you in, once, within an hour:"
            facts = {"url": server.url, "link": f"{server.url}{path}", "key": server.admin_key}
            story.tell("kept", sentence, below=[facts["link"], f"admin key: {server.admin_key}"], **facts)
            with contextlib.suppress(asyncio.CancelledError):  # the story has been told
                await server.process.wait()
