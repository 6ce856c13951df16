"""How can a group of commands be a command too, such as `phasegate rollouts read`?"""

import rich_click as click


class NounGroup(click.RichGroup):
    """`alone` runs where nothing follows the noun, `named` where a name does that is no command."""

    def __init__(
        self, *args: object, alone: str | None = None, named: str | None = None, **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._alone, self._named = alone, named

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any(arg in ctx.help_option_names for arg in args[:1]):
            return super().parse_args(ctx, args)
        if self._alone is not None and (not args or args[0].startswith("-")):
            args = [self._alone, *args]
        elif self._named is not None and args and args[0] not in self.commands:
            args = [self._named, *args]
        return super().parse_args(ctx, args)
